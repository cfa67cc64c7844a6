"""Matching detections to truths and computing average precision, with every rule of a protocol as a setting.

COCO, Pascal VOC and Darknet differ in few places; `Rules` names each of them, so that a protocol is one value
(`COCO`, `VOC`, `DARKNET` ...), and the difference between two protocols is the list of fields that differ.
COCO's official figures come from the official libraries (`coco.py`); the tests hold this file equal to them.
"""

from __future__ import annotations

import dataclasses
import itertools
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.overlap import Pixels, pair_overlap
from prn_jax.detect.metrics.regions import best_share


class Matching(StrEnum):
  """Which truth does a detection get?"""

  BEST_FREE = "best free truth"  # COCO: the best that no better-scored detection has; ignored ones last
  BEST = "best truth"  # VOC: the best of all; if that is taken, the detection is wrong
  BEST_COUNTED = "best counted truth"  # Darknet: as VOC, but ignored truths only where no other fits


class Special(StrEnum):
  """What are crowd regions, or difficult objects, good for?"""

  REGION = "region"  # COCO's crowd: detections inside it (intersection over their own area) are not counted
  IGNORE = "ignore"  # VOC's difficult: a detection of it is neither right nor wrong
  COUNT = "count"  # an object like any other
  DROP = "drop"  # not there: a detection of it is wrong


class Interpolation(StrEnum):
  """How a curve of precision over recall becomes one number."""

  COCO_101 = "101 points (COCO)"
  DARKNET_101 = "101 points (Darknet)"
  VOC_11 = "11 points (VOC2007)"
  DARKNET_11 = "11 points (Darknet)"
  AREA = "area"


class Regions(StrEnum):
  """What are ignored regions, in which no class is annotated, good for?"""

  NOT_WRONG = "region"  # a detection inside (intersection over its own area) is not wrong; COCO's crowd of every class
  UNKNOWN = "unknown"  # not there: a detection inside is wrong


class AbsentClass(StrEnum):
  """What a class without truths contributes to the mean."""

  SKIP = "skipped"
  ZERO = "zero"


COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclasses.dataclass(frozen=True)
class Rules:
  """A protocol. `max_detections` is per image and class; `score_threshold` keeps scores above it; `round_px` rounds
  boxes to multiples; the mean runs over all IoU thresholds and classes."""

  iou_thresholds: tuple[float, ...] = (0.5,)
  is_iou_strict: bool = False
  matching: Matching = Matching.BEST_FREE
  interpolation: Interpolation = Interpolation.COCO_101
  crowd: Special = Special.REGION
  difficult: Special = Special.COUNT
  regions: Regions = Regions.NOT_WRONG
  absent_class: AbsentClass = AbsentClass.SKIP
  max_detections: int | None = 100
  pixels: Pixels = Pixels.CONTINUOUS
  score_threshold: float | None = None
  round_px: float | None = None
  is_clipped: bool = False


COCO = Rules(iou_thresholds=COCO_IOUS)
COCO50 = Rules()
VOC = Rules(
  matching=Matching.BEST,
  interpolation=Interpolation.AREA,
  crowd=Special.IGNORE,
  difficult=Special.IGNORE,
  max_detections=None,
)
VOC07 = dataclasses.replace(VOC, interpolation=Interpolation.VOC_11)
# Label files hold neither crowd regions nor ignored ones, so Darknet never sees them.
DARKNET = Rules(
  is_iou_strict=True,
  matching=Matching.BEST_COUNTED,
  interpolation=Interpolation.AREA,
  crowd=Special.DROP,
  difficult=Special.IGNORE,
  regions=Regions.UNKNOWN,
  absent_class=AbsentClass.ZERO,
  max_detections=None,
  score_threshold=0.0,
)


class Pairs(NamedTuple):
  """Detections and truths of the same image and class that overlap; sorted by detection, then truth."""

  det: NDArray[np.int64]
  truth: NDArray[np.int64]
  iou: NDArray[np.float64]


