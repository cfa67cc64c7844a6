"""The loss of [region] heads: against two Darknets, against plain loops in float64, and as the gradient of a plain loss."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.detect.assign import activate
from prn_jax.detect.loss import darknet_loss, detection_loss
from prn_jax.detect.region_deltas import region_deltas
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.formats.darknet_training import RegionTraining
from prn_jax.kinds.region import Region
from tests.detect.darknet_oracle import overlaps
from tests.golden.region.make import ANCHORS, CLASSES, VARIANTS, made_up

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "region" / "region.npz")
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def head_and_settings(keys: dict[str, Any]) -> tuple[Region, RegionTraining]:
  head = Region(name="head", inputs=("conv",), classes=CLASSES, anchors=ANCHORS, softmax=bool(keys.get("softmax")))
  fields = {f.name: f.type for f in dataclasses.fields(RegionTraining)}
  return head, RegionTraining(**{k: bool(v) if fields[k] == "bool" else v for k, v in keys.items() if k in fields})


@functools.partial(quick_jit, static_argnames=("head", "settings"))
def run(raw: Any, truth: Any, head: Region, settings: RegionTraining, seen: Any) -> Any:
  """((cost, metrics), gradient), deltas."""
  loss = jax.value_and_grad(darknet_loss, has_aux=True)(raw, truth, head, settings, (0, 0), images_seen=seen)
  return loss, region_deltas(activate(raw, head), truth, head, settings, images_seen=seen)[0]


# -- plain loops -------------------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
  return 1 / (1 + math.exp(-x))


class Oracle:
  """One image in float64, step by step as the programs go; `pj` selects pjreddie's rules."""

  def __init__(self, raw: np.ndarray, truth: np.ndarray, keys: dict[str, Any], seen: int, pj: bool) -> None:
    self.x = raw.astype(np.float64).reshape(*raw.shape[:2], len(ANCHORS), -1)
    self.truths = [tuple(map(float, row)) for row in truth[: np.argmin(truth[:, 0] != 0)]]
    self.k = dataclasses.asdict(RegionTraining()) | {"softmax": 0} | keys
    self.seen, self.pj = seen, pj
    self.height, self.width = raw.shape[:2]
    self.delta = np.zeros_like(self.x)
    self.sums = dict.fromkeys(("num_assigned", "iou", "objectness", "true_class", "recall50"), 0.0)

  def slope(self, p: float) -> float:
    return 1.0 if self.pj else p * (1 - p)

  def classes(self, at: tuple[int, int, int]) -> np.ndarray:
    values = self.x[at][5:]
    if not self.k["softmax"]:
      return values
    e = np.exp(values - values.max())
    return e / e.sum()

  def box(self, at: tuple[int, int, int]) -> tuple[float, float, float, float]:
    (row, column, anchor), (x, y, w, h) = at, self.x[at][:4]
    size = ANCHORS[anchor]
    return (
      (column + sigmoid(x)) / self.width,
      (row + sigmoid(y)) / self.height,
      math.exp(w) * size[0] / self.width,
      math.exp(h) * size[1] / self.height,
    )

  def train_box(self, at: tuple[int, int, int], truth: tuple[float, ...], scale: float) -> None:
    row, column, anchor = at
    x, y, w, h = truth[:4]
    for entry, target in enumerate((x * self.width - column, y * self.height - row)):
      p = sigmoid(self.x[at][entry])
      self.delta[at][entry] = scale * (target - p) * self.slope(p)
    for entry, side in ((2, w * self.width / ANCHORS[anchor][0]), (3, h * self.height / ANCHORS[anchor][1])):
      self.delta[at][entry] = scale * (math.log(side) - self.x[at][entry])

  def train_classes(self, at: tuple[int, int, int], true_class: int, scale: float) -> None:
    p = self.classes(at)
    self.delta[at][5:] = scale * ((np.arange(CLASSES) == true_class) - p)
    if self.k["focal_loss"]:
      pt = p[true_class] + 1e-15
      self.delta[at][5:] *= 0.5 * -(1 - pt) * (2 * pt * math.log(pt) + pt - 1)

  def background(self, at: tuple[int, int, int]) -> None:
    found = [overlaps(self.box(at), truth[:4])["iou"] for truth in self.truths]
    best = max(found)
    objectness = sigmoid(self.x[at][4])
    wanted = best if self.k["classfix"] == -1 else 0
    self.delta[at][4] = self.k["noobject_scale"] * (wanted - objectness) * self.slope(objectness)
    if self.k["classfix"] != -1 and best > self.k["thresh"]:
      self.delta[at][4] = 0
      if self.k["classfix"] > 0:
        weight = objectness if self.k["classfix"] == 2 else 1
        self.train_classes(at, int(self.truths[found.index(best)][4]), self.k["class_scale"] * weight)
    if self.seen < 12800:
      row, column, anchor = at
      size = ANCHORS[anchor][0] / self.width, ANCHORS[anchor][1] / self.height
      self.train_box(at, ((column + 0.5) / self.width, (row + 0.5) / self.height, *size), 0.01)

  def train_truth(self, truth: tuple[float, ...]) -> None:
    x, y, w, h, true_class = truth
    row, column = int(y * self.height), int(x * self.width)
    best, chosen = 0.0, 0
    for anchor, size in enumerate(ANCHORS):
      sizes = size[0] / self.width, size[1] / self.height
      if not self.k["bias_match"]:
        sizes = self.box((row, column, anchor))[2:]
      iou = overlaps((0, 0, *sizes), (0, 0, w, h))["iou"]
      if iou > best:
        best, chosen = iou, anchor
    at = row, column, chosen
    iou, objectness = overlaps(self.box(at), truth[:4])["iou"], sigmoid(self.x[at][4])
    self.train_box(at, truth, self.k["coord_scale"] * ((2 - w * h) if self.pj else 1))
    wanted = iou if self.k["rescore"] else 1
    self.delta[at][4] = self.k["object_scale"] * (wanted - objectness) * self.slope(objectness)
    self.train_classes(at, int(true_class), self.k["class_scale"])
    own = {"num_assigned": 1, "iou": iou, "objectness": objectness, "recall50": iou > 0.5}
    for key, value in (own | {"true_class": self.classes(at)[int(true_class)]}).items():
      self.sums[key] += value

  def run(self) -> np.ndarray:
    for at in np.ndindex(self.delta.shape[:3]):
      self.background(at)  # type: ignore[arg-type]
    for truth in self.truths:
      self.train_truth(truth)
    return self.delta


