"""Evaluation during training: what it refuses at once, what it calls diverged, and what has no figure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, Dataset, RecordList
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.detections import Detections
from prn_jax.detect.metrics import collect, evaluate, get_protocol, protocols
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.hosts.exit_codes import DIVERGED
from prn_jax.network import init_variables
from prn_jax.run.mesh import make_mesh, put_state
from prn_jax.train.config import ConfigError, EvalConfig
from prn_jax.train.evaluation import Figures, Validation
from tests.data_pipelines.pipeline_data import jpeg, numbered
from tests.nets import tiny_detector


def classifier(classes: int = 4) -> Graph:
  g = Builder(32, 32, name="small")
  g.avgpool(name="pool")
  g.conv(classes, 1, name="scores")
  g.softmax(name="probabilities")
  return g.graph()


def evaluator(
  graph: Graph, dataset: Dataset | None = None, on_bad_data: str = "stop", num_devices: int = 1, **settings: Any
) -> Validation:
  dataset = dataset or open_spec("synthetic:traffic:3")
  mesh = make_mesh(jax.devices()[:num_devices])
  return Validation(graph, dataset, mesh, EvalConfig(**settings), batch_size=2, on_bad_data=on_bad_data)


def run(one: Validation, seed: int = 0) -> Figures:
  return one(put_state(init_variables(one.graph, seed), one.mesh))


def empty_road() -> RecordList:
  """One image without any box."""
  source = open_spec("synthetic:traffic:3")
  no = np.zeros(0, bool)
  record = dataclasses.replace(
    source[0], image_id="road", boxes_xyxy_px=np.zeros((0, 4), np.float32), classes=no.astype(np.int32), is_crowd=no,
    is_difficult=no,
  )  # fmt: skip
  return RecordList(source.names, source.category_ids, (record,))


@pytest.mark.parametrize("protocol", protocols())
def test_the_figures_that_rate_are_those_of_the_protocol(protocol: str) -> None:
  dataset = empty_road()
  nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32), dataset.names, 320, 240)
  data = collect(dataset.names, dataset.records, {"road": nothing})
  assert set(get_protocol(protocol).ratings) == set(evaluate(data, protocol).metrics) - {"FP", "FN"}


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
  one = evaluator(graph, empty_road(), protocol="voc")
  batches: list[int] = []
  figures = one(put_state(init_variables(graph, 0), one.mesh), lambda: batches.append(1))
  assert list(figures.values) == ["mAP"]
  assert math.isnan(figures.values["mAP"])
  assert len(batches) == 1


def test_outputs_that_are_not_finite_are_divergence() -> None:
  graph = tiny_detector(32, 4)
  one = evaluator(graph)
  variables = init_variables(graph, 0)
  variables["params"]["stem"]["conv"]["kernel"] = np.full_like(variables["params"]["stem"]["conv"]["kernel"], np.nan)
  with pytest.raises(Exception, match=r"gave NaN or infinity for image 'train_0_0000000'.*has diverged") as caught:
    one(put_state(variables, one.mesh))
  assert caught.value.exit_code == DIVERGED  # type: ignore[attr-defined]


@pytest.mark.parametrize("labelled", [True, False])
def test_what_an_evaluation_left_out_is_listed_each_time_anew(labelled: bool) -> None:
  graph = classifier(5) if labelled else tiny_detector(32, 5)
  one = evaluator(graph, numbered(5, labelled=labelled, bad=(1, 4)), on_bad_data="skip")
  assert one.problems == ()
  for seed in (0, 1):
    run(one, seed)
    assert [(str(problem.path), problem.line, problem.kind) for problem in one.problems] == [
      ("picture_1", None, "unreadable image"),
      ("picture_4", None, "unreadable image"),
    ]
  listed = one.problems[0].to_json()
  assert sorted(listed) == ["id", "kind", "line", "path", "reason"]
  assert "image 'picture_1' is not an image" in str(listed["reason"])


@pytest.mark.parametrize("labelled", [True, False])
def test_no_image_that_can_be_used_is_bad_data(labelled: bool) -> None:
  graph = classifier(5) if labelled else tiny_detector(32, 5)
  one = evaluator(graph, numbered(3, labelled=labelled, bad=(0, 1, 2)), on_bad_data="skip")
  with pytest.raises(DataError, match="none of the 3 images of the evaluation can be used, the first because image 'p"):
    run(one)


@pytest.mark.parametrize("size", [(80, 60), (30, 40)], ids=["scaled", "turned"])
def test_an_image_of_another_size_is_bad_data_under_the_policy(size: tuple[int, int]) -> None:
  data = numbered(5)
  other = dataclasses.replace(data.records[2], image=jpeg(*size))
  data = dataclasses.replace(data, records=(*data.records[:2], other, *data.records[3:]))
  text = f"image 'picture_2' is {size[0]}x{size[1]}, but the annotations say 40x30"
  with pytest.raises(DataError, match=f"record 2: {text}"):
    run(evaluator(tiny_detector(32, 5), data))
  one = evaluator(tiny_detector(32, 5), data, on_bad_data="skip")
  figures = run(one)
  assert sorted(figures.run.results) == ["picture_0", "picture_1", "picture_3", "picture_4"]
  assert figures.scored[0].image_ids == ("picture_0", "picture_1", "picture_3", "picture_4")
  assert [text in problem.reason for problem in one.problems] == [True]


def many(is_classification: bool) -> Dataset:
  """Eleven images, which no number of devices but one divides: road scenes, or pictures with labels."""
  return numbered(11, labelled=True) if is_classification else open_spec("synthetic:traffic:11@valid")


@pytest.mark.parametrize("is_classification", [False, True], ids=["detector", "classifier"])
def test_figures_do_not_depend_on_the_number_of_devices(is_classification: bool) -> None:
  """Every image counts once, whatever padding the devices need."""
  data = many(is_classification)
  graph = classifier(5) if is_classification else tiny_detector(64, 4)
  runs = {count: evaluator(graph, data, num_devices=count, conf=0.01) for count in (1, 2, 8)}
  assert len(jax.devices()) >= 8
  found = {count: run(one) for count, one in runs.items()}
  alone = found[1]
  assert alone.values["top1" if is_classification else "AP50"] > 0, "nothing found says nothing"
  for count in (2, 8):
    assert found[count].values == pytest.approx(alone.values, rel=1e-6), count
    if is_classification:
      assert found[count].scored.images == 11
      np.testing.assert_array_equal(found[count].scored.counts, alone.scored.counts)
    else:
      assert sorted(found[count].run.results) == sorted(record_ids(data))
      for image_id, expected in alone.run.results.items():
        assert len(found[count].run.results[image_id]) == len(expected)


def record_ids(data: Dataset) -> list[Any]:
  return [data[index].image_id for index in range(len(data))]
