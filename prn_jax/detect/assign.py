"""Which anchor of which cell is trained on which truth: Darknet's rules (docs/darknet.md e5, e7).

Everything is per image, with static shapes; `jax.vmap` adds the batch. Legend: h, w cells of the grid; a anchors of
the head; t truths; e entries of an anchor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS
from prn_jax.detect.boxes import ciou_cxcywh, diou_cxcywh, giou_cxcywh, intersection_cxcywh, iou_cxcywh, pairwise
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats.darknet_training import HeadTraining  # settings only: no file is read or written here
from prn_jax.graph.graph import Context
from prn_jax.graph.head import Cells, DetectionHead
from prn_jax.kinds.yolo import AnchorHead

OVERLAPS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "iou": iou_cxcywh,
  "giou": giou_cxcywh,
  "diou": diou_cxcywh,
  "ciou": ciou_cxcywh,
}
SIGMA_FLOOR, DENSITY_FLOOR = 0.3, 1e-9  # Gaussian heads: keep the density finite, and its logarithm
CLASS_THRESHOLD = 0.25  # a location may be ignored only if one of its classes is above this
REGION_SHARE = 0.5  # a prediction belongs to such regions if more than this of its box lies in one


class Rules(NamedTuple):
  """What is fixed for a head.

  Attributes:
    head: the layer.
    settings: its loss settings, as far as its kind knows them.
    cells: all of its grid.
  """

  head: AnchorHead
  settings: HeadTraining
  cells: Cells

  @property
  def is_gaussian(self) -> bool:
    """True if the head predicts deviations, too."""
    return self.head.layout.sigma.stop > 0


class Place(NamedTuple):
  """Where pairs of truth and anchor stand; leading axes as those of the outputs that they belong to.

  Attributes:
    cells: the cells of the pairs.
    truths_cxcywh_rel: (..., a or 1, 4).
    classes: (..., a or 1) int32.
  """

  cells: Cells
  truths_cxcywh_rel: jax.Array
  classes: jax.Array


class Truths(NamedTuple):
  """The truths of one image.

  Attributes:
    boxes_cxcywh_rel: (t, 4) float32, relative to the network input; unused rows are harmless boxes.
    classes: (t,) int32, 0 in unused rows.
    is_used: (t,) bool.
    ignored_cxcywh_rel: (t, 4) float32, the regions in which nothing is learned; the other rows have no size.
    is_annotated: (classes,) bool, False for classes of which the image may show objects without a truth; None: all are
      annotated.
  """

  boxes_cxcywh_rel: jax.Array
  classes: jax.Array
  is_used: jax.Array
  ignored_cxcywh_rel: jax.Array
  is_annotated: jax.Array | None = None


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


def activate(raw: jax.Array, head: DetectionHead) -> jax.Array:
  """The head's input (n, h, w, channels) -> float32 output as Darknet stores it, of the same shape."""
  return head.lower([raw.astype(jnp.float32)], Context())


def rules_of(head: AnchorHead, settings: HeadTraining, grid: tuple[int, int], net_size: tuple[int, int]) -> Rules:
  """The rules of a head on a grid (columns, rows), for a network input of width and height in pixels.

  Raises:
    PrnError: see `check_settings`.
  """
  check_settings(head, settings)
  rules = Rules(head, settings, Cells.all(grid, net_size))
  if rules.is_gaussian:  # Gaussian heads know none of these
    own = dataclasses.replace(settings, objectness_smooth=False, focal_loss=False, show_details=False)
    rules = rules._replace(settings=own)
  return rules


def check_settings(head: AnchorHead, settings: HeadTraining) -> None:
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


def class_multipliers(rules: Rules) -> np.ndarray:
  """(classes,) float32 weights: largest counter / counter, at most max_delta; ones without counters."""
  settings = rules.settings
  if not settings.counters_per_class:
    return np.ones(rules.head.classes, np.float32)
  counters = np.maximum(np.asarray(settings.counters_per_class, np.int64), 1).astype(np.float32)
  return np.minimum(counters.max() / counters, np.float32(settings.max_delta))


