"""Arithmetic on boxes, exactly as Darknet defines it (`src/box.c`, docs/darknet.md e6).

Boxes are float32 with 4 values on the last axis, `cxcywh`: centre and size.
The overlap measures are elementwise over broadcast leading axes of equal rank; `pairwise` makes tables of them.
They hold in any frame (pixels or relative), but the distance terms of DIoU and CIoU depend on its aspect.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

DIOU_EXPONENT = 0.6  # Darknet's; the DIoU paper has 1


def pairwise(
  measure: Callable[[jax.Array, jax.Array], jax.Array], a_cxcywh: jax.Array, b_cxcywh: jax.Array
) -> jax.Array:
  """Table of a measure: (..., n, 4) and (..., m, 4) -> (..., n, m).

  Example: pairwise(iou_cxcywh, truths_cxcywh, predictions_cxcywh)
  """
  return measure(a_cxcywh[..., :, None, :], b_cxcywh[..., None, :, :])


def iou_cxcywh(a_cxcywh: jax.Array, b_cxcywh: jax.Array) -> jax.Array:
  """Intersection over union.

  Args:
    a_cxcywh, b_cxcywh: (..., 4), same frame, sizes at least 0.

  Returns:
    (...) float32 in [0, 1]; 0 where they do not overlap or either has no area.

  Source: `box_iou`.
  Example: two boxes 2x2 with centres (1, 1) and (2, 2) have 1/7.
  """
  intersection, union = _intersection_and_union(a_cxcywh, b_cxcywh)
  return _ratio(intersection, union, intersection > 0)


def intersection_cxcywh(a_cxcywh: jax.Array, b_cxcywh: jax.Array) -> jax.Array:
  """The area that two boxes share; args as `iou_cxcywh`, returns (...) float32."""
  return _intersection_and_union(a_cxcywh, b_cxcywh)[0]


def giou_cxcywh(a_cxcywh: jax.Array, b_cxcywh: jax.Array) -> jax.Array:
  """IoU minus the share of the enclosing box that neither covers; in (-1, 1].

  Where the enclosing box has no area it is the IoU. Args and returns as `iou_cxcywh`. Source: `box_giou`.
  """
  intersection, union = _intersection_and_union(a_cxcywh, b_cxcywh)
  width, height = _enclosing_size(a_cxcywh, b_cxcywh)
  enclosing = width * height
  return _ratio(intersection, union, intersection > 0) - _ratio(enclosing - union, enclosing, enclosing > 0)


def diou_cxcywh(a_cxcywh: jax.Array, b_cxcywh: jax.Array, exponent: jax.typing.ArrayLike = DIOU_EXPONENT) -> jax.Array:
  """IoU - (d^2 / c^2)^exponent: d between the centres, c the diagonal of the enclosing box; in (-1, 1].

  Args as `iou_cxcywh`; `exponent` is 0.6 for greedynms and `beta_nms` for diounms. Where both boxes are one point it
  is the IoU. Source: `box_diou`, `box_diounms`.
  """
  share = center_distance_share(a_cxcywh, b_cxcywh)
  far = share > 0
  return iou_cxcywh(a_cxcywh, b_cxcywh) - jnp.where(far, jnp.where(far, share, 1) ** exponent, 0)


def ciou_cxcywh(a_cxcywh: jax.Array, b_cxcywh: jax.Array) -> jax.Array:
  """IoU - (d^2 / c^2 + alpha v): distance as in DIoU with exponent 1, v the difference of the aspects.

  Args and returns as `iou_cxcywh`; `a` is the prediction. Source: `box_ciou`.
  """
  iou = iou_cxcywh(a_cxcywh, b_cxcywh)
  v = 4 / math.pi**2 * (_aspect_angle(b_cxcywh) - _aspect_angle(a_cxcywh)) ** 2
  alpha = v / (1 - iou + v + 1e-6)
  width, height = _enclosing_size(a_cxcywh, b_cxcywh)
  return jnp.where((width > 0) | (height > 0), iou - (center_distance_share(a_cxcywh, b_cxcywh) + alpha * v), iou)


def center_distance_share(a: jax.Array, b: jax.Array) -> jax.Array:
  """d^2 / c^2 of DIoU: squared distance of the centres over the squared diagonal of the enclosing box.

  Args as `iou_cxcywh`. Returns (...) float32 in [0, 1); 0 where the enclosing box is a point.
  """
  width, height = _enclosing_size(a, b)
  diagonal = width**2 + height**2
  distance = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
  return _ratio(distance, diagonal, diagonal > 0)


def _intersection_and_union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  # Slices of one value keep the arithmetic in plain arrays of the leading axes, which XLA vectorises.
  width = _overlap(a[..., 0], a[..., 2], b[..., 0], b[..., 2])
  height = _overlap(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
  intersection = jnp.maximum(width, 0) * jnp.maximum(height, 0)
  return intersection, a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection


def _overlap(a: jax.Array, a_size: jax.Array, b: jax.Array, b_size: jax.Array) -> jax.Array:
  """Length of the overlap of two intervals given by centre and size; negative if there is a gap."""
  return jnp.minimum(a + a_size / 2, b + b_size / 2) - jnp.maximum(a - a_size / 2, b - b_size / 2)


def _enclosing_size(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Width and height of the smallest box around both."""
  return _span(a[..., 0], a[..., 2], b[..., 0], b[..., 2]), _span(a[..., 1], a[..., 3], b[..., 1], b[..., 3])


def _span(a: jax.Array, a_size: jax.Array, b: jax.Array, b_size: jax.Array) -> jax.Array:
  """Length of the shortest interval around two intervals given by centre and size."""
  return jnp.maximum(a + a_size / 2, b + b_size / 2) - jnp.minimum(a - a_size / 2, b - b_size / 2)


def _aspect_angle(boxes: jax.Array) -> jax.Array:
  """atan(width / height); 0 for a point, with a gradient of 0 there."""
  width, height = boxes[..., 2], boxes[..., 3]
  return jnp.arctan2(width, jnp.where((width == 0) & (height == 0), 1, height))


def _ratio(a: jax.Array, b: jax.Array, where: jax.Array) -> jax.Array:
  """a / b where asked, else 0, with a gradient of 0 there and no NaN."""
  return jnp.where(where, a / jnp.where(where, b, 1), 0)