def by_loops(raw: np.ndarray, truth: np.ndarray, keys: dict[str, Any], seen: int, pj: bool = False) -> Any:
  oracles = [Oracle(x, rows, keys, seen, pj) for x, rows in zip(raw, truth, strict=True)]
  deltas = np.stack([oracle.run() for oracle in oracles]).reshape(raw.shape)
  return deltas, {key: sum(oracle.sums[key] for oracle in oracles) for key in oracles[0].sums}


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_darknets(variant: str) -> None:
  """The loops give what the programs gave; by AlexeyAB's rules we give the same, with its cost and its counts."""
  kind, seen, keys = VARIANTS[variant]
  raw, truth, delta, cost = (GOLDEN[f"{variant}/{name}"] for name in ("raw", "truth", "delta", "cost"))
  expected, _ = by_loops(raw, truth, keys, seen, pj=kind == "pj")
  np.testing.assert_allclose(expected, delta, rtol=1e-5, atol=2e-6)
  np.testing.assert_allclose(np.sum(expected**2), cost, rtol=1e-5)

  ours, sums = by_loops(raw, truth, keys, seen)
  head, settings = head_and_settings(keys)
  ((value, metrics), gradient), deltas = run(raw, truth, head, settings, seen)
  np.testing.assert_allclose(deltas, delta if kind == "ab" else ours, rtol=1e-5, atol=2e-6)
  np.testing.assert_allclose(gradient, -np.asarray(deltas), rtol=0, atol=0)
  np.testing.assert_allclose(value, cost if kind == "ab" else np.sum(ours**2), rtol=1e-5)
  for key, expected_sum in sums.items():
    np.testing.assert_allclose(getattr(metrics, key), expected_sum, rtol=1e-5, err_msg=key)
  if kind == "ab":
    np.testing.assert_allclose(activate(raw, head), GOLDEN[f"{variant}/output"], rtol=1e-5, atol=1e-6)


def test_the_golden_cases_hold_what_they_should() -> None:
  """Anchors of both rules differ, boxes are ignored, truths meet, and the warm-up ends at 12,800 images."""
  for variant, (_, seen, keys) in VARIANTS.items():
    raw, truth = (GOLDEN[f"{variant}/{name}"] for name in ("raw", "truth"))
    deltas, sums = by_loops(raw, truth, keys, seen)
    other, _ = by_loops(raw, truth, keys | {"bias_match": 1 - keys.get("bias_match", 0)}, seen)
    assert np.abs(deltas - other).max() > 0.1
    objectness = deltas.reshape(*deltas.shape[:3], -1, 5 + CLASSES)[..., 4]
    assert (objectness == 0).any() or keys.get("classfix") == -1
    boxes = (deltas.reshape(-1, 5 + CLASSES)[:, :4] != 0).all(1).sum()
    assert boxes == objectness.size if seen < 12_800 else boxes < sums["num_assigned"]


