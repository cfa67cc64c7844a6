"""Losses of distillation: published figures, hand cases, 0 between equals, and where the gradient goes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.detect.boxes import ciou_cxcywh
from prn_jax.distill import compat, features, response
from prn_jax.distill.lesson import (
  DISTILLATIONS,
  HeadLesson,
  Lesson,
  Needs,
  Predictions,
  binary_divergence,
  distillation,
  read_head,
)
from prn_jax.errors import PrnError
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import Yolo

HEAD = Yolo(name="yolo", inputs=("x",), classes=2, anchors=((32.0, 32.0), (64.0, 128.0)))
NET = (64, 64)  # the toy: 2x2 cells of 32 pixels, anchors of (1, 1) and (2, 4) cells
TRUTH = jnp.asarray([[[0.6, 0.3, 0.5, 0.6, 1], [0, 0, 0, 0, -1]]], jnp.float32)


def toy(values: np.ndarray) -> jax.Array:
  """Values by image, anchor, row, column and entry as the input of a head: (n, rows, columns, channels)."""
  x = values.reshape(1, 2, 2, 2, 7).transpose(0, 2, 3, 1, 4)
  return jnp.asarray(x.reshape(1, 2, 2, 14), jnp.float32)


N = np.arange(56)
STUDENT, TEACHER = toy(np.sin(0.37 * N)), toy(np.cos(0.23 * N + 0.5))
ANCHORS = HEAD.anchors_rel(NET)


def lesson_of(student: jax.Array, teacher: jax.Array = TEACHER, **more: Any) -> Lesson:
  heads = HeadLesson(read_head(student, HEAD, NET), read_head(teacher, HEAD, NET), ANCHORS)
  return Lesson(**{"num_images": 1, "temperature": 3.0, "heads": (heads,), "truth": TRUTH, **more})


def maps() -> tuple[tuple[jax.Array, jax.Array]]:
  m = np.arange(48).reshape(1, 3, 4, 4).transpose(0, 2, 3, 1)
  return ((jnp.asarray(np.sin(0.11 * m), jnp.float32), jnp.asarray(np.cos(0.07 * m), jnp.float32)),)


# -- figures that the older tool gives -----------------------------------------------------------------------------


def in_float64() -> dict[str, float]:
  """The toy in numpy, as the formulas are written."""
  s, t = (f(N).reshape(2, 2, 2, 7) for f in (lambda n: np.sin(0.37 * n), lambda n: np.cos(0.23 * n + 0.5)))

  def divergence(t: np.ndarray, s: np.ndarray) -> float:
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum(-1, keepdims=True) for x in (t, s))
    return float(9 * np.sum(p * np.log(p / q)))

  def box(x: np.ndarray) -> np.ndarray:
    return np.array([plain(x[0]), plain(x[1]), np.exp(x[2]), np.exp(x[3])])

  classes = divergence(t[..., 4:], s[..., 4:])
  boxes = float(np.sum((box(s[0, 0, 1]) - box(t[0, 0, 1])) ** 2))  # anchor 0, row 0, column 1 is the only pair
  m = np.arange(48).reshape(3, 16)
  seen = divergence(np.abs(np.cos(0.07 * m)).sum(0), np.abs(np.sin(0.11 * m)).sum(0))
  return {
    "kd1": 1e-3 * divergence(t, s),
    "kd2": 1e-4 * classes,
    "kd3": 1e-4 * classes + 1e-3 * boxes,
    "kd4": 1e-3 * (classes + boxes + seen),
  }


@pytest.mark.parametrize(
  ("name", "printed"), [("kd1", 1.341413e-3), ("kd2", 2.057796e-5), ("kd3", 3.279195e-4), ("kd4", 5.533741e-4)]
)
def test_the_older_strategies_give_the_printed_figures(name: str, printed: float) -> None:
  """The printed figures were float32: two of the four are off in their last digit or two, so the formulas in float64 stand between."""
  exact = in_float64()[name]
  assert float(distillation(name).loss(lesson_of(STUDENT, maps=maps()))) == pytest.approx(exact, rel=3e-6)
  assert printed == pytest.approx(exact, rel=3e-6)


def test_strategy_2_teaches_boxes_that_are_worse_than_the_teachers() -> None:
  """Exchanged, the student of the toy is further from the truth: its squared distance is added."""
  one = lesson_of(TEACHER, STUDENT)
  (head,) = one.heads
  box = head.student.boxes_cxcywh_rel[0, 0, 1, 0] * 2
  squares = float(np.sum((np.asarray(box) - np.array([1.2, 0.6, 1.0, 1.2])) ** 2))
  no_pair = one._replace(truth=jnp.zeros((1, 2, 5)) - jnp.asarray([0, 0, 0, 0, 1.0])[None, None])
  assert float(compat.kd2(one) - compat.kd2(no_pair)) == pytest.approx(0.001 * squares, rel=1e-4)


def test_the_mask_of_strategy_5_is_filled() -> None:
  """Cells of heads of stride 32, 16 and 8 at 416 pixels, in any order, on the map of stride 8: blocks of 4x4, 2x2 and 1."""
  heads, truth = [], []
  for stride, size, row, column in ((8, 0.02, 30, 40), (32, 0.5, 3, 4), (16, 0.1, 10, 20)):
    side = 416 // stride
    anchors = np.asarray([[size, size]], np.float32)
    blank = Predictions(*[jnp.zeros((1, side, side, 1, values)) for values in (7, 4)], jnp.zeros((1, side, side, 1)), *[jnp.zeros((1, side, side, 1, 2))] * 2)  # fmt: skip
    heads.append(HeadLesson(blank, blank, anchors))
    truth.append([(column + 0.5) * stride / 416, (row + 0.5) * stride / 416, size, size, 0])
  one = Lesson(num_images=1, heads=tuple(heads), truth=jnp.asarray([truth], jnp.float32))
  expected = np.zeros((52, 52))
  expected[12:16, 16:20] = expected[20:22, 40:42] = expected[30, 40] = 1
  np.testing.assert_array_equal(compat.pair_mask(one, 52, 52)[0], expected)
  small = np.asarray(compat.pair_mask(one, 13, 13)[0])  # a map that is coarser than two of the heads
  assert small[3, 4] == small[5, 10] == small[7, 10] == 1
  assert small.sum() == 3


def test_strategy_5_without_a_pair_compares_nothing_of_the_maps() -> None:
  none = lesson_of(STUDENT, maps=maps(), truth=TRUTH.at[..., 4].set(-1))
  assert float(compat.kd5(none)) == pytest.approx(0.001 * 2.057796e-1, rel=1e-5)  # the class term alone


# -- today's, by hand --------------------------------------------------------------------------------------------------


def plain(x: float) -> float:
  return float(1 / (1 + np.exp(-x)))


def entropy(p: Any, q: Any) -> Any:
  p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
  return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def probabilities(raw: jax.Array) -> np.ndarray:
  return 1 / (1 + np.exp(-np.asarray(raw, np.float64).reshape(2, 2, 2, 7)[..., 4:]))


def test_objectness_scaled_by_hand() -> None:
  s, t = probabilities(STUDENT), probabilities(TEACHER)
  one = lesson_of(STUDENT, confidence=0.6)
  (head,) = one.heads
  overlap = np.asarray(ciou_cxcywh(head.student.boxes_cxcywh_rel, head.teacher.boxes_cxcywh_rel))[0]
  sure = t[..., 0] > 0.6
  assert 0 < sure.sum() < 8
  expected = entropy(t[..., 0], s[..., 0]).sum() + (t[..., :1] * entropy(t[..., 1:], s[..., 1:])).sum()
  expected += (t[..., 0] * (1 - overlap))[sure].sum()
  assert float(response.objectness_scaled(one)) == pytest.approx(expected, rel=1e-5)
  assert float(response.objectness_scaled(one._replace(num_images=4))) == pytest.approx(expected / 4, rel=1e-5)


def test_binary_questions_weighted_by_quality_by_hand() -> None:
  s, t = (p[..., :1] * p[..., 1:] for p in map(probabilities, (STUDENT, TEACHER)))
  one = lesson_of(STUDENT)
  (head,) = one.heads
  a, b = (np.asarray(x.boxes_cxcywh_rel, np.float64)[0] for x in head[:2])
  sides = [np.minimum(a[..., i] + a[..., i + 2] / 2, b[..., i] + b[..., i + 2] / 2)
           - np.maximum(a[..., i] - a[..., i + 2] / 2, b[..., i] - b[..., i + 2] / 2) for i in (0, 1)]  # fmt: skip
  shared = np.maximum(sides[0], 0) * np.maximum(sides[1], 0)
  iou = shared / (a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - shared)
  weight = np.abs(t - s)
  expected = (weight * entropy(t, s)).sum() + 4 * (weight.max(-1) * (1 - iou)).sum()
  assert float(response.binary_with_quality(one)) == pytest.approx(expected, rel=1e-5)


def test_hinton_by_hand() -> None:
  """Two classes and temperature 2: logits 2, 0 of the teacher and 0, 0 of the student."""
  logits = (jnp.zeros((2, 2)), jnp.asarray([[2.0, 0.0], [0.0, 0.0]]))
  p = plain(1.0)
  expected = 4 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p))) / 2  # the second image is learned
  found = response.hinton(Lesson(num_images=2, temperature=2.0, logits=logits))
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_channel_wise_by_hand() -> None:
  """Two cells, two channels, temperature 2: only the first channel looks elsewhere."""
  teacher = jnp.asarray([[2.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
  student = jnp.asarray([[0.0, 5.0], [0.0, 5.0]]).reshape(1, 1, 2, 2)
  p = plain(1.0)
  expected = 4 / 2 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
  found = features.channel_wise(Lesson(num_images=1, temperature=2.0, features=((student, teacher),)))
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_focal_by_hand() -> None:
  """2x2 cells, one channel, one object over the left column: each of its cells has weight 1/2, and so have the others."""
  truth = jnp.asarray([[[0.25, 0.5, 0.4, 0.9, 0], [0.75, 0.5, 0.4, 0.9, -2]]])
  teacher = jnp.asarray([[1.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 2, 1)
  student = jnp.zeros((1, 2, 2, 1))
  attention = 4 * np.exp([[2.0, 0.0], [0.0, 4.0]]) / np.exp([2.0, 0.0, 0.0, 4.0]).sum()
  expected = features.ALPHA * attention[0, 0] * 1 / 2 + features.BETA * attention[1, 1] * 4 / 2
  expected += features.GAMMA * np.abs(attention - 1).sum()
  found = features.focal(Lesson(num_images=1, temperature=0.5, features=((student, teacher),), truth=truth))
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_focal_with_channels_and_two_objects_by_hand() -> None:
  """1x3 cells, two channels: an object over the first two cells, a smaller one in the second; the third is background."""
  truth = jnp.asarray([[[1 / 3, 0.5, 0.6, 0.9, 0], [0.5, 0.5, 0.2, 0.9, 1]]])
  teacher, student = np.array([[1.0, -2.0], [0.0, 3.0], [2.0, 1.0]]), np.array([[0.5, 0.5], [1.0, 2.0], [-2.0, 0.0]])

  def attention(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells, channels = np.exp(np.abs(x).mean(1) / 0.5), np.exp(np.abs(x).mean(0) / 0.5)
    return 3 * cells / cells.sum(), 2 * channels / channels.sum()

  (cells, channels), (own_cells, own_channels) = attention(teacher), attention(student)
  gaps = [sum(channels[c] * (teacher[i, c] - student[i, c]) ** 2 for c in (0, 1)) * cells[i] for i in (0, 1, 2)]
  expected = 1e-3 * (gaps[0] / 2 + gaps[1]) + 5e-4 * gaps[2]
  expected += 1e-3 * (np.abs(cells - own_cells).sum() + np.abs(channels - own_channels).sum())
  pair = tuple(jnp.asarray(x, jnp.float32).reshape(1, 1, 3, 2) for x in (student, teacher))
  found = features.focal(Lesson(num_images=1, temperature=0.5, features=(pair,), truth=truth))
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_cell_counts_for_its_smallest_object() -> None:
  truth = jnp.asarray([[[0.5, 0.5, 1.0, 1.0, 0], [0.125, 0.125, 0.2, 0.2, 1]]])
  masks = features._masks(truth, 4, 4)
  expected = np.full((4, 4), 1 / 16)
  expected[0, 0] = 1
  np.testing.assert_allclose(masks.objects[0], expected)
  assert float(masks.background.sum()) == 0


# -- what holds of all -------------------------------------------------------------------------------------------------


def full(student: jax.Array, teacher: jax.Array, shift: jax.Array, one: Any) -> Lesson:
  s, t = maps()[0]
  pairs = ((s + shift, t),)
  logits = (student.reshape(1, -1), teacher.reshape(1, -1))
  return lesson_of(
    student, teacher, maps=pairs, features=pairs, logits=logits, temperature=one.temperature, confidence=0.3
  )


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_the_gradient_leads_to_the_teacher_and_equals_have_none(name: str) -> None:
  one = distillation(name)

  def value(student: jax.Array, shift: jax.Array) -> jax.Array:
    return one.loss(full(student, TEACHER, shift, one))

  gradients = jax.grad(value, (0, 1))(STUDENT, jnp.zeros(()))
  assert all(jnp.isfinite(g).all() for g in gradients)
  read = Needs.HEADS | Needs.LOGITS
  assert bool(jnp.abs(gradients[0]).max() > 0) == bool(one.needs & read)
  if one.needs & read:
    step = 0.02 / jnp.linalg.norm(gradients[0])
    assert float(value(STUDENT - step * gradients[0], jnp.zeros(()))) < float(value(STUDENT, jnp.zeros(())))
  s, t = maps()[0]
  same = full(TEACHER, TEACHER, t - s, one)
  assert float(one.loss(same)) == pytest.approx(0, abs=1e-5)


def test_binary_divergence_stays_finite_at_the_ends() -> None:
  values = jnp.asarray([0.0, 1.0, 0.0, 1.0, 0.5])
  found, gradient = jax.value_and_grad(lambda q: jnp.sum(binary_divergence(values, q)))(
    jnp.asarray([1.0, 0.0, 0.0, 1.0, 0.5])
  )
  assert jnp.isfinite(found)
  assert jnp.isfinite(gradient).all()


def test_heads_of_other_families_are_read() -> None:
  """[region] has a softmax over its classes, and anchors in cells."""
  head = Region(name="r", inputs=("x",), classes=2, anchors=((1.0, 1.0), (2.0, 4.0)), softmax=True)
  found, usual = read_head(STUDENT, head, NET), read_head(STUDENT, HEAD, NET)
  np.testing.assert_allclose(found.boxes_cxcywh_rel, usual.boxes_cxcywh_rel, rtol=1e-5)
  np.testing.assert_allclose(found.objectness, usual.objectness, rtol=1e-5)
  np.testing.assert_allclose(jnp.sum(found.classes, -1), np.ones((1, 2, 2, 2)), rtol=1e-5)
  turned = read_head(STUDENT, HEAD, NET, boxes=(1, 0, 1), classes=(1,))
  np.testing.assert_array_equal(turned.boxes_cxcywh_rel, usual.boxes_cxcywh_rel[..., [1, 0, 1], :])
  np.testing.assert_array_equal(turned.classes, usual.classes[..., [1, 0, 1], 1:])


def test_a_name_that_does_not_exist() -> None:
  with pytest.raises(
    PrnError, match=r"there is no distillation 'fdg' \(did you mean 'fgd'\?\); expected some of kd1, kd2"
  ):
    distillation("fdg")
