"""Which anchor of which cell is trained on which truth: Darknet's rules (darknet.md e5, e7).

Everything is per image, with static shapes; `jax.vmap` adds the batch. Legend: h, w cells of the grid; a anchors of
the head; t truths; e entries of an anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.detect.boxes import ciou_cxcywh, diou_cxcywh, giou_cxcywh, iou_cxcywh, pairwise
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats.darknet_training import HeadTraining  # settings only: no file is read or written here
from prn_jax.graph.graph import Context
from prn_jax.kinds.gaussian_yolo import GaussianYolo
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import Yolo

Head = Yolo | GaussianYolo
OVERLAPS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "iou": iou_cxcywh,
  "giou": giou_cxcywh,
  "diou": diou_cxcywh,
  "ciou": ciou_cxcywh,
}
SIGMA_FLOOR, DENSITY_FLOOR = 0.3, 1e-9  # Gaussian heads: keep the density finite, and its logarithm
CLASS_THRESHOLD = 0.25  # a location may be ignored only if one of its classes is above this


class Entries(NamedTuple):
  """Where the values of an anchor stand on the last axis; sigma is empty but for Gaussian heads."""

  box: tuple[int, ...]
  sigma: tuple[int, ...]
  objectness: int
  first_class: int


class Truths(NamedTuple):
  """The truths of one image.

  Attributes:
    boxes_cxcywh_rel: (t, 4) float32, relative to the network input; unused rows are harmless boxes.
    classes: (t,) int32, 0 in unused rows.
    is_used: (t,) bool.
  """

  boxes_cxcywh_rel: jax.Array
  classes: jax.Array
  is_used: jax.Array


class Assignment(NamedTuple):
  """Where each truth of one image is trained.

  Attributes:
    cells: (t,) int32, row * w + column.
    is_assigned: (t, a) bool: these anchors of that cell.
    owners: (t,) int32, the first used truth of the same cell.
    ranks: (t,) int32, the number of earlier used truths of the same cell.
  """

  cells: jax.Array
  is_assigned: jax.Array
  owners: jax.Array
  ranks: jax.Array


class Overlaps(NamedTuple):
  """How the predictions of one image meet its truths, each (h, w, a).

  Attributes:
    match: largest IoU with a truth, 0 where no class is above 0.25.
    best: largest IoU with a truth.
    truth: int32, the first truth with that IoU.
  """

  match: jax.Array
  best: jax.Array
  truth: jax.Array


def head_entries(head: Head) -> Entries:
  """The layout of an anchor's values (darknet.md a14, a15)."""
  if isinstance(head, GaussianYolo):
    return Entries((0, 2, 4, 6), (1, 3, 5, 7), 8, 9)
  return Entries((0, 1, 2, 3), (), 4, 5)


def activate(raw: jax.Array, head: Head | Region) -> jax.Array:
  """The head's input (n, h, w, channels) -> float32 output as Darknet stores it, of the same shape."""
  return head.lower([raw.astype(jnp.float32)], Context())


def check_settings(head: Head, settings: HeadTraining) -> None:
  """Refuses settings without a meaning.

  Raises:
    PrnError: unknown kind of loss or overlap, or another number of counters than classes.
  """
  for key, known in (("iou_loss", ("mse", *OVERLAPS)), ("iou_thresh_kind", tuple(OVERLAPS))):
    value = getattr(settings, key)
    if value not in known:
      raise PrnError(
        f"layer '{head.name}' ({head.kind}): {key}={value}{did_you_mean(value, known)}; expected {', '.join(known)}."
      )
  counters = len(settings.counters_per_class)
  if counters not in (0, head.classes):
    raise PrnError(
      f"layer '{head.name}' ({head.kind}): counters_per_class has {counters} numbers, but there are {head.classes} "
      "classes. Give one number of objects for each class."
    )


def class_multipliers(head: Head, settings: HeadTraining) -> np.ndarray:
  """(classes,) float32 weights: largest counter / counter, at most max_delta; ones without counters."""
  if not settings.counters_per_class:
    return np.ones(head.classes, np.float32)
  counters = np.maximum(np.asarray(settings.counters_per_class, np.int64), 1).astype(np.float32)
  return np.minimum(counters.max() / counters, np.float32(settings.max_delta))