class Matches(NamedTuple):
  """Per detection: 1 right, 0 wrong, -1 not counted; its truth, or -1; and the overlap with it."""

  status: NDArray[np.int8]
  truth: NDArray[np.int64]
  iou: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """One class at one IoU threshold, after each detection by falling score.

  Attributes:
    scores: (n,) falling.
    is_right: (n,) bool.
    num_truths: objects to find.
  """

  scores: NDArray[np.float64]
  is_right: NDArray[np.bool_]
  num_truths: int

  @cached_property
  def right(self) -> NDArray[np.int64]:
    """(n,) number of right detections so far."""
    return np.cumsum(self.is_right, dtype=np.int64)

  @cached_property
  def recall(self) -> NDArray[np.float64]:
    """(n,) share of the objects found; NaN without objects."""
    return self.right / self.num_truths if self.num_truths else np.full(len(self.scores), np.nan)

  @cached_property
  def precision(self) -> NDArray[np.float64]:
    """(n,) share of the detections that are right."""
    return self.right / np.arange(1, len(self.scores) + 1)

  @cached_property
  def envelope(self) -> NDArray[np.float64]:
    """(n,) best precision at this recall or more."""
    return np.maximum.accumulate(self.precision[::-1])[::-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
  """The result under some rules.

  Attributes:
    rules: the protocol.
    ap: (iou thresholds, classes) float64 in [0, 1]; NaN for a class without truths.
    curves: per class, at the first IoU threshold.
  """

  rules: Rules
  ap: NDArray[np.float64]
  curves: tuple[Curve, ...]

  @property
  def mean(self) -> float:
    """The protocol's one figure; NaN if no class has truths."""
    if self.rules.absent_class is AbsentClass.ZERO:
      return float(np.nan_to_num(self.ap).mean())
    present = self.ap[~np.isnan(self.ap)]
    return float(present.mean()) if len(present) else float("nan")


def score(data: EvalData, rules: Rules) -> Score:
  """Scores detections under the rules."""
  prepared = prepare(data, rules)
  pairs = find_pairs(prepared, rules)
  order = np.argsort(-prepared.det_scores, kind="stable")
  truth_classes = prepared.truth_classes[~is_ignored(prepared, rules)]
  num_truths = np.bincount(truth_classes, minlength=data.num_classes)
  ap = np.full((len(rules.iou_thresholds), data.num_classes), np.nan)
  first: list[Curve] = []
  for row, threshold in enumerate(rules.iou_thresholds):
    matches = match(prepared, rules, threshold, pairs)
    curves = curves_of(prepared, matches, order, num_truths)
    ap[row] = [average_precision(curve, rules.interpolation) for curve in curves]
    first = first or curves
  return Score(rules, ap, tuple(first))


def prepare(data: EvalData, rules: Rules) -> EvalData:
  """The data as the rules see them: what they drop is gone, boxes are rounded and clipped."""
  if rules.is_clipped or rules.round_px is not None:
    data = dataclasses.replace(data, det_boxes_xywh_px=_changed_boxes(data, rules))
  dropped = np.zeros(len(data.truth_classes), np.bool_)
  for rule, mask in ((rules.crowd, data.truth_is_crowd), (rules.difficult, data.truth_is_difficult)):
    if rule is Special.DROP:
      dropped |= mask
  if dropped.any():
    data = data.with_truths(~dropped)
  if rules.score_threshold is not None:
    data = data.with_detections(data.det_scores > rules.score_threshold)
  if rules.max_detections is not None:
    data = data.with_detections(_ranks(data) < rules.max_detections)
  return data


def _changed_boxes(data: EvalData, rules: Rules) -> NDArray[np.float64]:
  """(d, 4) detected boxes as corner and size, after clipping and rounding of their corners."""
  corners = data.det_boxes_xyxy_px
  if rules.is_clipped:
    limit = np.nan_to_num(np.tile(data.image_sizes, 2), nan=np.inf)[data.det_image]
    corners = np.clip(corners, 0, limit)
  if rules.round_px is not None:
    corners = np.round(corners / rules.round_px) * rules.round_px
  return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def is_ignored(data: EvalData, rules: Rules) -> NDArray[np.bool_]:
  """(t,) truths that nobody must find."""
  ignored = np.zeros(len(data.truth_classes), np.bool_)
  for rule, mask in ((rules.crowd, data.truth_is_crowd), (rules.difficult, data.truth_is_difficult)):
    if rule in (Special.REGION, Special.IGNORE):
      ignored |= mask
  return ignored


def is_region(data: EvalData, rules: Rules) -> NDArray[np.bool_]:
  """(t,) truths whose overlap is measured against the detection's own area."""
  region = data.truth_is_crowd & (rules.crowd is Special.REGION)
  return region | (data.truth_is_difficult & (rules.difficult is Special.REGION))


def _groups(data: EvalData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
  """A number per image and class, for detections and truths."""
  detections = data.det_image * data.num_classes + data.det_classes
  return detections, data.truth_image * data.num_classes + data.truth_classes


def _ranks(data: EvalData) -> NDArray[np.int64]:
  """(d,) place of every detection by falling score within its image and class, from 0; ties in the given order."""
  group, _ = _groups(data)
  order = np.lexsort((-data.det_scores, group))
  sorted_group = group[order]
  ranks = np.empty(len(order), np.int64)
  ranks[order] = np.arange(len(order)) - np.searchsorted(sorted_group, sorted_group)
  return ranks


def find_pairs(data: EvalData, rules: Rules) -> Pairs:
  """All overlapping pairs of the same image and class."""
  group, truth_group = _groups(data)
  order = np.argsort(truth_group, kind="stable")
  sorted_truths = truth_group[order]
  start = np.searchsorted(sorted_truths, group, side="left")
  count = np.searchsorted(sorted_truths, group, side="right") - start
  det = np.repeat(np.arange(len(group)), count)
  offset = np.arange(len(det)) - np.repeat(np.cumsum(count) - count, count)
  truth = order[np.repeat(start, count) + offset]
  iou = pair_overlap(
    data.det_boxes_xywh_px[det], data.truth_boxes_xywh_px[truth], is_region(data, rules)[truth], rules.pixels
  )
  touching = iou > 0
  return Pairs(det[touching], truth[touching], iou[touching])


def match(data: EvalData, rules: Rules, threshold: float, pairs: Pairs) -> Matches:
  """Which detections are right at one IoU threshold.

  Args:
    data: the columns that `prepare` gives.
    rules: the protocol.
    threshold: least IoU (or, if strict, one that must be exceeded).
    pairs: the pairs of the same data and rules.
  """
  keep = _suffices(pairs.iou, rules, threshold)
  pairs = Pairs(pairs.det[keep], pairs.truth[keep], pairs.iou[keep])
  ignored = is_ignored(data, rules)
  if rules.matching is Matching.BEST_FREE:
    chosen = _best_free(data, pairs, ignored)
  else:
    chosen = _best(pairs, ignored, is_counted_first=rules.matching is Matching.BEST_COUNTED)
  det, truth, iou = (column[chosen] for column in pairs)
  matches = Matches(
    np.zeros(data.num_detections, np.int8), np.full(data.num_detections, -1), np.zeros(data.num_detections)
  )
  matches.truth[det], matches.iou[det] = truth, iou
  matches.status[det[ignored[truth]]] = -1
  # Of several detections of one truth, the one with the highest score is right (the first, where scores are equal).
  det, truth = det[~ignored[truth]], truth[~ignored[truth]]
  by_score = np.lexsort((det, -data.det_scores[det]))
  _, first = np.unique(truth[by_score], return_index=True)
  matches.status[det[by_score[first]]] = 1
  if rules.regions is Regions.NOT_WRONG and len(data.region_image):
    is_inside = _suffices(best_share(data, rules.pixels), rules, threshold)
    matches.status[is_inside & (matches.status == 0)] = -1
  return matches


def _suffices(overlap: NDArray[np.float64], rules: Rules, threshold: float) -> NDArray[np.bool_]:
  # COCO lowers the threshold by a hair so that an overlap of exactly 1 counts at threshold 1.
  return overlap > threshold if rules.is_iou_strict else overlap >= min(threshold, 1 - 1e-10)


def _best(pairs: Pairs, ignored: NDArray[np.bool_], is_counted_first: bool) -> NDArray[np.int64]:
  """Positions of the pairs with the highest overlap of each detection; the first truth, where overlaps are equal."""
  later = ignored[pairs.truth] & is_counted_first
  order = np.lexsort((pairs.truth, -pairs.iou, later, pairs.det))
  _, first = np.unique(pairs.det[order], return_index=True)
  return order[first]


def _best_free(data: EvalData, pairs: Pairs, ignored: NDArray[np.bool_]) -> NDArray[np.int64]:
  """Positions of the chosen pairs by COCO's rule (`cocoeval.py:evaluateImg`), detections by falling score.

  A counted truth goes to one detection only; ignored truths take any number, but only what fits no counted one.
  """
  is_ignored_pair = ignored[pairs.truth]
  order = np.lexsort((pairs.truth, is_ignored_pair, pairs.det, -data.det_scores[pairs.det]))
  rows = zip(
    order.tolist(),
    pairs.det[order].tolist(),
    pairs.truth[order].tolist(),
    pairs.iou[order].tolist(),
    is_ignored_pair[order].tolist(),
    strict=True,
  )
  taken = bytearray(len(ignored))
  chosen: list[int] = []
  current, best, best_iou, best_truth, is_best_ignored = -1, -1, 0.0, -1, False
  for position, det, truth, iou, is_pair_ignored in rows:
    if det != current:
      if best >= 0:
        chosen.append(best)
        taken[best_truth] = not is_best_ignored
      current, best, best_iou, is_best_ignored = det, -1, 0.0, False
    if taken[truth] or (best >= 0 and is_pair_ignored and not is_best_ignored) or iou < best_iou:
      continue
    best, best_iou, best_truth, is_best_ignored = position, iou, truth, is_pair_ignored
  if best >= 0:
    chosen.append(best)
  return np.array(chosen, np.int64)


def curves_of(data: EvalData, matches: Matches, order: NDArray[np.int64], num_truths: NDArray[np.int64]) -> list[Curve]:
  """One curve per class; `order` sorts the detections by falling score, `num_truths` are those of each class."""
  counted = order[matches.status[order] >= 0]
  by_class = counted[np.argsort(data.det_classes[counted], kind="stable")]
  ends = np.searchsorted(data.det_classes[by_class], np.arange(data.num_classes + 1))
  rows = [by_class[start:end] for start, end in itertools.pairwise(ends)]
  return [
    Curve(data.det_scores[row], matches.status[row] == 1, int(number))
    for row, number in zip(rows, num_truths, strict=True)
  ]


_RECALLS = {
  # VOC's tools count up in steps of .1, whose third, sixth and seventh multiple lie a hair above .3, .6 and .7: a recall
  # of exactly 3/10 does not reach them. Darknet divides, and it does.
  Interpolation.VOC_11: np.arange(11) * 0.1,
  Interpolation.DARKNET_11: np.arange(11) / 10,
  Interpolation.DARKNET_101: np.arange(101) / 100,
}


def average_precision(curve: Curve, interpolation: Interpolation) -> float:
  """One number for a curve, in [0, 1]; NaN without truths, 0 without detections."""
  if not curve.num_truths:
    return float("nan")
  if not len(curve.scores):
    return 0.0
  if interpolation is Interpolation.COCO_101:
    # COCO adds the smallest step of a float to the denominator; it shows in the 16th digit.
    precision = curve.right / (np.arange(1, len(curve.scores) + 1) + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(curve.recall, np.linspace(0, 1, 101), side="left")].mean())
  if interpolation in _RECALLS:
    recalls = _RECALLS[interpolation]
    return float(np.append(curve.envelope, 0.0)[np.searchsorted(curve.recall, recalls, side="left")].mean())
  # Darknet's loop weighs a step of recall with the precision before the step, too, but a right detection never lowers
  # the precision, so that its area is VOC's.
  return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.envelope))
