"""Anchors: sizes of boxes that stand for all boxes of a data set, by k-means.

The meaning is that of Darknet's `detector calc_anchors`: only width and height count (boxes share a corner), in pixels
of the network's input, sorted by area; what is good is the mean over all boxes of the IoU with the best anchor.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.image_sizes import image_size
from prn_jax.data_pipelines.images import Resize
from prn_jax.data_pipelines.records import DataError, Dataset

Floats = NDArray[np.float64]

THRESHOLDS = (0.25, 0.5, 0.75)
MAX_SAMPLE = 20_000  # boxes that the restarts look at; the best of them is refined on all
MAX_ROUNDS = 300
GENERATIONS, CHANGE, CHANGED_SHARE = 1000, 0.1, 0.9  # of the evolution: rounds, scale of a change, sides that change
EVOLVED_IOU = 0.2  # boxes that no anchor overlaps more do not count
_DECIMALS = 1  # of a pixel, in what is written; all figures are those of the rounded anchors


@dataclass(frozen=True)
class Anchors:
  """Result of `fit_anchors`.

  Attributes:
    sizes_wh_px: (k, 2) float64 width and height in pixels of the network's input, by ascending area.
    counts: (k,) number of boxes for which each is the best.
    mean_iou: mean over the boxes of the IoU with their best anchor.
    recall: share of the boxes whose best IoU reaches a threshold.
    num_boxes: boxes looked at.
  """

  sizes_wh_px: Floats
  counts: NDArray[np.int64]
  mean_iou: float
  recall: dict[float, float]
  num_boxes: int

  def in_cells(self, cell_px: int) -> np.ndarray:
    """(num, 2) width and height in cells of so many pixels, as [region] heads count them; four decimals."""
    return np.round(self.sizes_wh_px.astype(np.float64) / cell_px, 4)

  def cfg_line(self, cell_px: int | None = None) -> str:
    """The line of a Darknet cfg: pixels for [yolo], cells of so many pixels for [region]."""
    sizes = self.sizes_wh_px if cell_px is None else self.in_cells(cell_px)
    return "anchors = " + ",  ".join(f"{w:g},{h:g}" for w, h in sizes)

  def to_json(self) -> dict[str, Any]:
    return {
      "anchors": self.sizes_wh_px.tolist(),
      "counts": self.counts.tolist(),
      "mean_iou": self.mean_iou,
      "recall": {f"{threshold:g}": share for threshold, share in self.recall.items()},
      "num_boxes": self.num_boxes,
    }


def box_sizes(dataset: Dataset, size: tuple[int, int], resize: Resize | str = Resize.STRETCH) -> Floats:
  """Width and height of every box in pixels of the network's input.

  Args:
    dataset: any; crowd regions, which are not trained on, are left out.
    size: (width, height) of the network's input in pixels.
    resize: whether images are stretched to it, or keep their aspect.

  Returns:
    (n, 2) float64.

  Raises:
    DataError: there are no boxes.
  """
  found = []
  for index in range(len(dataset)):
    record = dataset[index]
    boxes = record.boxes_xyxy_px[~record.is_crowd].astype(np.float64)
    if not len(boxes):
      continue
    image = (record.width, record.height) if record.width and record.height else image_size(record.image)
    scale = np.array(size, np.float64) / image
    found.append((boxes[:, 2:] - boxes[:, :2]) * (scale.min() if resize == Resize.LETTERBOX else scale))
  if not found:
    raise DataError(f"the {len(dataset):,} images of the data set have no boxes; anchors are for detection")
  return np.concatenate(found)


class Metric(StrEnum):
  """The distance by which boxes are clustered, see `fit_anchors`."""

  IOU = "iou"
  WHITENED_L2 = "whitened-l2"


def fit_anchors(
  sizes_wh_px: Floats, num: int, *, seed: int = 0, num_restarts: int = 10, metric: Metric | str = Metric.IOU
) -> Anchors:
  """Clusters sizes of boxes.

  By IoU: k-means++ starts, then every box goes to the anchor with the highest IoU, and every anchor to the median of its
  boxes' widths and heights (the mean, which Darknet takes, gave 0.001 to 0.013 less mean IoU on all of five data sets);
  the restart with the highest mean IoU wins. By the whitened distance: k-means on width and height, each divided by its
  standard deviation, and then `GENERATIONS` random changes of all anchors at once, of which those stay that raise the
  mean over the boxes of the best IoU, where it is above `EVOLVED_IOU`: the way of YOLOv3 in PyTorch (2020).

  No box has zero width or height, so no anchor has. The result is a function of its arguments alone.

  Args:
    sizes_wh_px: (n, 2) positive widths and heights.
    num: number of anchors.
    seed: the seed of the starts, and of the changes.
    num_restarts: starts that are tried.
    metric: "iou" or "whitened-l2".

  Raises:
    DataError: there are fewer different sizes than anchors.
  """
  sizes = np.asarray(sizes_wh_px, np.float64)
  num_different = len(np.unique(sizes.round(_DECIMALS), axis=0))
  if num < 1 or num > num_different:
    raise DataError(f"{num} anchors cannot be found: the {len(sizes):,} boxes have {num_different} different sizes")
  rng = np.random.default_rng(seed)
  sample = sizes if len(sizes) <= MAX_SAMPLE else sizes[rng.choice(len(sizes), MAX_SAMPLE, replace=False)]
  if metric == Metric.WHITENED_L2:
    anchors = _evolve(sample, _whitened_means(sample, num, num_restarts, rng), rng)
  else:
    candidates = [_improve(sample, _start(sample, num, rng)) for _ in range(num_restarts)]
    best = max(candidates, key=lambda anchors: iou_wh(sample, anchors).max(1).mean())
    anchors = _improve(sizes, best) if len(sample) < len(sizes) else best
  anchors = np.maximum(anchors.round(_DECIMALS), 10.0**-_DECIMALS)
  return score_anchors(sizes, anchors[np.argsort(anchors.prod(1), kind="stable")])


def score_anchors(sizes_wh_px: Floats, anchors_wh_px: Floats) -> Anchors:
  """How well given anchors stand for the boxes; both (n, 2) widths and heights in the same pixels."""
  iou = iou_wh(sizes_wh_px, anchors_wh_px)
  best = iou.max(1)
  return Anchors(
    sizes_wh_px=anchors_wh_px,
    counts=np.bincount(iou.argmax(1), minlength=len(anchors_wh_px)),
    mean_iou=float(best.mean()),
    recall={threshold: float((best >= threshold).mean()) for threshold in THRESHOLDS},
    num_boxes=len(sizes_wh_px),
  )


def iou_wh(a_wh: Floats, b_wh: Floats) -> Floats:
  """IoU of boxes that share a corner: (n, 2) and (m, 2) widths and heights to (n, m)."""
  inter = np.minimum(a_wh[:, None, 0], b_wh[None, :, 0]) * np.minimum(a_wh[:, None, 1], b_wh[None, :, 1])
  union = a_wh.prod(1)[:, None] + b_wh.prod(1)[None, :] - inter
  return np.asarray(inter / union, np.float64)


def _start(sizes: Floats, num: int, rng: np.random.Generator) -> Floats:
  """k-means++: every next start is drawn with the squared distance to the nearest one as its weight."""
  chosen = sizes[rng.integers(len(sizes))][None]
  while len(chosen) < num:
    weight = (1 - iou_wh(sizes, chosen).max(1)) ** 2
    pick = rng.choice(len(sizes), p=weight / weight.sum())
    chosen = np.concatenate([chosen, sizes[pick][None]])
  return chosen


def _whitened_means(sizes: Floats, num: int, num_restarts: int, rng: np.random.Generator) -> Floats:
  """k-means on sizes divided by their standard deviations."""
  from scipy.cluster.vq import kmeans  # slow to import

  deviation = sizes.std(0)
  deviation[deviation == 0] = 1.0
  white = sizes / deviation
  starts = [white[rng.choice(len(white), num, replace=False)] for _ in range(num_restarts)]
  means = min((kmeans(white, start) for start in starts), key=operator.itemgetter(1))[0] * deviation
  if len(means) < num:  # scipy leaves out clusters that lost all their boxes
    means = np.concatenate([means, sizes[rng.choice(len(sizes), num - len(means), replace=False)]])
  return np.asarray(means, np.float64)


def _evolve(sizes: Floats, anchors: Floats, rng: np.random.Generator) -> Floats:
  """Random changes of all anchors at once, of which the better ones stay."""

  def fitness(anchors: Floats) -> float:
    best = iou_wh(sizes, anchors).max(1)
    return float(np.where(best > EVOLVED_IOU, best, 0).mean())

  best = fitness(anchors)
  for _ in range(GENERATIONS):
    changes = rng.standard_normal(anchors.shape) * rng.random() * (rng.random(anchors.shape) < CHANGED_SHARE)
    changed = anchors * np.clip(1 + CHANGE * changes, 0.3, 3)
    if (found := fitness(changed)) > best:
      anchors, best = changed, found
  return anchors


def _improve(sizes: Floats, anchors: Floats) -> Floats:
  """Lloyd's rounds until no box changes its anchor; the best anchors seen, for IoU may fall in a round."""
  best, best_iou, assigned = anchors, -1.0, None
  for _ in range(MAX_ROUNDS):
    iou = iou_wh(sizes, anchors)
    mean = float(iou.max(1).mean())
    if mean > best_iou:
      best, best_iou = anchors, mean
    nearest = iou.argmax(1)
    if assigned is not None and np.array_equal(nearest, assigned):
      break
    assigned = nearest
    groups = [sizes[nearest == k] for k in range(len(anchors))]
    # An anchor that lost all its boxes stays where it is.
    anchors = np.array([np.median(group, axis=0) if len(group) else anchors[k] for k, group in enumerate(groups)])
  return best