def read_truths(truth: jax.Array, num_classes: int, mask: jax.Array | None = None) -> Truths:
  """Sorts out the rows that count.

  Args:
    truth: (t, 5 or more): centre x, y, width, height relative to the network input, class.
    num_classes: rows of other classes are skipped, as in Darknet.
    mask: (t,) bool, the rows that hold a truth; without it the list ends at the first x == 0.
  """
  truth = truth.astype(jnp.float32)
  is_row = jnp.cumprod(truth[:, 0] != 0) > 0 if mask is None else mask.astype(bool)
  classes = truth[:, 4].astype(jnp.int32)
  is_used = is_row & (classes >= 0) & (classes < num_classes)
  harmless = np.array([[0.5, 0.5, 1.0, 1.0]], np.float32)  # unused rows must not bring infinities into unused results
  return Truths(jnp.where(is_used[:, None], truth[:, :4], harmless), jnp.where(is_used, classes, 0), is_used)


def anchors_rel(head: Head, net_size: tuple[int, int]) -> np.ndarray:
  """(all anchors, 2) float32 width and height relative to the network input."""
  return np.asarray(head.anchors, np.float32) / np.asarray(net_size, np.float32)


def predicted_boxes(
  x: jax.Array, cells_xy: jax.Array | np.ndarray, grid: tuple[int, int], head: Head, net_size: tuple[int, int]
) -> jax.Array:
  """Boxes of activated outputs (darknet.md c6).

  Args:
    x: (..., a, e) activated outputs of all anchors of the head.
    cells_xy: (..., 1, 2) column and row of each location; as many axes as `x`.
    grid: columns and rows of the grid.
    net_size: width and height of the network input in pixels.

  Returns:
    (..., a, 4) float32 cxcywh relative to the network input.
  """
  entries = head_entries(head)
  values = x[..., np.array(entries.box)]
  anchors, cells = _own_anchors(head, net_size, x.ndim), _on_last_axis(grid, x.ndim)
  xy = (cells_xy + values[..., :2]) / cells
  if isinstance(head, GaussianYolo):
    wh = jnp.exp(values[..., 2:]) * anchors
    xy = xy - point_shift(head) * wh
  else:
    wh = (4 * values[..., 2:] ** 2 if uses_new_coords(head) else jnp.exp(values[..., 2:])) * anchors
  return jnp.concatenate([xy, wh], -1)


def box_targets(
  truths: jax.Array, cells_xy: jax.Array, grid: tuple[int, int], head: Head, net_size: tuple[int, int]
) -> jax.Array:
  """What the box entries of the outputs should be: the inverse of `predicted_boxes`.

  Args:
    truths: (..., a or 1, 4) cxcywh relative to the network input.
    cells_xy, grid, net_size: as for `predicted_boxes`.

  Returns:
    (..., a, 4) float32; infinite for truths without size.
  """
  anchors, cells = _own_anchors(head, net_size, truths.ndim), _on_last_axis(grid, truths.ndim)
  xy = (truths[..., :2] + point_shift(head) * truths[..., 2:]) * cells - cells_xy
  ratio = truths[..., 2:] / anchors
  wh = jnp.sqrt(ratio / 4) if uses_new_coords(head) else jnp.log(ratio)
  return jnp.concatenate([jnp.broadcast_to(xy, wh.shape), wh], -1)


def point_shift(head: Head) -> float:
  """From the centre to the point that the head predicts, in box sizes."""
  point = head.yolo_point if isinstance(head, GaussianYolo) else "center"
  return {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}[point]


def uses_new_coords(head: Head) -> bool:
  """True for Scaled-YOLOv4's boxes: the head's input is probabilities, and sizes are squares."""
  return isinstance(head, Yolo) and head.new_coords


def _own_anchors(head: Head, net_size: tuple[int, int], ndim: int) -> np.ndarray:
  """(1, ..., a, 2) anchors of the mask with `ndim` axes."""
  return anchors_rel(head, net_size)[list(head.anchor_indices)].reshape(*(1,) * (ndim - 2), -1, 2)


