"""Darknet's "gradients" of the overlap of two boxes (`src/box.c:dx_box_iou`, docs/darknet.md e6).

They are ascent directions for the prediction and not the exact derivatives: the size components are not halved, the
distance term of DIoU and CIoU pulls the sizes with the opposite sign, and CIoU's aspect term lacks a factor. Networks
trained with Darknet were trained with exactly these. For true derivatives, differentiate the functions of `boxes`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

IOU_LOSSES = ("iou", "giou", "diou", "ciou")


class _Pair(NamedTuple):
  """Prediction and truth as edges (top, bottom, left, right), and what follows from them; arrays of one shape."""

  pred: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
  truth: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
  overlap_width: jax.Array  # negative if there is a gap
  overlap_height: jax.Array
  enclosing_width: jax.Array
  enclosing_height: jax.Array

  @property
  def is_apart(self) -> jax.Array:
    return (self.overlap_width <= 0) | (self.overlap_height <= 0)


def box_gradient(pred_cxcywh: jax.Array, truth_cxcywh: jax.Array, kind: str) -> jax.Array:
  """The direction in which Darknet moves a predicted box.

  Args:
    pred_cxcywh: (..., 4) float32; a width or height of exactly 0 counts as 1, as in Darknet.
    truth_cxcywh: (..., 4) float32, same shape and frame.
    kind: "iou", "giou", "diou" or "ciou".

  Returns:
    (..., 4) float32: along centre x, centre y, width and height. What is not finite (truths without size) is 0.

  Raises:
    ValueError: the kind is not one of the four.
  """
  if kind not in IOU_LOSSES:
    raise ValueError(f"kind of overlap is {kind!r}; expected one of {', '.join(IOU_LOSSES)}")
  size = jnp.where(pred_cxcywh[..., 2:] == 0, 1, pred_cxcywh[..., 2:])
  pred = jnp.concatenate([pred_cxcywh[..., :2], size], -1)
  pair = _pair(pred, truth_cxcywh)
  gradient = _overlap_gradient(pair, is_giou=kind == "giou")
  if kind in ("diou", "ciou"):
    distance = _distance_gradient(pair, pred, truth_cxcywh)
    if kind == "ciou":
      distance = distance + _aspect_gradient(pair, pred, truth_cxcywh)
    gradient = jnp.where(pair.is_apart[..., None], distance, gradient + distance)
  return jnp.where(jnp.isfinite(gradient), gradient, 0)


def _edges(boxes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  x, y, w, h = (boxes[..., i] for i in range(4))
  return y - h / 2, y + h / 2, x - w / 2, x + w / 2


def _pair(pred: jax.Array, truth: jax.Array) -> _Pair:
  pt, pb, pl, pr = edges = _edges(pred)
  tt, tb, tl, tr = truth_edges = _edges(truth)
  return _Pair(
    edges,
    truth_edges,
    overlap_width=jnp.minimum(pr, tr) - jnp.maximum(pl, tl),
    overlap_height=jnp.minimum(pb, tb) - jnp.maximum(pt, tt),
    enclosing_width=jnp.maximum(pr, tr) - jnp.minimum(pl, tl),
    enclosing_height=jnp.maximum(pb, tb) - jnp.minimum(pt, tt),
  )


def _area_and_union(pair: _Pair) -> tuple[jax.Array, jax.Array]:
  """Intersection and union; with two gaps the "intersection" is their product, as in Darknet."""
  pt, pb, pl, pr = pair.pred
  tt, tb, tl, tr = pair.truth
  intersection = pair.overlap_width * pair.overlap_height
  return intersection, (pb - pt) * (pr - pl) + (tb - tt) * (tr - tl) - intersection


def _overlap_gradient(pair: _Pair, *, is_giou: bool) -> jax.Array:
  """The part of IoU, or of GIoU, along the four edges, then along centre and size."""
  pt, pb, pl, pr = pair.pred
  tt, tb, tl, tr = pair.truth
  width, height = pr - pl, pb - pt
  i, u = _area_and_union(pair)
  d_area = (-width, width, -height, height)
  d_i = (
    jnp.where(pt > tt, -pair.overlap_width, 0),
    jnp.where(pb < tb, pair.overlap_width, 0),
    jnp.where(pl > tl, -pair.overlap_height, 0),
    jnp.where(pr < tr, pair.overlap_height, 0),
  )
  d_u = [area - inside for area, inside in zip(d_area, d_i, strict=True)]
  q = [jnp.where(u > 0, (u * di - i * du) / (u * u), 0) for di, du in zip(d_i, d_u, strict=True)]
  if is_giou:
    cw, ch = pair.enclosing_width, pair.enclosing_height
    c = cw * ch
    d_c = (
      jnp.where(pt < tt, -cw, 0),
      jnp.where(pb > tb, cw, 0),
      jnp.where(pl < tl, -ch, 0),
      jnp.where(pr > tr, ch, 0),
    )
    empty = [jnp.where(c > 0, (c * du - u * dc) / (c * c), 0) for du, dc in zip(d_u, d_c, strict=True)]
    q = [jnp.where(pair.is_apart, e, a + e) for a, e in zip(q, empty, strict=True)]
  top, bottom, left, right = q
  return jnp.stack([left + right, top + bottom, right - left, bottom - top], -1)


def _distance_gradient(pair: _Pair, pred: jax.Array, truth: jax.Array) -> jax.Array:
  """The part of the distance between the centres, which DIoU and CIoU share."""
  pt, pb, pl, pr = pair.pred
  tt, tb, tl, tr = pair.truth
  cw, ch = pair.enclosing_width, pair.enclosing_height
  c2 = cw**2 + ch**2
  to_truth = truth[..., :2] - pred[..., :2]
  s = to_truth[..., 0] ** 2 + to_truth[..., 1] ** 2
  right, left, bottom, top = (x.astype(jnp.float32) for x in (pr > tr, pl < tl, pb > tb, pt < tt))
  gradient = jnp.stack(
    [
      2 * to_truth[..., 0] * c2 - 2 * cw * (right - left) * s,
      2 * to_truth[..., 1] * c2 - 2 * ch * (bottom - top) * s,
      cw * (right + left) * s,  # 2 Cw Aw S with Aw = (right + left) / 2; the sign is Darknet's
      ch * (bottom + top) * s,
    ],
    -1,
  )
  c4 = (c2 * c2)[..., None]
  return jnp.where(c4 > 0, gradient / c4, 0)


def _aspect_gradient(pair: _Pair, pred: jax.Array, truth: jax.Array) -> jax.Array:
  """CIoU's part of the aspect, along width and height."""
  width, height = pred[..., 2], pred[..., 3]
  angle = jnp.arctan(truth[..., 2] / truth[..., 3]) - jnp.arctan(width / height)
  aspect = 4 / math.pi**2 * angle**2
  i, u = _area_and_union(pair)
  alpha = aspect / (1 - i / u + aspect + 1e-6)
  factor = alpha * (8 / math.pi**2) * angle
  nothing = jnp.zeros_like(factor)
  return jnp.stack([nothing, nothing, factor * height, -factor * width], -1)
