"""What Darknet's detection heads send back: its deltas, and its cost (docs/darknet.md e5 to e7).

Darknet does not differentiate a loss. It writes a `delta`, minus the gradient, straight for the raw output of the
convolution below a head, in three passes: every location (background, ignored, or close to a truth), every truth in
its order (to its cell and anchors), and every location again (averaging). The cost is for display.

Functions with a leading underscore work on one image. Legend: h, w cells; a anchors of the head; e entries of an
anchor; t truths.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.detect.assign import (
  DENSITY_FLOOR,
  SIGMA_FLOOR,
  Assignment,
  Place,
  Rules,
  Truths,
  along_classes,
  assign,
  class_multipliers,
  find_overlaps,
  is_spared,
  read_truths,
  rules_of,
)
from prn_jax.detect.box_gradients import box_gradient
from prn_jax.detect.boxes import giou_cxcywh, iou_cxcywh
from prn_jax.detect.head_metrics import HeadMetrics
from prn_jax.formats.darknet_training import HeadTraining
from prn_jax.kinds.yolo import AnchorHead


class _Pairs(NamedTuple):
  """What a pair of truth and anchor wants, before the order of the truths is considered.

  Attributes:
    box: (..., a, 4 or 8) deltas of the box entries.
    objectness: (..., a).
    all_classes: (..., a, classes) deltas where the cell has none yet.
    own_class: (..., a) delta of the true class where it has.
    iou, giou: (..., a) of prediction and truth.
  """

  box: jax.Array
  objectness: jax.Array
  all_classes: jax.Array
  own_class: jax.Array
  iou: jax.Array
  giou: jax.Array


def darknet_deltas(
  output: jax.Array,
  truth: jax.Array,
  head: AnchorHead,
  settings: HeadTraining,
  net_size: tuple[int, int],
  *,
  mask: jax.Array | None = None,
  annotated: jax.Array | None = None,
) -> tuple[jax.Array, HeadMetrics]:
  """Darknet's deltas of one head.

  Args:
    output: (n, h, w, channels) activated outputs, as `Network` returns them.
    truth: (n, t, 5 or more): centre x, y, width, height relative to the network input, class, ...; the order of the
      rows matters where truths share a cell. Class -2 marks regions in which nothing is learned.
    head: a yolo or Gaussian_yolo layer.
    settings: its loss settings; all of docs/darknet.md a14's that concern the loss are followed.
    net_size: width and height of the network input in pixels.
    mask: (n, t) bool, the rows that hold a truth; without it a list ends at the first x == 0.
    annotated: (n, classes), 0 for a class of whose objects there may be more in the image than truths; None: there are
      none. No delta lowers the probability of such a class, or the objectness of what looks most like one.

  Returns:
    (n, h, w, channels) float32 deltas, that is minus the gradient with respect to the head's input; and the metrics,
    with Darknet's cost.

  Raises:
    PrnError: settings without a meaning.

  Source: Darknet `yolo_layer.c`, `gaussian_yolo_layer.c`; differs: truths on the right or lower border belong to the
  last cell, truths without width or height give no infinite delta, and a class that does not exist is skipped by
  Gaussian heads, too. Ignored regions and classes that are not annotated are ours (`assign.is_spared`).
  """
  n, height, width, channels = output.shape
  rules = rules_of(head, settings, (width, height), net_size)
  x = output.astype(jnp.float32).reshape(n, height, width, -1, head.entries)

  def one_image(
    x: jax.Array, rows: jax.Array, mask: jax.Array | None, annotated: jax.Array | None
  ) -> tuple[jax.Array, HeadMetrics]:
    return _image_deltas(x, read_truths(rows, head.classes, mask, annotated), rules)

  deltas, sums = jax.vmap(one_image)(x, truth, mask, annotated)
  metrics = jax.tree.map(lambda v: jnp.sum(v, 0), sums)
  metrics = metrics._replace(cost=_cost(deltas, metrics, rules))
  return deltas.reshape(n, height, width, channels), metrics


def _cost(deltas: jax.Array, sums: HeadMetrics, rules: Rules) -> jax.Array:
  """The number that Darknet prints; the squared deltas, or with IoU losses the mean 1 - IoU for those of the boxes."""
  settings = rules.settings
  if settings.iou_loss == "mse" or not settings.show_details:
    return jnp.sum(deltas**2)
  overlap = sums.giou if settings.iou_loss == "giou" else sums.iou
  box_cost = (sums.num_assigned - overlap) / jnp.maximum(sums.num_assigned, 1)
  others = jnp.sum(deltas[..., rules.head.layout.objectness :] ** 2)
  return settings.iou_normalizer * box_cost + settings.obj_normalizer * others


# -- one image ---------------------------------------------------------------------------------------------------------


def _image_deltas(x: jax.Array, truths: Truths, rules: Rules) -> tuple[jax.Array, HeadMetrics]:
  """(h, w, a, e) outputs -> deltas of the same shape, and sums for the metrics; the cost is left 0."""
  height, width, anchors, entries = x.shape
  deltas = _background(x, truths, rules).reshape(height * width, anchors, entries)

  assignment = assign(truths, rules)
  place = Place(rules.cells.at(assignment.cells), truths.boxes_cxcywh_rel[:, None], truths.classes[:, None])
  outputs = x.reshape(height * width, anchors, entries)[assignment.cells]
  pairs = _pairs(outputs, place, rules)
  deltas = _apply_in_order(deltas, pairs, assignment, truths, rules).reshape(x.shape)
  if truths.is_annotated is not None:
    at = rules.head.layout
    classes = deltas[..., at.first_class :]
    classes = jnp.where(along_classes(truths.is_annotated, classes), classes, jnp.maximum(classes, 0))
    deltas = jnp.concatenate([deltas[..., : at.first_class], classes], -1)
  return _average_boxes(deltas, rules), _sums(x, outputs, pairs, assignment.is_assigned, truths, rules)


def _background(x: jax.Array, truths: Truths, rules: Rules) -> jax.Array:
  """Pass 1: every location shall find nothing, unless it overlaps a truth enough to be ignored or trained."""
  settings, at = rules.settings, rules.head.layout
  overlaps = find_overlaps(x, truths, rules)
  objectness = x[..., at.objectness]
  nothing = settings.obj_normalizer * (0 - objectness)
  boxes, classes = rules.head.decode(x, rules.cells), x[..., at.first_class :]
  nothing = jnp.where(is_spared(boxes, classes, truths), 0, nothing)
  is_ignored = overlaps.match > settings.ignore_thresh
  ignored = jnp.zeros_like(nothing)
  if settings.objectness_smooth:
    ignored = jnp.maximum(nothing, settings.obj_normalizer * (overlaps.match - objectness))
  background = jnp.where(is_ignored, ignored, nothing)[..., None]
  deltas = jnp.concatenate(
    [jnp.zeros_like(x[..., : at.objectness]), background, jnp.zeros_like(x[..., at.first_class :])], -1
  )
  if settings.truth_thresh >= 1:  # no IoU is larger
    return deltas

  classes = truths.classes[overlaps.truth]
  pairs = _pairs(x, Place(rules.cells, truths.boxes_cxcywh_rel[overlaps.truth], classes), rules)
  wanted, class_deltas = jnp.ones_like(objectness), pairs.all_classes
  if settings.objectness_smooth:
    wanted = overlaps.best**2
    multipliers = jnp.asarray(class_multipliers(rules))[classes][..., None]
    smooth = multipliers * (wanted[..., None] - x[..., at.first_class :])
    class_deltas = jnp.where(_is_class(classes, rules.head), smooth, class_deltas)
  objectness_delta = settings.obj_normalizer * (wanted - objectness)[..., None]
  trained = jnp.concatenate([pairs.box, objectness_delta, class_deltas], -1)
  return jnp.where((overlaps.best > settings.truth_thresh)[..., None], trained, deltas)


def _is_class(classes: jax.Array, head: AnchorHead) -> jax.Array:
  """(...) int32 -> (..., classes) bool."""
  return classes[..., None] == np.arange(head.classes).reshape((1,) * classes.ndim + (-1,))


def _apply_in_order(
  deltas: jax.Array, pairs: _Pairs, assignment: Assignment, truths: Truths, rules: Rules
) -> jax.Array:
  """Pass 2: the truths in their order, each upon what earlier ones left in its cell.

  Truths of different cells do not meet, so round k handles the k-th truth of every cell: one or two rounds instead
  of one per truth. Only the cells with truths are carried: row `owners[t]` of the state is the cell of truth t.

  Args:
    deltas: (h * w, a, e) after pass 1.
    pairs: indices (t, a) of a truth and an anchor.
    assignment, truths: the assignment and the objects of this image.
    rules: the loss settings of this head.
  """
  at = rules.head.layout
  cells, is_assigned, owners, ranks = assignment
  is_class = _is_class(truths.classes[:, None], rules.head)

  def one_round(k: int | jax.Array, state: jax.Array) -> jax.Array:
    old = state[owners]
    objectness, classes = old[..., at.objectness], old[..., at.first_class :]
    is_free = objectness == 0 if rules.settings.objectness_smooth else jnp.ones_like(is_assigned)
    # Darknet's quirk: a Gaussian head looks at class 0, whatever the class of the truth.
    looked_at = classes[..., 0] if rules.is_gaussian else _of_class(classes, is_class)
    own_only = jnp.where(is_class, pairs.own_class[..., None], classes)
    classes = jnp.where((looked_at != 0)[..., None], own_only, pairs.all_classes)
    objectness = jnp.where(is_free, pairs.objectness, objectness)[..., None]
    new = jnp.concatenate([old[..., : at.objectness] + pairs.box, objectness, classes], -1)
    rows = jnp.where(truths.is_used & (ranks == k), owners, len(owners))  # beyond the last: dropped
    return state.at[rows].set(jnp.where(is_assigned[..., None], new, old), mode="drop")

  num_rounds = jnp.max(jnp.where(truths.is_used, ranks + 1, 0))
  state = jax.lax.fori_loop(0, num_rounds, one_round, deltas[cells])
  is_owner = truths.is_used & (ranks == 0)
  return deltas.at[jnp.where(is_owner, cells, deltas.shape[0])].set(state, mode="drop")


def _of_class(values: jax.Array, is_class: jax.Array) -> jax.Array:
  """(..., classes) -> (...): the value of the true class."""
  return jnp.sum(jnp.where(is_class, values, 0), -1)


def _average_boxes(deltas: jax.Array, rules: Rules) -> jax.Array:
  """Pass 3: where several anchors or truths may meet, box deltas are divided by the number of positive classes."""
  at = rules.head.layout
  if rules.settings.iou_thresh >= 1 and not rules.is_gaussian:
    return deltas
  count = jnp.sum(deltas[..., at.first_class :] > 0, -1, keepdims=True)
  if not rules.is_gaussian:
    count = jnp.where(deltas[..., at.objectness][..., None] != 0, count, 1)
  boxes = deltas[..., : at.objectness] / jnp.maximum(count, 1).astype(jnp.float32)
  return jnp.concatenate([boxes, deltas[..., at.objectness :]], -1)


def _sums(
  x: jax.Array, outputs: jax.Array, pairs: _Pairs, is_assigned: jax.Array, truths: Truths, rules: Rules
) -> HeadMetrics:
  at = rules.head.layout

  def over_pairs(values: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(is_assigned, values, 0))

  is_class = _is_class(truths.classes[:, None], rules.head)
  return HeadMetrics(
    cost=jnp.zeros((), jnp.float32),
    num_assigned=over_pairs(jnp.ones_like(pairs.iou)),
    iou=over_pairs(pairs.iou),
    giou=over_pairs(pairs.giou),
    objectness=over_pairs(outputs[..., at.objectness]),
    true_class=over_pairs(_of_class(outputs[..., at.first_class :], is_class)),
    recall50=over_pairs((pairs.iou > 0.5).astype(jnp.float32)),
    recall75=over_pairs((pairs.iou > 0.75).astype(jnp.float32)),
    any_objectness=jnp.sum(x[..., at.objectness]),
    num_locations=jnp.float32(x[..., 0].size),
  )


# -- one pair of truth and anchor --------------------------------------------------------------------------------------


def _pairs(x: jax.Array, place: Place, rules: Rules) -> _Pairs:
  """What each location wants, if it is trained on the truth beside it.

  Args:
    x: (..., a, e) activated outputs.
    place: the truths and cells, with leading axes as `x`.
    rules: the loss settings of this head.
  """
  settings, at = rules.settings, rules.head.layout
  multiplier = jnp.asarray(class_multipliers(rules))[place.classes]
  boxes = rules.head.decode(x, place.cells)
  iou, giou = iou_cxcywh(boxes, place.truths_cxcywh_rel), giou_cxcywh(boxes, place.truths_cxcywh_rel)
  all_classes, own_class = _class_deltas(x[..., at.first_class :], place.classes, multiplier, rules)
  return _Pairs(
    box=_box_deltas(x, boxes, place, multiplier, rules),
    objectness=multiplier * settings.obj_normalizer * (1 - x[..., at.objectness]),
    all_classes=all_classes,
    own_class=own_class,
    iou=jnp.where(jnp.isnan(iou), 0, iou),
    giou=jnp.where(jnp.isnan(giou), 0, giou),
  )


def _class_deltas(p: jax.Array, classes: jax.Array, multiplier: jax.Array, rules: Rules) -> tuple[jax.Array, jax.Array]:
  """Deltas of all classes where the cell has none, and of the true class alone where it has.

  Args:
    p: (..., a, classes) probabilities.
    classes: (..., a or 1) true class.
    multiplier: (..., a or 1) its weight.
    rules: the loss settings of this head.
  """
  settings = rules.settings
  eps = settings.label_smooth_eps
  is_class = _is_class(classes, rules.head)
  p_true = _of_class(p, is_class)
  own_class = (1 - eps + 0.5 * eps - p_true) * multiplier
  if settings.focal_loss:
    pt = p_true + 1e-15
    focus = -(1 - pt) * (2 * pt * jnp.log(pt) + pt - 1)
    return (is_class - p) * (0.5 * focus)[..., None], own_class
  all_classes = is_class * (1 - eps) + 0.5 * eps - p
  if settings.counters_per_class:  # Darknet's quirk: without counters cls_normalizer has no effect
    weight = (multiplier * settings.cls_normalizer)[..., None]
    all_classes = jnp.where(is_class, all_classes * weight, all_classes)
  return all_classes, own_class


def _box_deltas(x: jax.Array, boxes: jax.Array, place: Place, multiplier: jax.Array, rules: Rules) -> jax.Array:
  """Deltas of the box entries: (..., a, 4), or 8 for a Gaussian head, as the entries lie."""
  settings, at = rules.settings, rules.head.layout
  weight = (settings.iou_normalizer * multiplier)[..., None]
  values = x[..., at.box]
  truths = place.truths_cxcywh_rel
  scale = (2 - truths[..., 2] * truths[..., 3])[..., None]  # small boxes count more
  error = rules.head.encode(truths, place.cells) - values
  if settings.iou_loss != "mse":
    deltas = _iou_deltas(values, boxes, truths, rules)
  elif rules.is_gaussian:
    deltas, _ = _gaussian_deltas(error, x[..., at.sigma], scale)
  else:
    deltas = scale * error
  deltas = _bounded(deltas * weight, settings, is_clipped=rules.is_gaussian or settings.iou_loss != "mse")
  if not rules.is_gaussian:
    return deltas
  _, sigma_deltas = _gaussian_deltas(error, x[..., at.sigma], scale)
  sigma_deltas = _bounded(sigma_deltas * settings.uc_normalizer, settings, is_clipped=True)
  return jnp.stack([deltas, sigma_deltas], -1).reshape(*deltas.shape[:-1], 8)


def _bounded(deltas: jax.Array, settings: HeadTraining, *, is_clipped: bool) -> jax.Array:
  """No NaN and infinity, which come from boxes without size; within +/- max_delta."""
  deltas = jnp.where(jnp.isfinite(deltas), deltas, 0)
  return jnp.clip(deltas, -settings.max_delta, settings.max_delta) if is_clipped else deltas


def _iou_deltas(values: jax.Array, boxes: jax.Array, truths: jax.Array, rules: Rules) -> jax.Array:
  """Darknet's gradient of the overlap; exp is differentiated, sigmoid and square are not."""
  gradient = box_gradient(boxes, jnp.broadcast_to(truths, boxes.shape), rules.settings.iou_loss)
  xy, wh = gradient[..., :2] + rules.head.point_shift * gradient[..., 2:], gradient[..., 2:]
  if not rules.head.has_new_coords:
    wh = wh * jnp.exp(values[..., 2:])
  return jnp.concatenate([xy, wh], -1)


def _gaussian_deltas(error: jax.Array, sigma: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Deltas of mean and deviation from the logarithm of the density at the truth (docs/darknet.md e7)."""
  e = error / sigma
  density = jnp.exp(-0.5 * e**2) / (np.sqrt(2 * np.pi, dtype=np.float32) * (sigma + SIGMA_FLOOR))
  k = 0.5 * density / (density + DENSITY_FLOOR) * scale
  return k * e / sigma, k * (e**2 / sigma - 1 / (sigma + SIGMA_FLOOR))
