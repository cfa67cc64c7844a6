"""What Darknet's [region] head (YOLOv2) sends back: its deltas, and its cost.

Here the deltas are the exact gradients of a plain loss, for every location or truth that counts: half the squared error
of sigmoid(x), sigmoid(y), w, h and of sigmoid(objectness), and the cross entropy of the softmax over the classes (half
the squared error of the raw classes without softmax). What counts:

1. Every location shall find nothing, unless its box overlaps a truth by more than `thresh`.
2. While the network has seen fewer than `WARM_UP_IMAGES` images, every box is pulled a little to its anchor.
3. Every truth is trained by one anchor of the cell of its centre: the one nearest in size (`bias_match`), or the one
   whose predicted size is. Of truths that meet there the last one counts.

Source: AlexeyAB's Darknet, `src/region_layer.c:forward_region_layer`. pjreddie's newest program differs: it leaves out
the slope of the sigmoid and weighs boxes by 2 - w * h. Differs from the source: truths on the right or lower border
belong to the last cell, and truths without width or height are not trained (there they go to the first cell of the
first image).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.detect.assign import Truths, along_classes, is_spared, read_truths
from prn_jax.detect.boxes import giou_cxcywh, iou_cxcywh, pairwise
from prn_jax.detect.head_metrics import HeadMetrics
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.formats.darknet_training import RegionTraining
from prn_jax.graph.head import Cells
from prn_jax.kinds.region import Region

WARM_UP_IMAGES, WARM_UP_SCALE = 12_800, 0.01
CLASSFIX = (-1, 0, 1, 2)
_OBJECTNESS, _FIRST_CLASS = 4, 5


class _Chosen(NamedTuple):
  """Where each truth of one image is trained, each (t,).

  Attributes:
    rows: int32, row of the flat (h * w * a) locations.
    is_used: bool, the truth counts.
    is_last: bool, and no later one takes its place.
  """

  rows: jax.Array
  is_used: jax.Array
  is_last: jax.Array


def check_region(head: Region, settings: RegionTraining) -> None:
  """Refuses heads and settings that cannot be trained.

  Raises:
    OutOfScopeError: a class hierarchy, or masks. PrnError: a setting without a meaning.
  """
  where = f"layer '{head.name}' (region)"
  if head.tree or settings.map:
    key = f"tree={head.tree}" if head.tree else f"map={settings.map}"
    raise OutOfScopeError(f"{where} has a class hierarchy ({key}), as yolo9000 has; such heads cannot be trained.")
  if head.coords != 4:
    raise OutOfScopeError(f"{where} has coords={head.coords}; only heads with coords=4 can be trained.")
  if settings.classfix not in CLASSFIX:
    raise PrnError(f"{where}: classfix={settings.classfix}; expected one of {', '.join(map(str, CLASSFIX))}.")


def region_deltas(
  output: jax.Array,
  truth: jax.Array,
  head: Region,
  settings: RegionTraining,
  *,
  images_seen: jax.Array | int | None = None,
  mask: jax.Array | None = None,
  annotated: jax.Array | None = None,
) -> tuple[jax.Array, HeadMetrics]:
  """Darknet's deltas of a region head.

  Args:
    output: (n, h, w, channels) outputs as `Network` returns them: objectness and classes activated, boxes raw.
    truth: (n, t, 5 or more): centre x, y, width, height relative to the network input, class, ... Class -2 marks
      regions in which nothing is learned.
    head: the layer.
    settings: its loss settings.
    images_seen: images that the network has seen, these included; None: enough, the warm-up is over.
    mask: (n, t) bool, the rows that hold a truth; without it a list ends at the first x == 0.
    annotated: see `darknet_deltas`. A softmax divides its probability among the annotated classes and the true one.

  Returns:
    (n, h, w, channels) float32 deltas, that is minus the gradient with respect to the head's input; and the metrics,
    with Darknet's cost, the sum of the squared deltas.

  Raises:
    OutOfScopeError, PrnError: see `check_region`.
  """
  check_region(head, settings)
  n, height, width, channels = output.shape
  x = output.astype(jnp.float32).reshape(n, height, width, -1, head.entries)
  cells = Cells.all((width, height), (1, 1))  # sizes are in cells: those of the network do not matter
  warm_up = WARM_UP_SCALE * (jnp.asarray(WARM_UP_IMAGES if images_seen is None else images_seen) < WARM_UP_IMAGES)

  def one_image(
    x: jax.Array, rows: jax.Array, mask: jax.Array | None, annotated: jax.Array | None
  ) -> tuple[jax.Array, HeadMetrics]:
    truths = read_truths(rows, head.classes, mask, annotated)
    return _image_deltas(x, truths, head, settings, warm_up, cells)

  deltas, sums = jax.vmap(one_image)(x, truth, mask, annotated)
  metrics = jax.tree.map(lambda v: jnp.sum(v, 0), sums)
  return deltas.reshape(n, height, width, channels), metrics._replace(cost=jnp.sum(deltas**2))


def _image_deltas(
  x: jax.Array, truths: Truths, head: Region, settings: RegionTraining, warm_up: jax.Array, cells: Cells
) -> tuple[jax.Array, HeadMetrics]:
  """(h, w, a, e) outputs -> deltas of the same shape, and sums for the metrics; the cost is left 0."""
  boxes = head.decode(x, cells)
  deltas = _background(x, boxes, truths, head, settings, warm_up).reshape(-1, head.entries)

  chosen = _choose(boxes, truths, head, settings)
  outputs, own = x.reshape(-1, head.entries)[chosen.rows], boxes.reshape(-1, 4)[chosen.rows]
  iou = jnp.where(jnp.isnan(found := iou_cxcywh(own, truths.boxes_cxcywh_rel)), 0, found)
  targets = _targets(truths.boxes_cxcywh_rel, chosen.rows, head, cells)
  objectness = outputs[:, _OBJECTNESS]
  wanted = iou if settings.rescore else jnp.ones_like(iou)
  trained = jnp.concatenate(
    [
      settings.coord_scale * _box_errors(targets, outputs[:, :4]),
      (settings.object_scale * (wanted - objectness) * _slope(objectness))[:, None],
      _class_deltas(outputs[:, _FIRST_CLASS:], truths.classes, truths, head, settings),
    ],
    -1,
  )
  deltas = deltas.at[jnp.where(chosen.is_last, chosen.rows, len(deltas))].set(trained, mode="drop")

  def over_truths(values: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(chosen.is_used, values, 0))

  giou = giou_cxcywh(own, truths.boxes_cxcywh_rel)
  true_class = jnp.take_along_axis(outputs[:, _FIRST_CLASS:], truths.classes[:, None], 1)[:, 0]
  sums = HeadMetrics(
    cost=jnp.zeros((), jnp.float32),
    num_assigned=over_truths(jnp.ones_like(iou)),
    iou=over_truths(iou),
    giou=over_truths(jnp.where(jnp.isnan(giou), 0, giou)),
    objectness=over_truths(objectness),
    true_class=over_truths(true_class),
    recall50=over_truths((iou > 0.5).astype(jnp.float32)),
    recall75=over_truths((iou > 0.75).astype(jnp.float32)),
    any_objectness=jnp.sum(x[..., _OBJECTNESS]),
    num_locations=jnp.float32(x[..., 0].size),
  )
  return deltas.reshape(x.shape), sums


def _background(
  x: jax.Array, boxes: jax.Array, truths: Truths, head: Region, settings: RegionTraining, warm_up: jax.Array
) -> jax.Array:
  """Every location, before the truths are given out: (h, w, a, e) deltas."""
  iou = pairwise(iou_cxcywh, boxes.reshape(-1, 4), truths.boxes_cxcywh_rel)
  iou = jnp.where(truths.is_used[None] & (iou > 0), iou, 0)  # NaN of an infinite box is no overlap
  best, nearest = (v.reshape(x.shape[:3]) for v in (jnp.max(iou, 1, initial=0.0), jnp.argmax(iou, 1)))
  is_near = best > settings.thresh
  objectness, classes = x[..., _OBJECTNESS], jnp.zeros_like(x[..., _FIRST_CLASS:])
  wanted = best - objectness if settings.classfix == -1 else jnp.where(is_near, 0, -objectness)
  if settings.classfix > 0:
    weight = objectness[..., None] if settings.classfix == 2 else 1.0
    near = _class_deltas(x[..., _FIRST_CLASS:], truths.classes[nearest], truths, head, settings)
    classes = jnp.where(is_near[..., None], weight * near, classes)
  wanted = jnp.where(is_spared(boxes, x[..., _FIRST_CLASS:], truths), jnp.maximum(wanted, 0), wanted)
  middle = jnp.zeros_like(x[..., :4]).at[..., :2].set(0.5)  # of the cell, with the size of the anchor
  box = warm_up * _box_errors(middle, x[..., :4])
  background = (settings.noobject_scale * wanted * _slope(objectness))[..., None]
  return jnp.concatenate([box, background, classes], -1)


def _choose(boxes: jax.Array, truths: Truths, head: Region, settings: RegionTraining) -> _Chosen:
  """Cell and anchor of every truth; `boxes` is (h, w, a, 4)."""
  height, width, anchors, _ = boxes.shape
  limit = np.asarray([(width, height)], np.int32)
  sizes = truths.boxes_cxcywh_rel[:, 2:]
  cell = jnp.clip((truths.boxes_cxcywh_rel[:, :2] * limit.astype(np.float32)).astype(jnp.int32), 0, limit - 1)
  if settings.bias_match:
    own = jnp.asarray(np.asarray(head.anchors, np.float32)[None] / limit[None].astype(np.float32))
  else:
    own = boxes[cell[:, 1], cell[:, 0], :, 2:]
  iou = iou_cxcywh(*(jnp.concatenate([jnp.zeros_like(s), s], -1) for s in (own, sizes[:, None])))
  rows = (cell[:, 1] * width + cell[:, 0]) * anchors + jnp.argmax(jnp.where(iou > 0, iou, 0), 1).astype(jnp.int32)
  is_used = truths.is_used & (sizes > 0).all(-1)
  is_later = jnp.triu(rows[:, None] == rows[None], 1) & is_used[None]
  return _Chosen(rows, is_used, is_used & ~is_later.any(1))


def _targets(truths: jax.Array, rows: jax.Array, head: Region, cells: Cells) -> jax.Array:
  """(t, 4) what sigmoid(x), sigmoid(y), w and h should be for cxcywh truths at flat locations."""
  (width, _), anchors = cells.grid, np.asarray(head.anchors, np.float32)
  cell, anchor = rows // len(anchors), rows % len(anchors)
  own = dataclasses.replace(cells, xy=jnp.stack([cell % width, cell // width], -1))
  return head.offsets(truths, own, jnp.asarray(anchors)[anchor])


def _box_errors(targets: jax.Array, raw: jax.Array) -> jax.Array:
  """Minus the gradient of half the squared error; (..., 4) each."""
  xy = jax.nn.sigmoid(raw[..., :2])
  return jnp.concatenate([(targets[..., :2] - xy) * _slope(xy), targets[..., 2:] - raw[..., 2:]], -1)


def _class_deltas(
  p: jax.Array, classes: jax.Array, truths: Truths, head: Region, settings: RegionTraining
) -> jax.Array:
  """(..., classes) deltas of outputs `p` whose true class is `classes` (...)."""
  is_class = classes[..., None] == np.arange(head.classes).reshape((1,) * classes.ndim + (-1,))
  if truths.is_annotated is not None:
    is_known = along_classes(truths.is_annotated, is_class) | is_class
    among = jnp.where(is_known, p, 0)
    if head.softmax:
      among = among / jnp.maximum(jnp.sum(among, -1, keepdims=True), 1e-15)
    p = jnp.where(is_known, among, 0)
  deltas = settings.class_scale * (is_class - p)
  if not settings.focal_loss:
    return deltas
  pt = jnp.sum(jnp.where(is_class, p, 0), -1, keepdims=True) + 1e-15
  return deltas * (-0.5 * (1 - pt) * (2 * pt * jnp.log(pt) + pt - 1))


def _slope(p: jax.Array) -> jax.Array:
  """Of the sigmoid, from its value."""
  return p * (1 - p)
