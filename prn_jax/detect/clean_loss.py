"""The losses that Darknet's deltas stand for, as plain functions whose gradient JAX finds.

Same assignment and settings as `loss.darknet_loss`; what differs from Darknet:
objectness and classes are binary cross-entropy (there Darknet's delta is the exact gradient); the x, y of `mse` are
cross-entropy too, and its w, h half the squared error, which again is Darknet's delta where scale_x_y is 1; the IoU
losses are weight * (1 - overlap) with their true derivative, and DIoU has the paper's exponent 1; focal loss has
gamma 2 and alpha 0.5 for each class by itself; cls_normalizer weighs all classes always; a location with several
truths has all their classes as targets, and with iou_thresh < 1 the mean of their box losses; with objectness_smooth
the target of a trained or overlapping location is its IoU; max_delta bounds the class weights only.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.detect.assign import (
  DENSITY_FLOOR,
  OVERLAPS,
  SIGMA_FLOOR,
  Head,
  Truths,
  activate,
  assign,
  box_targets,
  check_settings,
  class_multipliers,
  find_overlaps,
  grid_cells,
  head_entries,
  predicted_boxes,
  read_truths,
  uses_new_coords,
)
from prn_jax.detect.boxes import diou_cxcywh
from prn_jax.formats.darknet_training import HeadTraining
from prn_jax.kinds.gaussian_yolo import GaussianYolo

FOCAL_ALPHA, FOCAL_GAMMA = 0.5, 2
_TINY = 1e-12


class _Targets(NamedTuple):
  """What the locations of one image should say; leading axes (cells, a).

  Attributes:
    is_trained: has at least one truth.
    classes: (cells, a, classes) 1 for each class of its truths.
    multiplier: largest class weight of its truths.
  """

  is_trained: jax.Array
  classes: jax.Array
  multiplier: jax.Array


def autodiff_loss(
  raw: jax.Array,
  truth: jax.Array,
  head: Head,
  settings: HeadTraining,
  net_size: tuple[int, int],
  *,
  mask: jax.Array | None = None,
) -> jax.Array:
  """The clean loss of one head: the sum over the images.

  Args:
    raw: (n, h, w, channels), the head's input.
    truth, head, settings, net_size, mask: as for `loss.darknet_deltas`.

  Raises:
    PrnError: settings without a meaning.
  """
  check_settings(head, settings)
  n, height, width, _ = raw.shape
  shape = (n, height, width, -1, head.entries)
  raw = raw.astype(jnp.float32)

  def one_image(raw: jax.Array, x: jax.Array, rows: jax.Array, mask: jax.Array | None) -> jax.Array:
    return _image_loss(raw, x, read_truths(rows, head.classes, mask), head, settings, net_size)

  axes = (0, 0, 0, None if mask is None else 0)
  return jnp.sum(jax.vmap(one_image, axes)(raw.reshape(shape), activate(raw, head).reshape(shape), truth, mask))


def _image_loss(
  raw: jax.Array, x: jax.Array, truths: Truths, head: Head, settings: HeadTraining, net_size: tuple[int, int]
) -> jax.Array:
  """Loss of one image from its (h, w, a, e) inputs and activated outputs."""
  height, width, anchors, entries = x.shape
  grid, at = (width, height), head_entries(head)
  overlaps = find_overlaps(jax.lax.stop_gradient(x), truths, head, net_size)
  match, best, nearest = (v.reshape(-1, anchors) for v in overlaps)
  raw, x = raw.reshape(-1, anchors, entries), x.reshape(-1, anchors, entries)
  cells_xy = jnp.asarray(grid_cells(grid)).reshape(-1, 1, 2)
  assignment = assign(truths, head, settings, grid, net_size)
  targets, num_pairs = _targets(
    truths, assignment.cells, assignment.is_assigned, (height * width, anchors), head, settings
  )

  weights = assignment.is_assigned.astype(jnp.float32)
  if settings.iou_thresh < 1 or isinstance(head, GaussianYolo):
    weights = weights / jnp.maximum(num_pairs, 1)[assignment.cells]
  cells = assignment.cells
  boxes, classes = truths.boxes_cxcywh_rel[:, None], truths.classes[:, None]
  pair_losses = _box_loss(raw[cells], x[cells], cells_xy[cells], boxes, classes, head, settings, grid, net_size)
  loss = jnp.sum(jnp.where(weights > 0, weights * pair_losses, 0))

  if settings.truth_thresh < 1:
    is_close = (best > settings.truth_thresh) & ~targets.is_trained
    boxes, classes = truths.boxes_cxcywh_rel[nearest], truths.classes[nearest]
    near_losses = _box_loss(raw, x, cells_xy, boxes, classes, head, settings, grid, net_size)
    loss = loss + jnp.sum(jnp.where(is_close, near_losses, 0))
    targets = _Targets(
      targets.is_trained | is_close,
      jnp.where(is_close[..., None], jax.nn.one_hot(classes, head.classes), targets.classes),
      jnp.where(is_close, 1.0, targets.multiplier),
    )

  is_overlapping = match > settings.ignore_thresh
  wanted = targets.is_trained.astype(jnp.float32)
  is_counted = targets.is_trained | ~is_overlapping
  if settings.objectness_smooth and not isinstance(head, GaussianYolo):
    wanted = jnp.where(targets.is_trained | is_overlapping, best, 0)
    is_counted = jnp.ones_like(is_counted)
  objectness = _cross_entropy(raw[..., at.objectness], wanted, head)
  objectness = settings.obj_normalizer * jnp.where(targets.is_trained, targets.multiplier, 1) * objectness
  return loss + jnp.sum(jnp.where(is_counted, objectness, 0)) + _class_loss(raw, targets, head, settings)


def _targets(
  truths: Truths,
  cells: jax.Array,
  is_assigned: jax.Array,
  shape: tuple[int, int],
  head: Head,
  settings: HeadTraining,
) -> tuple[_Targets, jax.Array]:
  """Scatters the truths (t) to their locations (cells, a); also the number of truths of each location."""
  pairs = is_assigned.astype(jnp.float32)
  one_hot = jax.nn.one_hot(truths.classes, head.classes)
  multiplier = jnp.asarray(class_multipliers(head, settings))[truths.classes]
  num_pairs = jnp.zeros(shape, jnp.float32).at[cells].add(pairs)
  classes = jnp.zeros((*shape, head.classes), jnp.float32).at[cells].max(pairs[..., None] * one_hot[:, None])
  multipliers = jnp.zeros(shape, jnp.float32).at[cells].max(pairs * multiplier[:, None])
  return _Targets(num_pairs > 0, classes, multipliers), num_pairs


def _cross_entropy(raw: jax.Array, wanted: jax.Array, head: Head) -> jax.Array:
  """Binary cross-entropy of the head's input: logits, or with new_coords the probabilities themselves."""
  if uses_new_coords(head):
    p = jnp.clip(raw, _TINY, 1 - 1e-7)
    return -(wanted * jnp.log(p) + (1 - wanted) * jnp.log1p(-p))
  return jax.nn.softplus(raw) - wanted * raw