def test_gradient_of_a_plain_loss() -> None:
  """Half the squared errors and the cross entropy, for truths alone in their cells, differentiated by JAX."""
  keys = {"softmax": 1, "bias_match": 1, "thresh": 2.0, "object_scale": 3.0, "coord_scale": 1.5, "class_scale": 0.5}
  head, settings = head_and_settings(keys)
  raw, _ = made_up(3)
  truth = np.zeros((2, 3, 5), np.float32)
  truth[:, 0] = (0.31, 0.42, 0.35, 0.4, 1)  # row 1, column 1, anchor 1 (2 x 1.5 cells for 1.75 x 1.6)
  truth[1, 1] = (0.9, 0.8, 0.3, 0.75, 2)  # row 3, column 4, anchor 2 (1.6 x 3.2 for 1.5 x 3.0)
  trained = ((0, 1, 1, 1, truth[0, 0]), (1, 1, 1, 1, truth[1, 0]), (1, 3, 4, 2, truth[1, 1]))

  def loss(raw: jax.Array) -> jax.Array:
    x = raw.reshape(*raw.shape[:3], 3, -1)
    total = 0.5 * jnp.sum(jax.nn.sigmoid(x[..., 4]) ** 2)
    for n, row, column, anchor, (cx, cy, w, h, true_class) in trained:
      v, size = x[n, row, column, anchor], ANCHORS[anchor]
      target = jnp.asarray([cx * 5 - column, cy * 4 - row, np.log(w * 5 / size[0]), np.log(h * 4 / size[1])])
      found = jnp.concatenate([jax.nn.sigmoid(v[:2]), v[2:4]])
      total += 1.5 * 0.5 * jnp.sum((target - found) ** 2) - 0.5 * jax.nn.log_softmax(v[5:])[int(true_class)]
      total += 3 * 0.5 * (1 - jax.nn.sigmoid(v[4])) ** 2 - 0.5 * jax.nn.sigmoid(v[4]) ** 2
    return total

  (_, metrics), gradient = run(raw, truth, head, settings, 20_000)[0]
  np.testing.assert_allclose(gradient, jax.grad(loss)(jnp.asarray(raw)), rtol=1e-5, atol=1e-6)
  assert metrics.num_assigned == 3


def test_border_and_empty_truths() -> None:
  """On the right and lower border: the last cell. Without width, of another class, behind the end: not trained."""
  head, settings = head_and_settings({"softmax": 1, "bias_match": 1, "thresh": 2.0})
  raw, _ = made_up(4)
  truth = np.zeros((2, 6, 5), np.float32)
  truth[0, 0] = (1.0, 1.0, 0.2, 0.3, 0)
  truth[0, 1:3] = (0.5, 0.5, 0.0, 0.3, 0), (0.5, 0.5, 0.2, 0.3, CLASSES)
  truth[1, 1] = (0.5, 0.5, 0.2, 0.3, 0)  # behind the end
  deltas, metrics = region_deltas(activate(jnp.asarray(raw), head), truth, head, settings)
  boxes = np.abs(np.asarray(deltas).reshape(2, 4, 5, 3, -1)[..., :4]).sum(-1)
  assert np.argwhere(boxes).tolist() == [[0, 3, 4, 0]]
  assert metrics.num_assigned == 1
  assert np.isfinite(deltas).all()
  masked, metrics = region_deltas(
    activate(jnp.asarray(raw), head), truth, head, settings, mask=np.asarray([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]])
  )
  assert metrics.num_assigned == 2
  assert np.isfinite(masked).all()


def test_descent_finds_the_truths() -> None:
  head, settings = head_and_settings({"softmax": 1, "bias_match": 1, "rescore": 1, "object_scale": 5.0, "thresh": 0.6})
  raw, truth = made_up(5)
  truth = truth[:, 2:5]

  def value(raw: jax.Array) -> jax.Array:
    return detection_loss({"head": raw}, truth, (head,), {"head": settings}, (0, 0))[0]

  descend = quick_jit(lambda raw: jax.lax.fori_loop(0, 400, lambda _, raw: raw - 0.2 * jax.grad(value)(raw), raw))
  (_, after), _ = run(descend(jnp.asarray(raw)), truth, head, settings, 20_000)[0]
  assert after.iou / after.num_assigned > 0.9
  assert after.objectness / after.num_assigned > 0.8
  assert after.true_class / after.num_assigned > 0.9


@pytest.mark.parametrize(
  ("fields", "keys", "error", "message"),
  [
    ({"tree": "9k.tree"}, {}, OutOfScopeError, r"layer 'head' \(region\) has a class hierarchy \(tree=9k.tree\)"),
    ({}, {"map": "coco9k.map"}, OutOfScopeError, r"has a class hierarchy \(map=coco9k.map\), as yolo9000 has"),
    ({"coords": 5}, {}, OutOfScopeError, r"has coords=5; only heads with coords=4"),
    ({}, {"classfix": 3}, PrnError, r"classfix=3; expected one of -1, 0, 1, 2"),
  ],
)
def test_what_cannot_be_trained(fields: dict[str, Any], keys: dict[str, Any], error: type, message: str) -> None:
  head, settings = head_and_settings({})
  head, settings = dataclasses.replace(head, **fields), dataclasses.replace(settings, **keys)
  with pytest.raises(error, match=message):
    region_deltas(jnp.zeros((1, 4, 5, 3 * head.entries)), np.zeros((1, 2, 5)), head, settings)
