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
  Assignment,
  Place,
  Rules,
  Truths,
  activate,
  along_classes,
  assign,
  class_multipliers,
  find_overlaps,
  is_spared,
  read_truths,
  rules_of,
)
from prn_jax.detect.boxes import diou_cxcywh
from prn_jax.formats.darknet_training import HeadTraining
from prn_jax.kinds.yolo import AnchorHead

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
  head: AnchorHead,
  settings: HeadTraining,
  net_size: tuple[int, int],
  *,
  mask: jax.Array | None = None,
  annotated: jax.Array | None = None,
) -> jax.Array:
  """The loss of one head: the sum over the images.

  Args:
    raw: (n, h, w, channels), the head's input.
    truth, head, settings, net_size, mask, annotated: the arguments of `loss.darknet_deltas`.

  Raises:
    PrnError: settings without a meaning.
  """
  n, height, width, _ = raw.shape
  rules = rules_of(head, settings, (width, height), net_size)
  shape = (n, height, width, -1, head.entries)
  raw = raw.astype(jnp.float32)

  def one_image(
    raw: jax.Array, x: jax.Array, rows: jax.Array, mask: jax.Array | None, annotated: jax.Array | None
  ) -> jax.Array:
    return _image_loss(raw, x, read_truths(rows, head.classes, mask, annotated), rules)

  x = activate(raw, head).reshape(shape)
  return jnp.sum(jax.vmap(one_image)(raw.reshape(shape), x, truth, mask, annotated))


def _image_loss(raw: jax.Array, x: jax.Array, truths: Truths, rules: Rules) -> jax.Array:
  """Loss of one image from its (h, w, a, e) inputs and activated outputs."""
  _, _, anchors, entries = x.shape
  settings, at = rules.settings, rules.head.layout
  fixed = jax.lax.stop_gradient(x)
  overlaps = find_overlaps(fixed, truths, rules)
  spared = is_spared(rules.head.decode(fixed, rules.cells), fixed[..., at.first_class :], truths).reshape(-1, anchors)
  match, best, nearest = (v.reshape(-1, anchors) for v in overlaps)
  raw, x = raw.reshape(-1, anchors, entries), x.reshape(-1, anchors, entries)
  assignment = assign(truths, rules)
  targets, num_pairs = _targets(truths, assignment, best.shape, rules)

  weights, cells = assignment.is_assigned.astype(jnp.float32), assignment.cells
  if settings.iou_thresh < 1 or rules.is_gaussian:
    weights = weights / jnp.maximum(num_pairs, 1)[cells]
  place = Place(rules.cells.at(cells), truths.boxes_cxcywh_rel[:, None], truths.classes[:, None])
  loss = jnp.sum(jnp.where(weights > 0, weights * _box_loss(raw[cells], x[cells], place, rules), 0))

  if settings.truth_thresh < 1:
    is_close = (best > settings.truth_thresh) & ~targets.is_trained
    near = Place(rules.cells.flat(), truths.boxes_cxcywh_rel[nearest], truths.classes[nearest])
    loss = loss + jnp.sum(jnp.where(is_close, _box_loss(raw, x, near, rules), 0))
    targets = _Targets(
      targets.is_trained | is_close,
      jnp.where(is_close[..., None], jax.nn.one_hot(near.classes, rules.head.classes), targets.classes),
      jnp.where(is_close, 1.0, targets.multiplier),
    )

  is_overlapping = match > settings.ignore_thresh
  wanted = targets.is_trained.astype(jnp.float32)
  is_counted = targets.is_trained | ~(is_overlapping | spared)
  if settings.objectness_smooth:
    wanted = jnp.where(targets.is_trained | is_overlapping, best, 0)
    is_counted = targets.is_trained | is_overlapping | ~spared
  objectness = _cross_entropy(raw[..., at.objectness], wanted, rules)
  objectness = settings.obj_normalizer * jnp.where(targets.is_trained, targets.multiplier, 1) * objectness
  return loss + jnp.sum(jnp.where(is_counted, objectness, 0)) + _class_loss(raw, targets, truths, rules)


def _targets(
  truths: Truths, assignment: Assignment, shape: tuple[int, ...], rules: Rules
) -> tuple[_Targets, jax.Array]:
  """Scatters the truths (t) to their locations (cells, a); also the number of truths of each location."""
  cells, pairs = assignment.cells, assignment.is_assigned.astype(jnp.float32)
  one_hot = jax.nn.one_hot(truths.classes, rules.head.classes)
  multiplier = jnp.asarray(class_multipliers(rules))[truths.classes]
  num_pairs = jnp.zeros(shape, jnp.float32).at[cells].add(pairs)
  classes = jnp.zeros((*shape, rules.head.classes), jnp.float32).at[cells].max(pairs[..., None] * one_hot[:, None])
  multipliers = jnp.zeros(shape, jnp.float32).at[cells].max(pairs * multiplier[:, None])
  return _Targets(num_pairs > 0, classes, multipliers), num_pairs


