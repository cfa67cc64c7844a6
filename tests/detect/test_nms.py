"""Suppression against Darknet, against a plain reference in numpy, and by its laws."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.images import read_image, stretch
from prn_jax.detect import nms
from prn_jax.detect.decode import decode
from prn_jax.detect.nms import Suppressed, postprocess, suppress
from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.head import Candidates
from prn_jax.network import Network
from tests.nets import random_model

KINDS = [("default", 0.6), ("greedynms", 0.6), ("diounms", 0.6), ("diounms", 0.9), ("cornersnms", 0.6)]
OPTIONS = ("max_detections", "class_agnostic", "nms_kind", "beta_nms", "max_candidates")


@functools.partial(jax.jit, static_argnames=OPTIONS)
def run(candidates: Candidates, conf: float, threshold: float, **options: Any) -> Suppressed:
  return suppress(candidates, conf=conf, nms_threshold=threshold, **({"max_detections": 512} | options))


# -- the reference: one box at a time, as Darknet's `do_nms_sort` and `diounms_sort` -----------------------------------


def overlap(a: np.ndarray, b: np.ndarray, exponent: float | None) -> float:
  low, high = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2), np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
  intersection = np.prod(np.maximum(high - low, 0))
  union = a[2] * a[3] + b[2] * b[3] - intersection
  iou = intersection / union if intersection > 0 else 0.0
  low, high = np.minimum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2), np.maximum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
  diagonal = np.sum((high - low) ** 2)
  if exponent is None or diagonal == 0:
    return float(iou)
  return float(iou - (np.sum((a[:2] - b[:2]) ** 2) / diagonal) ** exponent)


def reference(
  boxes: np.ndarray, objectness: np.ndarray, scores: np.ndarray, conf: float, threshold: float, exponent: float | None
) -> np.ndarray:
  """(boxes, classes) scores after suppression, in float64."""
  boxes = boxes.astype(np.float64)
  scores = np.where((scores > conf) & (objectness > conf)[:, None], scores, 0)
  for c in range(scores.shape[1]):
    order = np.argsort(-scores[:, c], kind="stable")
    for place, i in enumerate(order):
      if scores[i, c] == 0:
        continue
      for j in order[place + 1 :]:
        if scores[j, c] > 0 and overlap(boxes[i], boxes[j], exponent) > threshold:
          scores[j, c] = 0
  return scores


def table(found: Suppressed, num_boxes: int, num_classes: int, image: int = 0) -> np.ndarray:
  """The kept scores of one image as (boxes, classes)."""
  scores = np.zeros((num_boxes, num_classes), np.float32)
  used = np.asarray(found.valid[image])
  place = np.asarray(found.candidates[image])[used], np.asarray(found.classes[image])[used]
  assert len(set(zip(*place, strict=True))) == used.sum()
  scores[place] = np.asarray(found.scores[image])[used]
  return scores


def candidates_of(boxes: np.ndarray, objectness: np.ndarray, scores: np.ndarray) -> Candidates:
  return Candidates(*(jnp.asarray(x, jnp.float32)[None] for x in (boxes, objectness, scores)))


def scene(seed: int, num_boxes: int = 120, num_classes: int = 5, num_objects: int = 12) -> Candidates:
  """Boxes in heaps about some objects, as a network gives them."""
  rng = np.random.default_rng(seed)
  objects = np.concatenate([rng.uniform(0, 1, (num_objects, 2)), rng.uniform(0.05, 0.5, (num_objects, 2))], 1)
  boxes = objects[rng.integers(num_objects, size=num_boxes)] * rng.lognormal(0, 0.15, (num_boxes, 4))
  objectness = rng.beta(0.5, 1, num_boxes)
  return candidates_of(boxes, objectness, objectness[:, None] * rng.beta(0.5, 1, (num_boxes, num_classes)))


# -- Darknet -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "name",
  ["default_0.45", "default_0.6", "greedynms_0.45", "greedynms_0.6", "cornersnms_0.45",
   "diounms_beta0.6_0.45", "diounms_beta0.9_0.45"],
)  # fmt: skip
def test_golden_kinds(shared: Path, name: str) -> None:
  golden = np.load(shared / "golden/nms/nms.npz")
  rows = golden["input"]
  kind, *beta, threshold = name.split("_")
  options: dict[str, Any] = {"nms_kind": kind} | ({"beta_nms": float(beta[0][4:])} if beta else {})
  found = run(candidates_of(rows[:, :4], rows[:, 4], rows[:, 5:]), 0.0, float(threshold), **options)
  # Darknet sets boxes without objectness aside, as they are.
  ours = np.concatenate([rows[:, :5], np.where(rows[:, 4:5] > 0, table(found, 80, 4), rows[:, 5:])], 1)
  as_set = lambda array: sorted(map(tuple, array.tolist()))  # noqa: E731
  assert as_set(ours) == as_set(golden[name])
  assert (ours != rows).any()


# -- the reference -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "beta"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference(kind: str, beta: float, seed: int) -> None:
  candidates = scene(seed)
  exponent = {"greedynms": 0.6, "diounms": beta}.get(kind)
  arrays = [np.asarray(x[0]) for x in candidates[:3]]
  for conf, threshold in ((0.25, 0.45), (0.001, 0.6), (0.1, 0.0)):
    found = run(candidates, conf, threshold, nms_kind=kind, beta_nms=beta, max_detections=1000)
    expected = reference(*arrays, conf, threshold, exponent)
    np.testing.assert_array_equal(table(found, 120, 5), expected)
    assert int(found.num_kept[0]) == int(found.count[0]) == (expected > 0).sum() > 0
    scores = np.asarray(found.scores[0])
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_array_equal(np.asarray(found.valid[0]), scores > 0)


def test_every_size_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
  """1,600 boxes: the small programs, and the one that holds all, at thresholds that lead to each."""
  candidates = scene(7, num_boxes=1600, num_classes=3, num_objects=60)
  results = {}
  for sizes in (nms._SMALL_SIZES, ()):
    monkeypatch.setattr(nms, "_SMALL_SIZES", sizes)
    go = jax.jit(lambda conf: suppress(candidates, conf=conf, nms_threshold=0.45, max_detections=2000))
    results[sizes] = [go(conf) for conf in (0.9, 0.6, 0.3, 0.001)]
  pairs = [
    int(jnp.sum((candidates.scores > c) & (candidates.objectness > c)[..., None])) for c in (0.9, 0.6, 0.3, 0.001)
  ]
  boxes = [int(jnp.sum(candidates.objectness > c)) for c in (0.9, 0.6, 0.3, 0.001)]
  assert pairs[0] <= 256 and boxes[0] <= 128  # noqa: PT018
  assert boxes[1] > 128 and pairs[1] <= 2048  # noqa: PT018
  assert pairs[3] > 2048
  for a, b in zip(*results.values(), strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert int(a.overflow[0]) == 0


@pytest.mark.parametrize(("num_classes", "class_agnostic"), [(1, False), (1, True), (3, True)])
def test_one_class_of_many_boxes(num_classes: int, class_agnostic: bool) -> None:
  """400 boxes and one class for each: there are fewer pairs than an everyday number of boxes has elsewhere."""
  candidates = scene(8, num_boxes=400, num_classes=num_classes, num_objects=30)
  boxes, objectness, scores = (np.asarray(x[0]) for x in candidates[:3])
  for conf in (0.6, 0.25, 0.001):
    found = run(candidates, conf, 0.45, class_agnostic=class_agnostic)
    best = reference(boxes, objectness, scores.max(1, keepdims=True), conf, 0.45, None)
    expected = np.where(np.arange(num_classes) == scores.argmax(1)[:, None], best, 0)
    np.testing.assert_array_equal(table(found, 400, num_classes), expected)
    assert int(found.count[0]) > 0


def test_batch_equals_single_images() -> None:
  scenes = [scene(seed, num_objects=4 * (seed + 1)) for seed in range(3)] + [
    candidates_of(*[np.zeros(s) for s in ((120, 4), 120, (120, 5))])
  ]
  batch = jax.tree.map(lambda *x: jnp.concatenate(x), *scenes)
  together = run(batch, 0.05, 0.45)
  for i, one in enumerate(scenes):
    alone = run(one, 0.05, 0.45)
    jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b[0]), together, alone)
  assert together.count.tolist()[3] == 0
  assert not together.valid[3].any()


def test_ties_go_to_the_earlier_box() -> None:
  boxes = np.tile(np.array([[0.5, 0.5, 0.2, 0.2]], np.float32), (300, 1))
  found = run(candidates_of(boxes, np.full(300, 0.5), np.full((300, 2), 0.4)), 0.1, 0.5)
  assert sorted(zip(found.candidates[0, :2].tolist(), found.classes[0, :2].tolist(), strict=True)) == [(0, 0), (0, 1)]
  assert int(found.count[0]) == 2


def test_thresholds_are_strict() -> None:
  boxes = np.array([[0.25, 0.5, 0.5, 1], [0.5, 0.5, 0.5, 1]], np.float32)  # IoU 1/3 exactly in float32
  half = candidates_of(boxes, np.array([0.5, 0.75]), np.array([[0.5], [0.25]]))
  third = float(np.float32(1) / np.float32(3))
  assert int(run(half, 0.25, 0.9).count[0]) == 1  # a score of 0.25 does not exceed 0.25
  assert int(run(half, 0.2, third).count[0]) == 2  # an overlap of 1/3 does not exceed 1/3
  assert int(run(half, 0.2, 0.33).count[0]) == 1
  assert int(run(half, 0.5, 0.9).count[0]) == 0  # nor an objectness of 0.5


def test_objectness_below_the_threshold_silences_a_high_score() -> None:
  """Scores above the objectness exist (region without softmax): Darknet asks the objectness first."""
  found = run(candidates_of(np.full((1, 4), 0.5), np.array([0.2]), np.array([[0.9]])), 0.25, 0.5)
  assert int(found.count[0]) == 0


# -- class-agnostic, limits, bad numbers -------------------------------------------------------------------------------


def test_class_agnostic() -> None:
  candidates = scene(3)
  boxes, objectness, scores = (np.asarray(x[0]) for x in candidates[:3])
  found = run(candidates, 0.05, 0.45, class_agnostic=True)
  best = reference(boxes, objectness, scores.max(1, keepdims=True), 0.05, 0.45, None)
  expected = np.where(np.arange(5) == scores.argmax(1)[:, None], best, 0)
  np.testing.assert_array_equal(table(found, 120, 5), expected)
  assert int(found.count[0]) < int(run(candidates, 0.05, 0.45).count[0])


def test_max_detections_keeps_the_best_and_says_so() -> None:
  everything = run(scene(4), 0.01, 0.45, max_detections=1000)
  few = run(scene(4), 0.01, 0.45, max_detections=7)
  assert int(few.count[0]) == 7
  assert int(few.num_kept[0]) == int(everything.count[0]) > 7
  np.testing.assert_array_equal(few.scores[0], everything.scores[0, :7])
  padded = run(scene(4, num_boxes=20), 0.01, 0.45, max_detections=1000)
  assert padded.boxes_cxcywh_rel.shape == (1, 1000, 4)
  unused = np.asarray(~padded.valid[0])
  assert unused.sum() >= 900
  for field in ("boxes_cxcywh_rel", "scores", "classes", "objectness", "candidates"):
    assert not np.asarray(getattr(padded, field)[0])[unused].any()


def test_overflow_is_counted_and_a_larger_size_cures_it() -> None:
  candidates = scene(5)
  pairs = int(jnp.sum((candidates.scores > 0.01) & (candidates.objectness > 0.01)[..., None]))
  few = run(candidates, 0.01, 0.45, max_candidates=100)
  assert int(few.overflow[0]) == pairs - 100
  enough = run(candidates, 0.01, 0.45, max_candidates=pairs)
  assert int(enough.overflow[0]) == 0
  jax.tree.map(np.testing.assert_array_equal, enough, run(candidates, 0.01, 0.45))


def test_broken_numbers_are_left_out_and_counted() -> None:
  candidates = scene(6)
  clean = np.asarray(candidates.boxes_cxcywh_rel).copy()
  boxes, objectness, scores = clean.copy(), np.array(candidates.objectness), np.array(candidates.scores)
  strong = np.argsort(-objectness[0])[:4]
  boxes[0, strong[0], 2] = np.inf
  boxes[0, strong[1], 0] = np.nan
  objectness[0, strong[2]] = np.nan
  scores[0, strong[2:4]] = np.nan
  weak = int(np.argmin(objectness[0]))
  boxes[0, weak] = np.inf  # an unlikely box that nobody asks for
  found = run(Candidates(*map(jnp.asarray, (boxes, objectness, scores))), 0.1, 0.45)
  assert int(found.num_nonfinite[0]) == 4
  assert not set(np.asarray(found.candidates[0])[np.asarray(found.valid[0])]) & set(strong.tolist())
  for field in dataclasses.fields(found):
    value = getattr(found, field.name)
    assert value is None or np.isfinite(value).all()


def test_bad_arguments() -> None:
  candidates = scene(1)
  with pytest.raises(PrnError, match=r"nms_kind 'greedy' is unknown.*did you mean 'greedynms'"):
    run(candidates, 0.1, 0.45, nms_kind="greedy")
  with pytest.raises(PrnError, match=r"max_detections=0, max_candidates=16384; expected at least 1"):
    run(candidates, 0.1, 0.45, max_detections=0)
  many = jax.ShapeDtypeStruct((1, 100_000, 1000), jnp.float32)
  huge = Candidates(
    jax.ShapeDtypeStruct((1, 100_000, 4), jnp.float32), jax.ShapeDtypeStruct((1, 100_000), jnp.float32), many
  )
  with pytest.raises(
    PrnError, match=r"max_candidates=10,000,000 is too large for 1,000 classes; expected less than 2,145,"
  ):
    jax.eval_shape(functools.partial(run, max_candidates=10_000_000), huge, 0.1, 0.45)


# -- laws --------------------------------------------------------------------------------------------------------------


@st.composite
def small_scene(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """12 boxes on a coarse grid, so that equal boxes, equal scores and empty boxes come up; 2 classes."""
  eighths = st.integers(0, 8).map(lambda k: k / 8)
  values = draw(st.lists(eighths, min_size=84, max_size=84))
  rows = np.array(values, np.float32).reshape(12, 7)
  return rows[:, :4], rows[:, 4], rows[:, 4:5] * rows[:, 5:]


@settings(max_examples=60, deadline=None)
@given(small_scene(), st.sampled_from([("default", None), ("greedynms", 0.6)]), st.sampled_from([0.0, 0.3]))
def test_laws(arrays: tuple[np.ndarray, ...], kind: tuple[str, float | None], threshold: float) -> None:
  boxes, objectness, scores = arrays
  found = run(candidates_of(*arrays), 0.1, threshold, nms_kind=kind[0], max_detections=64)
  kept = table(found, 12, 2)
  # A subset: every kept score is one of those above the threshold.
  above = np.where((scores > 0.1) & (objectness > 0.1)[:, None], scores, 0)
  assert ((kept == above) | (kept == 0)).all()
  # Separate: no two kept boxes of a class overlap more than the threshold, and every fallen one overlaps a better one.
  for c in range(2):
    rows = np.flatnonzero(kept[:, c])
    for i in range(12):
      near = [
        j
        for j in rows
        if j != i and overlap(boxes[i].astype(float), boxes[j].astype(float), kind[1]) > threshold + 1e-6
      ]
      if kept[i, c]:
        assert not near
      elif above[i, c]:
        close = [j for j in rows if overlap(boxes[i].astype(float), boxes[j].astype(float), kind[1]) > threshold - 1e-6]
        assert any(above[j, c] >= above[i, c] for j in close)
  # Idempotent: what was kept is kept again.
  again = run(candidates_of(boxes, objectness, kept), 0.1, threshold, nms_kind=kind[0], max_detections=64)
  np.testing.assert_array_equal(table(again, 12, 2), kept)


# -- from a network ----------------------------------------------------------------------------------------------------


def test_postprocess_takes_the_last_head_s_kind_and_runs_in_one_program() -> None:
  model = random_model()
  graph = model.graph
  last = graph.heads[-1]
  layers = tuple(
    dataclasses.replace(layer, nms_kind="diounms", beta_nms=0.9) if layer.name == last.name else layer
    for layer in graph
  )
  graph = dataclasses.replace(graph, layers=layers)
  network = Network(graph)
  x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)

  def predict(variables: Any, x: jax.Array, conf: float, **options: Any) -> Suppressed:
    return postprocess(network.apply(variables, x), graph, conf=conf, nms_threshold=0.3, **options)

  inside = jax.jit(predict)(model.variables, x, 0.2)
  apart = jax.jit(functools.partial(predict, nms_kind="diounms", beta_nms=0.9))(model.variables, x, 0.2)
  other = jax.jit(functools.partial(predict, nms_kind="default"))(model.variables, x, 0.2)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), inside, apart)
  assert int(inside.count.min()) > 0
  assert inside.num_kept.tolist() != other.num_kept.tolist()
  assert inside.boxes_cxcywh_rel.shape == (2, 300, 4)


def test_box_scale_changes_diou_but_not_iou() -> None:
  """Two boxes of 0.4, 0.1 apart in x: IoU 0.6, DIoU 0.6 - (0.01 / 0.41)^0.6 = 0.492; with x four times as long,
  0.6 - (0.16 / 4.16)^0.6 = 0.458."""
  boxes = np.array([[0.4, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]], np.float32)
  two = candidates_of(boxes, np.array([0.9, 0.8]), np.array([[0.9], [0.8]]))
  wide = jnp.array([[640.0, 160.0]])
  for kind, counts in (("greedynms", (1, 2)), ("diounms", (1, 2)), ("default", (1, 1))):
    for scale, count in zip((None, wide), counts, strict=True):
      found = run(two, 0.25, 0.475, nms_kind=kind, box_scale=scale)
      assert int(found.count[0]) == count
      np.testing.assert_array_equal(found.boxes_cxcywh_rel[0, :count], boxes[:count])  # given back as they were


# -- on photos ---------------------------------------------------------------------------------------------------------


def unlimited(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> set[tuple[int, int]]:
  """(box, class) pairs that suppression keeps when nothing limits it; scores below the threshold are 0."""
  kept = set()
  low, high, area = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2] * boxes[:, 3]
  for c in np.flatnonzero(scores.any(0)):
    order = np.argsort(-scores[:, c], kind="stable")
    alive = scores[:, c] > 0
    for i in order:
      if not alive[i]:
        continue
      kept.add((int(i), int(c)))
      overlaps = np.prod(np.maximum(np.minimum(high, high[i]) - np.maximum(low, low[i]), 0), 1)
      alive &= overlaps / np.maximum(area + area[i] - overlaps, 1e-30) <= np.float32(threshold)
      alive[i] = False
  return kept


@pytest.mark.slow
def test_nothing_is_lost_on_crowded_photos_at_a_threshold_of_a_thousandth(shared: Path) -> None:
  weights = shared / "data/weights/yolo-fastest-1.1/yolo-fastest-1.1.weights"
  graph = darknet_cfg.read(weights.with_suffix(".cfg")).graph
  variables = darknet_weights.load(weights, graph).variables
  heads = jax.jit(Network(graph).apply)
  most = 0
  for file in sorted((shared / "data/coco_subset/val2017").glob("*.jpg"))[::14]:
    x, _ = stretch(read_image(file), graph.width, graph.height)
    candidates = decode(heads(variables, x[None]), graph)
    found = run(candidates, 0.001, 0.45, max_detections=8192)
    boxes, objectness, scores = (np.asarray(a[0]) for a in candidates[:3])
    scores = np.where((scores > 0.001) & (objectness > 0.001)[:, None], scores, 0)
    most = max(most, int((scores > 0).sum()))
    assert int(found.overflow[0]) == 0
    ours = table(found, *scores.shape)
    assert {(int(i), int(c)) for i, c in np.argwhere(ours)} == unlimited(boxes, scores, 0.45)
  assert most > 2048  # the largest size was needed too


def test_indices_are_divided_without_regard_for_signs() -> None:
  """`//` and `%` of JAX trace ten operations each, and there are a dozen; a first picture waits for them."""
  candidates = candidates_of(
    np.zeros((3000, 4), np.float32), np.zeros((3000,), np.float32), np.zeros((3000, 3), np.float32)
  )
  text = str(jax.make_jaxpr(lambda conf: run(candidates, conf, 0.45).scores)(0.25))
  assert " div " in text
  assert " sign " not in text