def _class_loss(raw: jax.Array, targets: _Targets, head: Head, settings: HeadTraining) -> jax.Array:
  values = raw[..., head_entries(head).first_class :]
  is_class = targets.classes > 0
  eps = settings.label_smooth_eps
  wanted = targets.classes * (1 - eps) + 0.5 * eps
  loss = settings.cls_normalizer * _cross_entropy(values, wanted, head)
  loss = jnp.where(is_class, loss * class_multipliers(head, settings).reshape(1, 1, -1), loss)
  if settings.focal_loss and not isinstance(head, GaussianYolo):
    p = values if uses_new_coords(head) else jax.nn.sigmoid(values)
    missed = jnp.where(is_class, 1 - p, p)
    loss = FOCAL_ALPHA * missed**FOCAL_GAMMA * loss
  return jnp.sum(jnp.where(targets.is_trained[..., None], loss, 0))


def _box_loss(
  raw: jax.Array,
  x: jax.Array,
  cells_xy: jax.Array,
  truths: jax.Array,
  classes: jax.Array,
  head: Head,
  settings: HeadTraining,
  grid: tuple[int, int],
  net_size: tuple[int, int],
) -> jax.Array:
  """Box loss of each location against the truth beside it; 0 for truths without size.

  Args:
    raw, x: (k, a, e) inputs and activated outputs.
    cells_xy: (k, 1, 2) column and row.
    truths: (k, a or 1, 4) cxcywh, relative.
    classes: (k, a or 1).
    head, settings: of the layer.
    grid: columns and rows.
    net_size: width and height of the network input in pixels.
  """
  has_size = (truths[..., 2:] > 0).all(-1)
  truths = jnp.where(has_size[..., None], truths, 1.0)
  weight = settings.iou_normalizer * jnp.asarray(class_multipliers(head, settings))[classes]
  targets = box_targets(truths, cells_xy, grid, head, net_size)
  scale = 2 - truths[..., 2] * truths[..., 3]
  if settings.iou_loss != "mse":
    boxes = predicted_boxes(x, cells_xy, grid, head, net_size)
    boxes = jnp.concatenate([boxes[..., :2], jnp.maximum(boxes[..., 2:], 1e-9)], -1)
    truths = jnp.broadcast_to(truths, boxes.shape)
    is_diou = settings.iou_loss == "diou"
    overlap = diou_cxcywh(boxes, truths, 1.0) if is_diou else OVERLAPS[settings.iou_loss](boxes, truths)
    loss = weight * (1 - overlap)
  elif not isinstance(head, GaussianYolo):
    loss = weight * scale * _mse(raw, x, targets, head)
  else:
    loss = jnp.zeros(targets.shape[:-1], jnp.float32)
  if isinstance(head, GaussianYolo):
    loss = loss + _gaussian(x, targets, scale, weight, settings)
  return jnp.where(has_size, loss, 0)


