"""Darknet's `detector map`: AP by area, 11 or 101 points, and its printed precision, recall, F1 and average IoU.

Source: AlexeyAB/darknet `src/detector.c:validate_detector_map`; what differs from VOC: the overlap must exceed the
threshold, classes without truths count as 0, and the printed figures follow the order of the boxes in memory: of
several detections of one object the first is right, even if it is below the confidence threshold itself (then none
counts as right). Detections of difficult objects leave the curve, but count as wrong in the printed figures.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.match import DARKNET, Curve, Interpolation, find_pairs, is_ignored, match, prepare, score

_INTERPOLATIONS = {0: Interpolation.AREA, 11: Interpolation.DARKNET_11, 101: Interpolation.DARKNET_101}


@dataclasses.dataclass(frozen=True)
class DarknetClass:
  """One class: AP in [0, 1] (0 without truths), and the counts at the confidence threshold."""

  name: str
  ap: float
  true_positives: int
  false_positives: int
  num_truths: int
  average_iou: float


@dataclasses.dataclass(frozen=True)
class DarknetMetrics:
  """What `detector map` prints; shares in [0, 1].

  Attributes:
    mean_ap: mean over all classes.
    per_class: one row per class, in the order of the names.
    precision, recall, f1: at the confidence threshold; 0 where undefined.
    true_positives, false_positives, false_negatives: counts at the confidence threshold.
    average_iou: sum of the overlaps of right detections, divided by all detections above the threshold.
    num_detections: rows with a score above 0 that enter the curve.
    num_truths: objects to find.
    curves: per class, at all confidences.
  """

  mean_ap: float
  per_class: tuple[DarknetClass, ...]
  precision: float
  recall: float
  f1: float
  true_positives: int
  false_positives: int
  false_negatives: int
  average_iou: float
  num_detections: int
  num_truths: int
  curves: tuple[Curve, ...]


def darknet_metrics(
  data: EvalData, *, points: Literal[0, 11, 101] = 0, iou_threshold: float = 0.5, conf_threshold: float = 0.25
) -> DarknetMetrics:
  """`detector map -points P -iou_thresh I -thresh C`.

  Args:
    data: the result of `collect`; rows of an image in the order of the boxes in memory, classes of one box together. Crowd
      regions and ignored regions are left out: Darknet's label files hold none.
    points: 0 is the area under the curve, 11 and 101 the mean over so many recalls.
    iou_threshold: overlap to exceed.
    conf_threshold: score to exceed, for everything but AP.
  """
  rules = dataclasses.replace(DARKNET, iou_thresholds=(iou_threshold,), interpolation=_INTERPOLATIONS[points])
  result = score(data, rules)
  prepared = prepare(data, rules)
  counted = ~is_ignored(prepared, rules)
  matches = match(prepared, rules, iou_threshold, find_pairs(prepared, rules))
  truth = np.where(matches.status < 0, -1, matches.truth)
  is_above = prepared.det_scores > conf_threshold
  is_right = is_above & _is_first(truth)
  tp = np.bincount(prepared.det_classes[is_right], minlength=data.num_classes)
  fp = np.bincount(prepared.det_classes[is_above & ~is_right], minlength=data.num_classes)
  num_truths = np.bincount(prepared.truth_classes[counted], minlength=data.num_classes)
  overlap = np.bincount(prepared.det_classes[is_right], weights=matches.iou[is_right], minlength=data.num_classes)
  ap = np.nan_to_num(result.ap[0])
  precision, recall = _ratio(tp.sum(), tp.sum() + fp.sum()), _ratio(tp.sum(), num_truths.sum())
  return DarknetMetrics(
    mean_ap=result.mean,
    per_class=tuple(
      DarknetClass(name, float(ap[i]), int(tp[i]), int(fp[i]), int(num_truths[i]), _ratio(overlap[i], tp[i] + fp[i]))
      for i, name in enumerate(data.names)
    ),
    precision=precision,
    recall=recall,
    f1=_ratio(2 * precision * recall, precision + recall),
    true_positives=int(tp.sum()),
    false_positives=int(fp.sum()),
    false_negatives=int(num_truths.sum() - tp.sum()),
    average_iou=_ratio(overlap.sum(), tp.sum() + fp.sum()),
    num_detections=int((matches.status >= 0).sum()),
    num_truths=int(num_truths.sum()),
    curves=result.curves,
  )


def _is_first(truth: NDArray[np.int64]) -> NDArray[np.bool_]:
  """(d,) whether no earlier row has the same truth; False without truth."""
  is_first = np.zeros(len(truth), np.bool_)
  _, first = np.unique(truth, return_index=True)
  is_first[first] = True
  return is_first & (truth >= 0)


def _ratio(part: float, whole: float) -> float:
  return float(part / whole) if whole else 0.0
