"""Decoding against Darknet's own detections, and each kind of head against arithmetic by hand."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.data_pipelines.images import Placement, letterbox
from prn_jax.detect.decode import decode, detection_heads
from prn_jax.detect.nms import postprocess
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.graph import Graph
from prn_jax.network import Network
from tests.conftest import SHARED, shared_params

NETS = shared_params(*(f"golden/{f.parent.name}" for f in SHARED.glob("golden/*/detections.json")) if SHARED else "")


@functools.cache
def run_golden(folder: Path, name: str) -> tuple[Graph, dict[str, jax.Array], float]:
  """Graph, head outputs for one stored input, and the tolerance that its noise gives."""
  graph = darknet_cfg.read(folder / "net.cfg").graph
  variables = darknet_weights.load(folder / "net.weights", graph).variables
  x = np.load(folder / name).transpose(0, 2, 3, 1)
  outputs = jax.jit(Network(graph, precision="highest").apply)(variables, x)
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


@pytest.mark.parametrize("folder", NETS)
def test_detections_of_darknet(folder: Path) -> None:
  for case in json.loads((folder / "detections.json").read_text())["cases"]:
    graph, outputs, tolerance = run_golden(folder, case["input"])
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


# -- each kind of head by hand -----------------------------------------------------------------------------------------


def head_graph(section: str, channels: int, size: int = 64) -> Graph:
  """A network whose head sees `channels` channels at a stride of 32."""
  text = f"[net]\nwidth={size}\nheight={size}\nchannels=3\n\n[convolutional]\nsize=1\nstride=32\nfilters={channels}\n"
  return darknet_cfg.parse(f"{text}activation=linear\n\n{section}\n", "test.cfg").graph


def one_cell(values: dict[int, list[float]], channels: int, anchors: int) -> jnp.ndarray:
  """(1, 2, 2, channels) of 0 with the given entries (cell index -> values of its last anchor)."""
  output = np.zeros((4, anchors, channels // anchors), np.float32)
  for cell, entries in values.items():
    output[cell, -1] = entries
  return jnp.asarray(output.reshape(1, 2, 2, channels))


def test_yolo_by_hand() -> None:
  """Cell (1, 0) of 2x2, anchor 16x8 in 64x64: x = (1 + .25)/2, y = (0 + .5)/2, w = 2 * 16/64, h = 1 * 8/64."""
  graph = head_graph("[yolo]\nclasses=2\nnum=2\nanchors=4,4, 16,8", 14)
  output = one_cell({1: [0.25, 0.5, np.log(2), 0, 0.5, 0.5, 0.25]}, 14, 2)
  found = decode({"yolo_1": output}, graph)
  place = 1 * 2 + 1  # second cell, second anchor
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, place], [0.625, 0.25, 0.5, 0.125], rtol=1e-6)
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, 4], [0, 0.5, 4 / 64, 4 / 64])  # cell (0, 1), first anchor
  assert float(found.objectness[0, place]) == 0.5
  assert found.scores[0, place].tolist() == [0.25, 0.125]
  assert found.uncertainty is None
  assert found.boxes_cxcywh_rel.shape == (1, 8, 4)


def test_new_coords_by_hand() -> None:
  """w = 4 * 0.5^2 * 16/64, h = 4 * 0.25^2 * 8/64."""
  graph = head_graph("[yolo]\nclasses=1\nnum=1\nanchors=16,8\nnew_coords=1\nscale_x_y=2", 6)
  found = decode({"yolo_1": one_cell({2: [0.5, -0.25, 0.5, 0.25, 0.5, 0.5]}, 6, 1)}, graph)
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, 2], [0.25, 0.375, 0.25, 0.03125], rtol=1e-6)


@pytest.mark.parametrize(
  ("point", "center"), [("center", (0.625, 0.25)), ("left_top", (0.75, 0.3125)), ("right_bottom", (0.5, 0.1875))]
)
def test_gaussian_by_hand(point: str, center: tuple[float, float]) -> None:
  """Box 0.25 x 0.125 with its point at (1.25/2, 0.5/2); score 0.5 * 0.5 * (1 - mean(0.1, 0.2, 0.3, 0.4))."""
  graph = head_graph(f"[Gaussian_yolo]\nclasses=1\nnum=1\nanchors=16,8\nyolo_point={point}", 10)
  found = decode({"gaussian_yolo_1": one_cell({1: [0.25, 0.1, 0.5, 0.2, 0, 0.3, 0, 0.4, 0.5, 0.5]}, 10, 1)}, graph)
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, 1], [*center, 0.25, 0.125], rtol=1e-6)
  np.testing.assert_allclose(found.scores[0, 1], [0.25 * 0.75], rtol=1e-6)
  np.testing.assert_allclose(found.uncertainty[0, 1], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
  kept = postprocess(
    {"gaussian_yolo_1": one_cell({1: [0.25, 0.1, 0.5, 0.2, 0, 0.3, 0, 0.4, 0.5, 0.5]}, 10, 1)}, graph, conf=0.1
  )
  assert kept.count.tolist() == [1]
  np.testing.assert_allclose(kept.uncertainty[0, 0], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
  assert not kept.uncertainty[0, 1:].any()


def test_region_by_hand() -> None:
  """Anchors in cells: x = (1 + sigmoid 0)/2, y = (1 + sigmoid(ln 3))/2, w = 2 * 0.5/2, h = 1 * 1.5/2."""
  graph = head_graph("[region]\nclasses=2\nnum=1\nanchors=0.5,1.5\nsoftmax=1", 7)
  found = decode({"region_1": one_cell({3: [0, np.log(3), np.log(2), 0, 0.5, 0.75, 0.25]}, 7, 1)}, graph)
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, 3], [0.75, 0.875, 0.5, 0.75], rtol=1e-6)
  np.testing.assert_allclose(found.scores[0, 3], [0.375, 0.125], rtol=1e-6)


def test_grid_of_unequal_sides_and_order_of_heads() -> None:
  """A 4x2 grid: columns run first, then rows; heads follow in cfg order."""
  text = (
    "[net]\nwidth=128\nheight=64\nchannels=3\n\n[convolutional]\nsize=1\nstride=32\nfilters=6\nactivation=linear\n\n"
    "[yolo]\nclasses=1\nnum=2\nmask=0\nanchors=64,64, 32,16\n\n[route]\nlayers=0\n\n[maxpool]\nsize=2\nstride=2\n\n"
    "[yolo]\nclasses=1\nnum=2\nmask=1\nanchors=64,64, 32,16\n"
  )
  graph = darknet_cfg.parse(text, "test.cfg").graph
  outputs = {"yolo_1": jnp.zeros((2, 2, 4, 6)), "yolo_4": jnp.zeros((2, 1, 2, 6), jnp.bfloat16)}
  found = decode(outputs, graph)
  assert found.boxes_cxcywh_rel.shape == (2, 10, 4)
  assert found.boxes_cxcywh_rel.dtype == jnp.float32
  corners = [(x / 4, y / 2) for y in range(2) for x in range(4)] + [(0, 0), (0.5, 0)]
  np.testing.assert_allclose(found.boxes_cxcywh_rel[1, :, :2], corners)
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, :, 2:], [[0.5, 1]] * 8 + [[0.25, 0.25]] * 2)


def test_what_cannot_be_decoded() -> None:
  tree = head_graph("[region]\nclasses=2\nnum=1\nanchors=1,1\ntree=nine.tree", 7)
  with pytest.raises(OutOfScopeError, match=r"'region_1' \(region\) has a class hierarchy \(tree=nine.tree\)"):
    decode({"region_1": jnp.zeros((1, 2, 2, 7))}, tree)
  classifier = head_graph("[softmax]", 6)
  with pytest.raises(PrnError, match=r"has no detection head; its result is 'softmax_1' \(softmax\)"):
    postprocess({}, classifier)
  text = "[yolo]\nclasses=1\nnum=1\nanchors=1,1\n\n[route]\nlayers=0\n\n[convolutional]\nfilters=7\nactivation=linear\n\n[yolo]\nclasses=2\nnum=1\nanchors=1,1"
  with pytest.raises(
    PrnError, match=r"do not fit together: 'yolo_1' \(yolo, 1 classes\), 'yolo_4' \(yolo, 2 classes\)"
  ):
    detection_heads(head_graph(text, 6))