def _mse(raw: jax.Array, x: jax.Array, targets: jax.Array, head: Head) -> jax.Array:
  """Cross-entropy of x, y where they are logits, half the squared error of the rest, summed over the four."""
  size_loss = jnp.sum(0.5 * (targets[..., 2:] - x[..., 2:4]) ** 2, -1)
  if uses_new_coords(head):
    return size_loss + jnp.sum(0.5 * (targets[..., :2] - x[..., :2]) ** 2, -1)
  wanted = (targets[..., :2] + 0.5 * (head.scale_x_y - 1)) / head.scale_x_y
  return size_loss + jnp.sum(_cross_entropy(raw[..., :2], wanted, head), -1)


def _gaussian(
  x: jax.Array, targets: jax.Array, scale: jax.Array, weight: jax.Array, settings: HeadTraining
) -> jax.Array:
  """Minus the logarithm of the density at the truth; mean and deviation have weights of their own."""
  mean = x[..., np.array([0, 2, 4, 6])]
  sigma = jnp.maximum(x[..., np.array([1, 3, 5, 7])], 1e-6)

  def surprise(mean: jax.Array, sigma: jax.Array) -> jax.Array:
    e = (targets - mean) / sigma
    density = jnp.exp(-0.5 * e**2) / (np.sqrt(2 * np.pi, dtype=np.float32) * (sigma + SIGMA_FLOOR))
    return -0.5 * scale * jnp.sum(jnp.log(density + DENSITY_FLOOR), -1)

  frozen_mean, frozen_sigma = jax.lax.stop_gradient((mean, sigma))
  of_sigma = settings.uc_normalizer * surprise(frozen_mean, sigma)
  return of_sigma if settings.iou_loss != "mse" else of_sigma + weight * surprise(mean, frozen_sigma)
