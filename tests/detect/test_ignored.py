"""What nobody has looked at teaches nothing: ignored regions, and classes that an image's data set does not annotate."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.detect.assign import IGNORED_CLASS, activate
from prn_jax.detect.loss import LossStyle, default_settings, detection_loss
from prn_jax.graph.head import Cells, DetectionHead
from prn_jax.kinds.region import Region
from tests.detect.test_loss import NET, make_head, quick_jit, random_case

CLASSES = 3
REGION = Region(
  name="head", inputs=("conv",), classes=CLASSES, anchors=((0.7, 0.9), (1.5, 1.2), (3.0, 3.5)), softmax=True
)
HEADS: dict[str, tuple[DetectionHead, LossStyle]] = {
  "yolo": (make_head(), LossStyle.DARKNET),
  "autodiff": (make_head(), LossStyle.AUTODIFF),
  "gaussian": (make_head(yolo_point="center"), LossStyle.DARKNET),
  "region": (REGION, LossStyle.DARKNET),
}
every_head = pytest.mark.parametrize("kind", HEADS)


@functools.partial(quick_jit, static_argnames=("kind",))
def gradient_of(raw: Any, truth: Any, kind: str, annotated: Any = None) -> Any:
  head, style = HEADS[kind]

  def loss(raw: Any) -> Any:
    options = {"style": style, "annotated": annotated}
    return detection_loss({"head": raw}, truth, [head], {"head": default_settings(head)}, NET, **options)[0]

  return jax.grad(loss)(raw)


def case(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
  head = HEADS[kind][0]
  if isinstance(head, Region):
    raw, truth = random_case(seed, make_head(), crowded=False)
    return raw, truth  # as many anchors, entries and classes
  return random_case(seed, head, crowded=False)


def decoded(raw: np.ndarray, kind: str) -> np.ndarray:
  """(n, h, w, a, 4) boxes that the head predicts: corners relative to the network."""
  head = HEADS[kind][0]
  n, height, width, _ = raw.shape
  x = activate(jnp.asarray(raw), head).reshape(n, height, width, -1, head.entries)
  boxes = np.asarray(jax.vmap(lambda x: head.decode(x, Cells.all((width, height), NET)))(x), np.float64)
  return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def share_inside(box: np.ndarray, region_cxcywh: np.ndarray) -> float:
  x, y, w, h = map(float, region_cxcywh)
  across = min(box[2], x + w / 2) - max(box[0], x - w / 2)
  down = min(box[3], y + h / 2) - max(box[1], y - h / 2)
  return max(across, 0) * max(down, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def entries(gradient: Any, kind: str) -> np.ndarray:
  return np.array(gradient).reshape(*gradient.shape[:3], -1, HEADS[kind][0].entries)


@every_head
def test_nothing_is_learned_in_ignored_regions_but_the_objects(kind: str) -> None:
  raw, truth = case(kind, 3)
  regions = np.float32([[0.3, 0.4, 0.5, 0.6], [0.8, 0.7, 0.3, 0.4]])
  marked = np.insert(truth, [2], 0, axis=1)  # among the objects
  marked[0, 2] = [*regions[0], IGNORED_CLASS]
  marked[1, 2] = [*regions[1], IGNORED_CLASS]
  before, after = entries(gradient_of(raw, truth, kind), kind), entries(gradient_of(raw, marked, kind), kind)
  at, boxes = HEADS[kind][0].layout.objectness, decoded(raw, kind)
  inside = np.zeros(before.shape[:4], bool)
  for image, *where in np.ndindex(*inside.shape):
    inside[image, *where] = share_inside(boxes[image, *where], regions[image]) > 0.5
  expected = before.copy()
  expected[..., at] = np.where(inside & (before[..., at] > 0), 0, before[..., at])
  np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7)
  assert (expected != before).sum() > 5
  assert (inside & (before[..., at] < 0)).any()  # objects inside stay objects


@every_head
def test_a_class_that_is_not_annotated_is_not_unlearned(kind: str) -> None:
  raw, truth = case(kind, 4)
  annotated = np.uint8([[1, 0, 1], [1, 1, 1]])
  before = entries(gradient_of(raw, truth, kind), kind)
  after = entries(gradient_of(raw, truth, kind, annotated), kind)
  head, layout = HEADS[kind][0], HEADS[kind][0].layout
  x = np.asarray(activate(jnp.asarray(raw), head)).reshape(before.shape)
  classes = x[0, ..., layout.first_class :]
  expected = before.copy()
  objectness = expected[0, ..., layout.objectness]
  objectness[(classes.argmax(-1) == 1) & (objectness > 0)] = 0
  own = expected[0, ..., layout.first_class :]
  if kind == "region":  # the softmax is that of the annotated classes, and of the true one
    is_trained = (own != 0).any(-1)
    is_true = own < 0
    among = np.where(np.array([True, False, True]) | is_true, classes, 0)
    own[is_trained] = (among / among.sum(-1, keepdims=True) - is_true)[is_trained]
  else:
    own[..., 1] = np.minimum(own[..., 1], 0)
  np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7)
  assert (before[0, ..., layout.first_class + 1] < 0).any()  # its objects are still learned
  np.testing.assert_allclose(after[1], before[1], rtol=1e-5, atol=1e-7)
