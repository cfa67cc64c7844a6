"""Evaluation during training: what it refuses at once, what it calls diverged, and what has no figure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from data_pipelines.records import Dataset, RecordList
from data_pipelines.spec import open_spec
from prn_jax.detect.detections import Detections
from prn_jax.detect.metrics import collect, evaluate
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.network import init_variables
from prn_jax.train.config import ConfigError, EvalConfig
from prn_jax.train.evaluation import RATING, Evaluator
from prn_jax.train.exit_codes import DIVERGED
from prn_jax.train.sharding import make_mesh, put_state
from tests.nets import tiny_detector


def classifier() -> Graph:
  g = Builder(32, 32, name="small")
  g.avgpool(name="pool")
  g.conv(4, 1, name="scores")
  g.softmax(name="probabilities")
  return g.graph()


def evaluator(graph: Graph, dataset: Dataset | None = None, **settings: Any) -> Evaluator:
  mesh = make_mesh(jax.devices()[:1])
  return Evaluator(graph, dataset or open_spec("synthetic:traffic:3"), mesh, EvalConfig(**settings), batch_size=2)


def empty_road() -> RecordList:
  """One image without any box."""
  source = open_spec("synthetic:traffic:3")
  no = np.zeros(0, bool)
  record = dataclasses.replace(
    source[0], image_id="road", boxes_xyxy_px=np.zeros((0, 4), np.float32), classes=no.astype(np.int32), is_crowd=no,
    is_difficult=no,
  )  # fmt: skip
  return RecordList(source.names, source.category_ids, (record,))


@pytest.mark.parametrize("protocol", list(RATING))
def test_the_figures_that_rate_are_those_of_the_protocol(protocol: str) -> None:
  dataset = empty_road()
  nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32), dataset.names, 320, 240)
  data = collect(dataset.names, dataset.records, {"road": nothing})
  assert set(RATING[protocol]) == set(evaluate(data, protocol).metrics) - {"FP", "FN"}


@pytest.mark.parametrize(
  ("graph", "settings", "message"),
  [
    (tiny_detector(32, 4), {"metric": "AP5O"}, r"eval\.metric is 'AP5O' \(did you mean 'AP\d+'\?\).*'coco': AP, AP50"),
    (
      tiny_detector(32, 4),
      {"metric": "AP50", "protocol": "voc"},
      r"'AP50'.*expected a figure of protocol 'voc': mAP\.",
    ),
    (tiny_detector(32, 4), {"metric": "FP", "protocol": "darknet"}, r"'FP'.*expected a figure"),
    (classifier(), {"metric": "AP50"}, r"'AP50'; expected a figure of a classifier: top1, top5"),
  ],
)
def test_a_figure_that_does_not_exist_is_refused_at_once(
  graph: Graph, settings: Mapping[str, str], message: str
) -> None:
  with pytest.raises(ConfigError, match=message):
    evaluator(graph, **settings)


def test_voc_without_any_box_has_no_figure() -> None:
  graph = tiny_detector(32, 4)
  run = evaluator(graph, empty_road(), protocol="voc")
  batches: list[int] = []
  figures = run(put_state(init_variables(graph, 0), run.mesh), lambda: batches.append(1))
  assert list(figures.values) == ["mAP"]
  assert math.isnan(figures.values["mAP"])
  assert len(batches) == 1


def test_outputs_that_are_not_finite_are_divergence() -> None:
  graph = tiny_detector(32, 4)
  run = evaluator(graph)
  variables = init_variables(graph, 0)
  variables["params"]["stem"]["conv"]["kernel"] = np.full_like(variables["params"]["stem"]["conv"]["kernel"], np.nan)
  with pytest.raises(Exception, match=r"gave NaN or infinity for image 'train_0_0000000'.*has diverged") as caught:
    run(put_state(variables, run.mesh))
  assert caught.value.exit_code == DIVERGED  # type: ignore[attr-defined]