def read_truths(
  truth: jax.Array, num_classes: int, mask: jax.Array | None = None, annotated: jax.Array | None = None
) -> Truths:
  """Sorts out the rows that count.

  Args:
    truth: (t, 5 or more): centre x, y, width, height relative to the network input, class. Rows of class
      `IGNORED_CLASS` are regions in which nothing is learned.
    num_classes: rows of other classes are skipped, as in Darknet.
    mask: (t,) bool, the rows that hold a truth; without it the list ends at the first x == 0.
    annotated: (num_classes,), not 0 for the classes whose objects are all among the truths; None: all.
  """
  truth = truth.astype(jnp.float32)
  is_row = jnp.cumprod(truth[:, 0] != 0) > 0 if mask is None else mask.astype(bool)
  classes = truth[:, 4].astype(jnp.int32)
  is_used = is_row & (classes >= 0) & (classes < num_classes)
  harmless = np.array([[0.5, 0.5, 1.0, 1.0]], np.float32)  # unused rows must not bring infinities into unused results
  return Truths(
    boxes_cxcywh_rel=jnp.where(is_used[:, None], truth[:, :4], harmless),
    classes=jnp.where(is_used, classes, 0),
    is_used=is_used,
    ignored_cxcywh_rel=jnp.where((is_row & (classes == IGNORED_CLASS))[:, None], truth[:, :4], 0),
    is_annotated=None if annotated is None else annotated.astype(bool),
  )


def along_classes(flags: jax.Array, like: jax.Array) -> jax.Array:
  """(classes,) flags as an array of as many axes as `like`, whose last one are the classes."""
  return flags.reshape((1,) * (like.ndim - 1) + (-1,))


def is_spared(boxes_cxcywh_rel: jax.Array, classes: jax.Array, truths: Truths) -> jax.Array:
  """Which predictions are not taught to find nothing, because nobody has looked whether there is something.

  Those of which more than `REGION_SHARE` lies in an ignored region, as evaluations leave out such detections, and those
  whose likeliest class is not annotated in this image.

  Args:
    boxes_cxcywh_rel: (..., 4) predictions, relative to the network input.
    classes: (..., classes) their classes, activated.
    truths: the objects of the same image.

  Returns:
    (...) bool.
  """
  inside = pairwise(intersection_cxcywh, boxes_cxcywh_rel.reshape(-1, 4), truths.ignored_cxcywh_rel)
  largest = jnp.max(inside, 1, initial=0.0).reshape(boxes_cxcywh_rel.shape[:-1])
  spared = largest > REGION_SHARE * boxes_cxcywh_rel[..., 2] * boxes_cxcywh_rel[..., 3]
  return spared if truths.is_annotated is None else spared | ~truths.is_annotated[jnp.argmax(classes, -1)]


def find_overlaps(x: jax.Array, truths: Truths, rules: Rules) -> Overlaps:
  """Compares every prediction with every truth (pass 1).

  Args:
    x: (h, w, a, e) activated outputs.
    truths: the objects of the same image.
    rules: the loss settings of the head.
  """
  boxes = rules.head.decode(x, rules.cells)
  iou = pairwise(iou_cxcywh, boxes.reshape(-1, 4), truths.boxes_cxcywh_rel)
  # An infinite prediction gives NaN, which no comparison of Darknet's finds larger than 0.
  iou = jnp.where(truths.is_used[None] & (iou > 0), iou, 0)
  best = jnp.max(iou, 1, initial=0.0).reshape(x.shape[:-1])
  truth = jnp.argmax(iou, 1).astype(jnp.int32).reshape(x.shape[:-1])
  has_class = (x[..., rules.head.layout.first_class :] > CLASS_THRESHOLD).any(-1)
  return Overlaps(jnp.where(has_class, best, 0), best, truth)


def assign(truths: Truths, rules: Rules) -> Assignment:
  """Gives every truth to a cell and to anchors (pass 2).

  The cell is that of the centre, or of the corner that a Gaussian head predicts. The anchor is the one most similar
  in size among all anchors of the network, and with iou_thresh < 1 also each that is similar enough. A truth whose
  best anchor belongs to another head is not trained here, one on the right or lower border in the last cell (Darknet
  writes it to the next row).

  Args:
    truths: the objects of one image.
    rules: the loss settings of the head.
  """
  (head, settings, _), grid, boxes = rules, rules.cells.grid, truths.boxes_cxcywh_rel
  point = boxes[:, :2] + head.point_shift * boxes[:, 2:]
  limit = np.asarray(grid, np.int32)[None]
  cell = jnp.clip((point * limit.astype(np.float32)).astype(jnp.int32), 0, limit - 1)
  cells = cell[:, 1] * grid[0] + cell[:, 0]

  anchors = head.anchors_rel(rules.cells.net_size)
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
