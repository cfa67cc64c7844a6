"""Five losses of an older tool for pruned YOLO networks (strategies 1 to 5), for comparison with what was published of them.

T is 3, sums run over cells and boxes of all heads, B is the number of images. A pair is a box of the truth and each anchor of a
head whose shape overlaps it by more than 0.2; its cell is that of the centre, and boxes are in cells. Differs: the masks of
strategy 5 are whole blocks of cells (there only their diagonals), for any order of heads; maps are those of all layers with
kernels that no head reads directly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prn_jax.distill.lesson import HeadLesson, Lesson, Needs, has_object, register_distillation, softmax_divergence

MIN_OVERLAP = 0.2
TEMPERATURE = 3.0
SAME = Needs.HEADS | Needs.SAME_HEADS


@register_distillation("kd1", SAME, temperature=TEMPERATURE)
def kd1(lesson: Lesson) -> jax.Array:
  """0.001 T^2 / B sum KL of the softmax over all values of a box together, box values included."""
  total = jnp.zeros((), jnp.float32)
  for head in lesson.heads:
    total = total + _divergence(head.teacher.raw, head.student.raw, lesson)
  return 0.001 * total


@register_distillation("kd2", SAME, temperature=TEMPERATURE)
def kd2(lesson: Lesson) -> jax.Array:
  """0.0001 T^2 / B sum KL over objectness and classes, and 0.001 sum |b_s - b_gt|^2 over the pairs in which the student's box is further
  from the truth than the teacher's."""
  total = 0.0001 * _class_term(lesson)
  for head in lesson.heads:
    pairs = _pairs(head, lesson.truth)
    own, other = (_squares(boxes, pairs.truth) for boxes in (pairs.student, pairs.teacher))
    total = total + 0.001 * jnp.sum(jnp.where(pairs.is_pair & (own > other), own, 0))
  return total


@register_distillation("kd3", SAME, temperature=TEMPERATURE)
def kd3(lesson: Lesson) -> jax.Array:
  """0.0001 T^2 / B sum KL over objectness and classes, and 0.001 sum |b_s - b_t|^2 over the pairs."""
  return 0.0001 * _class_term(lesson) + 0.001 * _box_term(lesson)


@register_distillation("kd4", SAME | Needs.MAPS, temperature=TEMPERATURE)
def kd4(lesson: Lesson) -> jax.Array:
  """0.001 (class term + box term of kd3 + T^2 / B sum over the maps of KL of the softmax over the cells of sum_c |F| / T)."""
  return 0.001 * (_class_term(lesson) + _box_term(lesson) + _map_term(lesson, is_masked=False))


@register_distillation("kd5", SAME | Needs.MAPS, temperature=TEMPERATURE)
def kd5(lesson: Lesson) -> jax.Array:
  """As kd4, with sum_c |F| set to 0 outside of the cells that lie under a pair."""
  return 0.001 * (_class_term(lesson) + _box_term(lesson) + _map_term(lesson, is_masked=True))


def _divergence(teacher: jax.Array, student: jax.Array, lesson: Lesson) -> jax.Array:
  t = lesson.temperature
  return t**2 / lesson.num_images * jnp.sum(softmax_divergence(teacher / t, student / t))


def _class_term(lesson: Lesson) -> jax.Array:
  total = jnp.zeros((), jnp.float32)
  for head in lesson.heads:

    def read(raw: jax.Array, head: HeadLesson = head) -> jax.Array:
      return jnp.concatenate([raw[..., head.objectness][..., None], raw[..., head.first_class :]], -1)

    total = total + _divergence(read(head.teacher.raw), read(head.student.raw), lesson)
  return total


def _box_term(lesson: Lesson) -> jax.Array:
  total = jnp.zeros((), jnp.float32)
  for head in lesson.heads:
    pairs = _pairs(head, lesson.truth)
    total = total + jnp.sum(jnp.where(pairs.is_pair, _squares(pairs.student, pairs.teacher), 0))
  return total


def _squares(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.sum(jnp.square(a - b), -1)


class _Pairs(NamedTuple):
  """Truths (n, t) with the anchors (a) of a head; boxes (n, t, a, 4) cxcywh in cells.

  Attributes:
    is_pair: (n, t, a) bool.
    rows, columns: (n, t) int32 the cell of the centre.
    student, teacher: their boxes.
    truth: (n, t, 1, 4) its boxes.
  """

  is_pair: jax.Array
  rows: jax.Array
  columns: jax.Array
  student: jax.Array
  teacher: jax.Array
  truth: jax.Array


def _pairs(head: HeadLesson, truth: jax.Array | None) -> _Pairs:
  assert truth is not None
  width, height = head.grid
  columns = jnp.clip(jnp.floor(truth[..., 0] * width), 0, width - 1).astype(jnp.int32)
  rows = jnp.clip(jnp.floor(truth[..., 1] * height), 0, height - 1).astype(jnp.int32)
  sizes, anchors = truth[..., None, 2:4], jnp.asarray(head.anchors_rel)[None, None]
  shared = jnp.prod(jnp.minimum(sizes, anchors), -1)
  union = jnp.prod(sizes, -1) + jnp.prod(anchors, -1) - shared
  is_pair = (shared > MIN_OVERLAP * union) & has_object(truth)[..., None]
  scale = jnp.asarray([width, height, width, height], jnp.float32)
  images = jnp.arange(truth.shape[0])[:, None]

  def at(boxes: jax.Array) -> jax.Array:
    return boxes[images, rows, columns] * scale.reshape(1, 1, 1, 4)

  student, teacher = at(head.student.boxes_cxcywh_rel), at(head.teacher.boxes_cxcywh_rel)
  return _Pairs(is_pair, rows, columns, student, teacher, truth[..., None, :4] * scale.reshape(1, 1, 1, 4))


def _map_term(lesson: Lesson, *, is_masked: bool) -> jax.Array:
  total = jnp.zeros((), jnp.float32)
  for student, teacher in lesson.maps:
    n, height, width, _ = student.shape
    mask = pair_mask(lesson, height, width) if is_masked else jnp.ones((n, height, width), jnp.float32)
    own, wanted = ((jnp.sum(jnp.abs(x), -1) * mask).reshape(n, -1) for x in (student, teacher))
    total = total + _divergence(wanted, own, lesson)
  return total


def pair_mask(lesson: Lesson, height: int, width: int) -> jax.Array:
  """(n, height, width) float32: 1 in the cells of a map that lie under the cell of a pair of any head."""
  covered = jnp.zeros((lesson.num_images, height, width), bool)
  for head in lesson.heads:
    pairs = _pairs(head, lesson.truth)
    columns, rows = head.grid
    is_row, is_column = _under(pairs.rows, rows, height), _under(pairs.columns, columns, width)
    found = is_row[..., :, None] & is_column[..., None, :] & pairs.is_pair.any(-1)[..., None, None]
    covered |= found.any(1)
  return covered.astype(jnp.float32)


def _under(cell: jax.Array, cells: int, size: int) -> jax.Array:
  """(n, t, size) bool: the places of an axis of `size` that share something with one of `cells` equal cells."""
  place = jnp.arange(size).reshape(1, 1, -1)
  return (place * cells < (cell[..., None] + 1) * size) & ((place + 1) * cells > cell[..., None] * size)
