"""Decoding against Darknet's own detections, and each kind of head against arithmetic by hand."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.images import Placement, letterbox
from prn_jax.detect.decode import decode
from prn_jax.detect.nms import postprocess
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.graph import Graph
from prn_jax.network import Network
from tests.conftest import shared_params

NETS = shared_params("golden/*/detections.json")


@functools.cache
def run_golden(folder: Path, name: str) -> tuple[Graph, dict[str, jax.Array], float]:
  """Graph, head outputs for one stored input, and the tolerance that its noise gives."""
  graph = darknet_cfg.read(folder / "net.cfg").graph
  variables = darknet_weights.load(folder / "net.weights", graph).variables
  x = np.load(folder / name).transpose(0, 2, 3, 1)
  outputs = Network(graph, precision="highest").apply(variables, x)
  noise = json.loads((folder.parent / "manifest.json").read_text())[folder.name]["inputs"][name.removesuffix(".npy")]
  worst = max(max(o["err_vs_float64"], o["err_vs_avx_ofast_build"]) for o in noise["outputs"].values())
  return graph, outputs, max(10 * worst, 1e-5)


def golden_placement(case: dict, graph: Graph) -> Placement:
  if not case["letter_box"]:
    return Placement(case["image_w"], case["image_h"], graph.width, graph.height)
  return letterbox(np.zeros((case["image_h"], case["image_w"], 3), np.uint8), graph.width, graph.height)[1]


def assert_same_detections(ours: list[tuple], case: dict, tolerance: float, placement: Placement) -> None:
  """Both lists hold (bbox, objectness, {class: probability}); compared as sets.

  An error e of the head output is e / grid of x, e times the size of w and h, e of the objectness and at most 2 e
  of a product of two probabilities; the letterbox magnifies boxes by 1 / scale.
  """
  assert len(ours) == case["count"]
  rows = np.array([[*box, objectness] for box, objectness, _ in ours])
  magnify = 1 / min(placement.scale_x, placement.scale_y)
  taken = set()
  for golden in case["detections"]:
    row = np.array([*golden["bbox"], golden["objectness"]])
    limit = tolerance * np.array([magnify, magnify, *np.maximum(1, row[2:4]) * magnify, 1])
    close = [i for i in np.flatnonzero((np.abs(rows - row) <= limit).all(1)) if i not in taken]
    assert close, f"no detection like {golden}"
    i = min(close, key=lambda i: np.abs(rows[i] - row).max())
    taken.add(i)
    assert ours[i][2].keys() == {int(c) for c in golden["prob"]}
    for c, probability in golden["prob"].items():
      assert ours[i][2][int(c)] == pytest.approx(probability, abs=2 * tolerance)


@pytest.mark.parametrize("file", NETS)
def test_detections_of_darknet(file: Path) -> None:
  for case in json.loads(file.read_text())["cases"]:
    graph, outputs, tolerance = run_golden(file.parent, case["input"])
    placement = golden_placement(case, graph)
    candidates = jax.tree.map(np.asarray, jax.jit(decode, static_argnums=1)(outputs, graph))
    boxes = placement.to_image_cxcywh_rel(candidates.boxes_cxcywh_rel[0])
    if case["nms_applied"]:
      scale = jnp.array([[1 / placement.scale_x, 1 / placement.scale_y]], jnp.float32)
      found = postprocess(
        outputs, graph, conf=case["thresh"], nms_threshold=case["nms_thresh"], max_detections=4096, box_scale=scale
      )
      assert int(found.overflow[0]) == int(found.num_nonfinite[0]) == 0
      scores = np.zeros_like(candidates.scores[0])
      used = np.asarray(found.valid[0])
      scores[np.asarray(found.candidates[0])[used], np.asarray(found.classes[0])[used]] = np.asarray(found.scores[0])[
        used
      ]
    else:
      scores = np.where(candidates.scores[0] > case["thresh"], candidates.scores[0], 0)
    ours = [
      (boxes[i], candidates.objectness[0, i], {c: scores[i, c] for c in np.flatnonzero(scores[i])})
      for i in np.flatnonzero(candidates.objectness[0] > case["thresh"])
    ]
    assert_same_detections(ours, case, tolerance, placement)