def _on_last_axis(pair: tuple[int, int], ndim: int) -> np.ndarray:
  """(1, ..., 1, 2) float32 with `ndim` axes."""
  return np.asarray(pair, np.float32).reshape(*(1,) * (ndim - 1), 2)


def grid_cells(grid: tuple[int, int]) -> np.ndarray:
  """(h, w, 1, 2) float32 column and row of every cell."""
  return np.stack(np.meshgrid(np.arange(grid[0]), np.arange(grid[1])), -1).astype(np.float32)[:, :, None]


def find_overlaps(x: jax.Array, truths: Truths, head: Head, net_size: tuple[int, int]) -> Overlaps:
  """Compares every prediction with every truth (pass 1).

  Args:
    x: (h, w, a, e) activated outputs.
    truths: of the same image.
    head: the layer.
    net_size: width and height of the network input in pixels.
  """
  height, width, anchors, _ = x.shape
  boxes = predicted_boxes(x, grid_cells((width, height)), (width, height), head, net_size)
  iou = pairwise(iou_cxcywh, boxes.reshape(-1, 4), truths.boxes_cxcywh_rel)
  # An infinite prediction gives NaN, which no comparison of Darknet's finds larger than 0.
  iou = jnp.where(truths.is_used[None] & (iou > 0), iou, 0)
  shape = (height, width, anchors)
  best = jnp.max(iou, 1, initial=0.0).reshape(shape)
  truth = jnp.argmax(iou, 1).astype(jnp.int32).reshape(shape)
  has_class = (x[..., head_entries(head).first_class :] > CLASS_THRESHOLD).any(-1)
  return Overlaps(jnp.where(has_class, best, 0), best, truth)


def assign(
  truths: Truths, head: Head, settings: HeadTraining, grid: tuple[int, int], net_size: tuple[int, int]
) -> Assignment:
  """Gives every truth to a cell and to anchors (pass 2).

  The cell is that of the centre, or of the corner that a Gaussian head predicts. The anchor is the one most similar
  in size among all anchors of the network, and with iou_thresh < 1 also each that is similar enough. A truth whose
  best anchor belongs to another head is not trained here, one on the right or lower border in the last cell (Darknet
  writes it to the next row).

  Args:
    truths: of one image.
    head: the layer.
    settings: iou_thresh and iou_thresh_kind are used.
    grid: columns and rows.
    net_size: width and height of the network input in pixels.
  """
  boxes = truths.boxes_cxcywh_rel
  point = boxes[:, :2] + point_shift(head) * boxes[:, 2:]
  limit = np.asarray(grid, np.int32)[None]
  cell = jnp.clip((point * limit.astype(np.float32)).astype(jnp.int32), 0, limit - 1)
  cells = cell[:, 1] * grid[0] + cell[:, 0]

  anchors = anchors_rel(head, net_size)
  centred_anchors = jnp.asarray(np.concatenate([np.zeros_like(anchors), anchors], -1))[None]
  centred_truths = jnp.concatenate([jnp.zeros_like(boxes[:, 2:]), boxes[:, 2:]], -1)[:, None]
  best = jnp.argmax(iou_cxcywh(centred_anchors, centred_truths), 1)
  chosen = best[:, None] == np.arange(len(anchors))[None]
  if settings.iou_thresh < 1:
    chosen |= OVERLAPS[settings.iou_thresh_kind](centred_anchors, centred_truths) > settings.iou_thresh
  mask = head.anchor_indices
  is_first = np.array([anchor not in mask[:slot] for slot, anchor in enumerate(mask)])  # of a repeated anchor
  is_assigned = chosen[:, np.array(mask)] & is_first[None] & truths.is_used[:, None]

  is_same = (cells[:, None] == cells[None]) & truths.is_used[None]
  ranks = jnp.sum(jnp.tril(is_same, -1), 1, dtype=jnp.int32)
  return Assignment(cells, is_assigned, jnp.argmax(is_same, 1).astype(jnp.int32), ranks)
