"""What went wrong, object by object: the confusion matrix, and the worst mistakes.

Both look at detections above one confidence and match in two rounds: first within the class by COCO's rules, so that
the matrix's diagonal holds exactly the right detections of AP50; then what is left over, across classes.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData, ImageId
from prn_jax.detect.metrics.match import (
  COCO50,
  Matches,
  Rules,
  Special,
  find_pairs,
  is_ignored,
  match,
  prepare,
)
from prn_jax.detect.metrics.overlap import Pixels, pair_overlap

BACKGROUND = "background"
_TEXT = "<U16"
LOOSE_IOU = 0.1
"""Less overlap than this is not a badly drawn box, but a detection of something else."""


class Verdict(StrEnum):
  """What is to be said of a detection or an object."""

  RIGHT = "right"
  NOT_COUNTED = "not counted"  # in a crowd region or an ignored one, or of a difficult object
  WRONG_CLASS = "wrong class"
  DUPLICATE = "duplicate"
  LOOSE_BOX = "loose box"
  NO_OBJECT = "no object"
  MISSED = "missed"


@dataclasses.dataclass(frozen=True, eq=False)
class Assignment:
  """Which detection belongs to which truth.

  Attributes:
    data: the detections above the confidence, and all truths.
    conf_threshold, iou_threshold: score to exceed; least overlap.
    det_verdict: (d,) text of the `Verdict` of each detection.
    det_truth: (d,) the truth that it found, took for another class, doubled or drew badly; -1 without one.
    truth_verdict: (t,) right, wrong class, missed or not counted.
    truth_det: (t,) the detection that found it, or took it for another class; -1 without one.
  """

  data: EvalData
  conf_threshold: float
  iou_threshold: float
  det_verdict: NDArray[np.str_]
  det_truth: NDArray[np.int64]
  truth_verdict: NDArray[np.str_]
  truth_det: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class ConfusionMatrix:
  """How often an object of class r (row) was detected as class c (column).

  Attributes:
    names: class names, and "background" last.
    counts: (k+1, k+1) int64; the last column holds missed objects, the last row detections without an object.
    conf_threshold, iou_threshold: score to exceed; least overlap.
  """

  names: tuple[str, ...]
  counts: NDArray[np.int64]
  conf_threshold: float
  iou_threshold: float

  def to_json(self) -> dict[str, Any]:
    """The matrix as lists; rows are the truth."""
    return {
      "conf_threshold": self.conf_threshold,
      "iou_threshold": self.iou_threshold,
      "names": list(self.names),
      "rows_are": "truth",
      "counts": self.counts.tolist(),
    }


@dataclasses.dataclass(frozen=True)
class Mistake:
  """One wrong detection or one missed object.

  Attributes:
    image_id: where.
    is_missed: whether this is an object that was not found; else a detection that is wrong.
    verdict: what is wrong.
    name: class of the detection, or of the missed object.
    other_name: the object's true class, or what a missed object was taken for; None where nothing is there.
    score: the score of the detection (for a missed object: of what it was taken for); None without one.
    iou: overlap with the object that it belongs to; 0 without one.
    box_xyxy_px: the box of the detection, or of the missed object.
  """

  image_id: ImageId
  is_missed: bool
  verdict: Verdict
  name: str
  other_name: str | None
  score: float | None
  iou: float
  box_xyxy_px: tuple[float, float, float, float]

  def to_json(self) -> dict[str, Any]:
    """The fields, with names that JSON readers expect."""
    content = dataclasses.asdict(self)
    return content | {"verdict": str(self.verdict), "box_xyxy_px": list(self.box_xyxy_px)}


def assign(data: EvalData, *, conf_threshold: float = 0.25, iou_threshold: float = 0.5) -> Assignment:
  """Matches detections above a confidence to truths, within classes and then across them.

  Args:
    data: the result of `collect`.
    conf_threshold: score to exceed.
    iou_threshold: least overlap.
  """
  rules = dataclasses.replace(
    COCO50,
    iou_thresholds=(iou_threshold,),
    score_threshold=conf_threshold,
    max_detections=None,
    difficult=Special.IGNORE,
  )
  data = prepare(data, rules)
  pairs = find_pairs(data, rules)
  within = match(data, rules, iou_threshold, pairs)
  ignored = is_ignored(data, rules)
  det_verdict = np.full(data.num_detections, Verdict.NO_OBJECT, _TEXT)
  truth_verdict = np.where(ignored, Verdict.NOT_COUNTED, Verdict.MISSED).astype(_TEXT)
  det_truth = np.where(within.status == 1, within.truth, -1)
  det_verdict[within.status == 1], det_verdict[within.status == -1] = Verdict.RIGHT, Verdict.NOT_COUNTED
  truth_verdict[within.truth[within.status == 1]] = Verdict.RIGHT

  # An overlap with an object of the own class: doubled where it suffices, else badly drawn.
  counted = ~ignored[pairs.truth] & (within.status[pairs.det] == 0) & (pairs.iou >= LOOSE_IOU)
  order = np.flatnonzero(counted)[np.argsort(pairs.iou[counted], kind="stable")]  # the best comes last and stays
  det_truth[pairs.det[order]] = pairs.truth[order]
  det_verdict[pairs.det[order]] = np.where(pairs.iou[order] >= iou_threshold, Verdict.DUPLICATE, Verdict.LOOSE_BOX)

  free_dets = np.flatnonzero((within.status == 0) & (det_verdict != Verdict.DUPLICATE))
  free_truths = np.flatnonzero(truth_verdict == Verdict.MISSED)
  across = _match_across(data, rules, free_dets, free_truths)
  mixed = free_dets[across.status == 1]
  taken = free_truths[across.truth[across.status == 1]]
  det_verdict[mixed], truth_verdict[taken], det_truth[mixed] = Verdict.WRONG_CLASS, Verdict.WRONG_CLASS, taken
  truth_det = np.full(len(truth_verdict), -1)
  owners = np.flatnonzero((det_verdict == Verdict.RIGHT) | (det_verdict == Verdict.WRONG_CLASS))
  truth_det[det_truth[owners]] = owners
  return Assignment(data, conf_threshold, iou_threshold, det_verdict, det_truth, truth_verdict, truth_det)


def _match_across(data: EvalData, rules: Rules, dets: NDArray[np.int64], truths: NDArray[np.int64]) -> Matches:
  """Matches what is left over as if there were one class."""
  keep_det, keep_truth = np.zeros(data.num_detections, np.bool_), np.zeros(len(data.truth_classes), np.bool_)
  keep_det[dets], keep_truth[truths] = True, True
  rest = data.with_detections(keep_det).with_truths(keep_truth)
  rest = dataclasses.replace(
    rest, det_classes=np.zeros_like(rest.det_classes), truth_classes=np.zeros_like(rest.truth_classes)
  )
  return match(rest, rules, rules.iou_thresholds[0], find_pairs(rest, rules))


def confusion_matrix(assignment: Assignment) -> ConfusionMatrix:
  """Counts the assignment; doubled and badly drawn detections have no object of their own: background."""
  data = assignment.data
  counts = np.zeros((data.num_classes + 1, data.num_classes + 1), np.int64)
  owned = np.flatnonzero(assignment.truth_det >= 0)
  np.add.at(counts, (data.truth_classes[owned], data.det_classes[assignment.truth_det[owned]]), 1)
  missed = data.truth_classes[assignment.truth_verdict == Verdict.MISSED]
  counts[:-1, -1] = np.bincount(missed, minlength=data.num_classes)
  is_false = np.isin(assignment.det_verdict, [Verdict.NO_OBJECT, Verdict.DUPLICATE, Verdict.LOOSE_BOX])
  counts[-1, :-1] = np.bincount(data.det_classes[is_false], minlength=data.num_classes)
  return ConfusionMatrix((*data.names, BACKGROUND), counts, assignment.conf_threshold, assignment.iou_threshold)


def wrong_detections(assignment: Assignment, limit: int | None = None) -> list[Mistake]:
  """Detections that are wrong, the most confident first; `limit` of them."""
  data = assignment.data
  is_wrong = ~np.isin(assignment.det_verdict, [Verdict.RIGHT, Verdict.NOT_COUNTED])
  rows = np.flatnonzero(is_wrong)
  rows = rows[np.argsort(-data.det_scores[rows], kind="stable")][:limit]
  found = []
  for row in rows.tolist():
    truth = int(assignment.det_truth[row])
    found.append(
      Mistake(
        image_id=data.image_ids[data.det_image[row]],
        is_missed=False,
        verdict=Verdict(assignment.det_verdict[row]),
        name=data.names[data.det_classes[row]],
        other_name=data.names[data.truth_classes[truth]] if truth >= 0 else None,
        score=float(data.det_scores[row]),
        iou=_iou(data, row, truth),
        box_xyxy_px=_corners(data.det_boxes_xywh_px[row]),
      )
    )
  return found


def missed_objects(assignment: Assignment, limit: int | None = None) -> list[Mistake]:
  """Objects that were not found (or taken for another class), those that fill most of their image first.

  Where the size of an image is unknown, the largest box of the image stands for it.
  """
  data = assignment.data
  area = np.prod(data.truth_boxes_xywh_px[:, 2:], axis=1)
  image_area = np.prod(data.image_sizes, axis=1)
  largest = np.ones(data.num_images)
  np.maximum.at(largest, data.truth_image, area)
  share = area / np.where(np.isnan(image_area), largest, image_area)[data.truth_image]
  rows = np.flatnonzero(np.isin(assignment.truth_verdict, [Verdict.MISSED, Verdict.WRONG_CLASS]))
  rows = rows[np.argsort(-share[rows], kind="stable")][:limit]
  found = []
  for row in rows.tolist():
    det = int(assignment.truth_det[row])
    found.append(
      Mistake(
        image_id=data.image_ids[data.truth_image[row]],
        is_missed=True,
        verdict=Verdict(assignment.truth_verdict[row]),
        name=data.names[data.truth_classes[row]],
        other_name=data.names[data.det_classes[det]] if det >= 0 else None,
        score=float(data.det_scores[det]) if det >= 0 else None,
        iou=_iou(data, det, row) if det >= 0 else 0.0,
        box_xyxy_px=_corners(data.truth_boxes_xywh_px[row]),
      )
    )
  return found


def _iou(data: EvalData, det: int, truth: int) -> float:
  if truth < 0:
    return 0.0
  boxes = data.det_boxes_xywh_px[det : det + 1], data.truth_boxes_xywh_px[truth : truth + 1]
  return float(pair_overlap(*boxes, np.zeros(1, np.bool_), Pixels.CONTINUOUS)[0])


def _corners(box_xywh: NDArray[np.float64]) -> tuple[float, float, float, float]:
  x, y, width, height = (float(value) for value in box_xywh)
  return x, y, x + width, y + height