def _cross_entropy(raw: jax.Array, wanted: jax.Array, rules: Rules) -> jax.Array:
  """Binary cross-entropy of the head's input: logits, or with new_coords the probabilities themselves."""
  if rules.head.has_new_coords:
    p = jnp.clip(raw, _TINY, 1 - 1e-7)
    return -(wanted * jnp.log(p) + (1 - wanted) * jnp.log1p(-p))
  return jax.nn.softplus(raw) - wanted * raw


def _class_loss(raw: jax.Array, targets: _Targets, truths: Truths, rules: Rules) -> jax.Array:
  settings, values = rules.settings, raw[..., rules.head.layout.first_class :]
  is_class = targets.classes > 0
  eps = settings.label_smooth_eps
  wanted = targets.classes * (1 - eps) + 0.5 * eps
  loss = settings.cls_normalizer * _cross_entropy(values, wanted, rules)
  loss = jnp.where(is_class, loss * class_multipliers(rules).reshape(1, 1, -1), loss)
  if settings.focal_loss:
    p = values if rules.head.has_new_coords else jax.nn.sigmoid(values)
    missed = jnp.where(is_class, 1 - p, p)
    loss = FOCAL_ALPHA * missed**FOCAL_GAMMA * loss
  is_counted = targets.is_trained[..., None]
  if truths.is_annotated is not None:
    is_counted &= along_classes(truths.is_annotated, is_class) | is_class
  return jnp.sum(jnp.where(is_counted, loss, 0))


def _box_loss(raw: jax.Array, x: jax.Array, place: Place, rules: Rules) -> jax.Array:
  """(k, a) box loss of each location against the truth beside it; 0 for truths without size.

  Args:
    raw, x: (k, a, e) inputs and activated outputs.
    place: the k locations and their truths.
    rules: the loss settings of the head.
  """
  settings, truths = rules.settings, place.truths_cxcywh_rel
  has_size = (truths[..., 2:] > 0).all(-1)
  truths = jnp.where(has_size[..., None], truths, 1.0)
  weight = settings.iou_normalizer * jnp.asarray(class_multipliers(rules))[place.classes]
  targets = rules.head.encode(truths, place.cells)
  scale = 2 - truths[..., 2] * truths[..., 3]
  if settings.iou_loss != "mse":
    boxes = rules.head.decode(x, place.cells)
    boxes = jnp.concatenate([boxes[..., :2], jnp.maximum(boxes[..., 2:], 1e-9)], -1)
    truths = jnp.broadcast_to(truths, boxes.shape)
    is_diou = settings.iou_loss == "diou"
    overlap = diou_cxcywh(boxes, truths, 1.0) if is_diou else OVERLAPS[settings.iou_loss](boxes, truths)
    loss = weight * (1 - overlap)
  elif not rules.is_gaussian:
    loss = weight * scale * _mse(raw, x, targets, rules)
  else:
    loss = jnp.zeros(targets.shape[:-1], jnp.float32)
  if rules.is_gaussian:
    loss = loss + _gaussian(x, targets, scale, weight, rules)
  return jnp.where(has_size, loss, 0)


def _mse(raw: jax.Array, x: jax.Array, targets: jax.Array, rules: Rules) -> jax.Array:
  """Cross-entropy of x, y where they are logits, half the squared error of the rest, summed over the four."""
  size_loss = jnp.sum(0.5 * (targets[..., 2:] - x[..., 2:4]) ** 2, -1)
  if rules.head.has_new_coords:
    return size_loss + jnp.sum(0.5 * (targets[..., :2] - x[..., :2]) ** 2, -1)
  scale = rules.head.scale_x_y
  wanted = (targets[..., :2] + 0.5 * (scale - 1)) / scale
  return size_loss + jnp.sum(_cross_entropy(raw[..., :2], wanted, rules), -1)


def _gaussian(x: jax.Array, targets: jax.Array, scale: jax.Array, weight: jax.Array, rules: Rules) -> jax.Array:
  """Minus the logarithm of the density at the truth; mean and deviation have weights of their own."""
  settings, at = rules.settings, rules.head.layout
  mean, sigma = x[..., at.box], jnp.maximum(x[..., at.sigma], 1e-6)

  def surprise(mean: jax.Array, sigma: jax.Array) -> jax.Array:
    e = (targets - mean) / sigma
    density = jnp.exp(-0.5 * e**2) / (np.sqrt(2 * np.pi, dtype=np.float32) * (sigma + SIGMA_FLOOR))
    return -0.5 * scale * jnp.sum(jnp.log(density + DENSITY_FLOOR), -1)

  frozen_mean, frozen_sigma = jax.lax.stop_gradient((mean, sigma))
  of_sigma = settings.uc_normalizer * surprise(frozen_mean, sigma)
  return of_sigma if settings.iou_loss != "mse" else of_sigma + weight * surprise(mean, frozen_sigma)
