"""Losses on feature maps, between an adapter of the student and the teacher."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prn_jax.distill.lesson import Lesson, Needs, has_object, register_distillation, softmax_divergence

# Of FGD for detectors with anchors in one stage (section 4.1): weight of the objects, of the rest, and of the attention.
ALPHA, BETA, GAMMA = 1e-3, 5e-4, 1e-3


@register_distillation("cwd", Needs.FEATURES, weight=10.0)
def channel_wise(lesson: Lesson) -> jax.Array:
  """Where each channel looks: T^2 / C sum_c KL(softmax(F_t,c / T), softmax(F_s,c / T)), softmax over the cells of a channel.

  Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, equations 4 and 5, here on feature maps; the
  sum over the maps. T of 1 and the weight 10 are those of OpenMMLab's mmrazor for the necks of detectors, not of the paper.
  """
  t, total = lesson.temperature, jnp.zeros((), jnp.float32)
  for student, teacher in lesson.features:
    n, height, width, channels = student.shape
    s, wanted = (x.reshape(n, height * width, channels).swapaxes(1, 2) / t for x in (student, teacher))
    total = total + t**2 / channels * jnp.sum(softmax_divergence(wanted, s))
  return total / lesson.num_images


@register_distillation("fgd", Needs.FEATURES, temperature=0.5)
def focal(lesson: Lesson) -> jax.Array:
  """Squared distance of features, objects and background apart, where the teacher's attention is.

  With M the cells of objects, S the inverse of the area of a cell's smallest object (of the background's for the others), and A_S, A_C
  the teacher's attention over cells and channels:
    alpha sum M S A_S A_C (F_t - F_s)^2 + beta sum (1 - M) S A_S A_C (F_t - F_s)^2
      + gamma (sum |A_S,t - A_S,s| + sum |A_C,t - A_C,s|)
    A_S = H W softmax(mean_c |F| / T), A_C = C softmax(mean_hw |F| / T)
  Source: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, eq. 2 to 10, with its T of 0.5 and its weights
  for detectors with anchors in one stage (section 4.1: 0.001, 0.0005, 0.001). Differs: an object has the cells that its box touches, and
  its area is their number (the authors' program adds a row and a column); the global part (eq. 11 and 12), a relation block with weights
  of its own that counts 0.000005, is left out.
  """
  assert lesson.truth is not None
  total = jnp.zeros((), jnp.float32)
  for student, teacher in lesson.features:
    height, width = student.shape[1:3]
    masks = _masks(lesson.truth, height, width)
    wanted, own = _attention(teacher, lesson.temperature), _attention(student, lesson.temperature)
    squares = wanted.cells[..., None] * wanted.channels[:, None, None] * jnp.square(teacher - student)
    total = total + jnp.sum((ALPHA * masks.objects + BETA * masks.background)[..., None] * squares)
    gaps = jnp.sum(jnp.abs(wanted.cells - own.cells)) + jnp.sum(jnp.abs(wanted.channels - own.channels))
    total = total + GAMMA * gaps
  return total / lesson.num_images


class _Attention(NamedTuple):
  """(n, h, w) and (n, c), of mean 1."""

  cells: jax.Array
  channels: jax.Array


def _attention(features: jax.Array, temperature: float) -> _Attention:
  n, height, width, channels = features.shape
  size = jnp.abs(features)
  cells = jax.nn.softmax(size.mean(-1).reshape(n, -1) / temperature) * (height * width)
  return _Attention(cells.reshape(n, height, width), jax.nn.softmax(size.mean((1, 2)) / temperature) * channels)


class _Masks(NamedTuple):
  """(n, h, w) each: one over the area of the smallest object of a cell, and one over the cells without an object."""

  objects: jax.Array
  background: jax.Array


def _masks(truth: jax.Array, height: int, width: int) -> _Masks:
  columns, rows = _covered(truth[..., 0], truth[..., 2], width), _covered(truth[..., 1], truth[..., 3], height)
  inside = rows[..., :, None] & columns[..., None, :] & has_object(truth)[..., None, None]  # (n, t, h, w)
  area = jnp.sum(inside, (2, 3), keepdims=True)
  objects = jnp.max(jnp.where(inside, 1 / jnp.maximum(area, 1), 0), 1)
  is_free = objects == 0
  free = jnp.sum(is_free, (1, 2), keepdims=True)
  return _Masks(objects, jnp.where(is_free, 1 / jnp.maximum(free, 1), 0))


def _covered(centre: jax.Array, size: jax.Array, cells: int) -> jax.Array:
  """(n, t, cells) bool: the cells of an axis that an interval relative to it touches."""
  place = jnp.arange(cells, dtype=jnp.float32).reshape(1, 1, -1)
  low, high = ((centre + half * size / 2)[..., None] * cells for half in (-1, 1))
  return (place + 1 > low) & (place < high)
