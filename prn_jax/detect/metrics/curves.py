"""What lies behind the one figure: precision over recall, and precision, recall and F1 over the confidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.match import COCO50, Curve, Special, score
from prn_jax.files.json_text import finite

RECALLS = np.linspace(0, 1, 101)
CONFIDENCES = np.linspace(0, 1, 1001)


@dataclasses.dataclass(frozen=True, eq=False)
class PrCurve:
  """One class at one IoU threshold.

  Attributes:
    name: the class.
    ap: average precision in [0, 1]; NaN without truths.
    num_truths: objects to find.
    precision: (101,) best precision at recall 0, .01, ... 1 or more; 0 where that recall is not reached.
    scores: (101,) confidence at which that recall is reached; NaN where it is not.
  """

  name: str
  ap: float
  num_truths: int
  precision: NDArray[np.float64]
  scores: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class ConfidenceCurve:
  """Precision, recall and F1 of all detections whose score exceeds a confidence.

  Attributes:
    confidences: (1001,) 0, .001, ... 1.
    precision: (1001,) share of the detections that are right; NaN where there are none.
    recall: (1001,) share of the objects that are found; NaN without objects.
    f1: (1001,) 2 right / (detections + objects); 0 where neither exists.
  """

  confidences: NDArray[np.float64]
  precision: NDArray[np.float64]
  recall: NDArray[np.float64]
  f1: NDArray[np.float64]

  @property
  def best_f1(self) -> float:
    """The highest F1."""
    return float(self.f1.max())

  @property
  def best_confidence(self) -> float:
    """The lowest confidence with the highest F1."""
    return float(self.confidences[int(self.f1.argmax())])

  def at(self, confidence: float) -> tuple[float, float, float]:
    """Precision, recall and F1 at the nearest of the 1,001 confidences."""
    index = int(np.abs(self.confidences - confidence).argmin())
    return float(self.precision[index]), float(self.recall[index]), float(self.f1[index])


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
  """All curves of an evaluation, matched by COCO's rules at one IoU threshold.

  Attributes:
    iou_threshold: least overlap of a right detection.
    pr: per class, in the order of the names.
    confidence: all classes together.
    per_class_confidence: per class.
  """

  iou_threshold: float
  pr: tuple[PrCurve, ...]
  confidence: ConfidenceCurve
  per_class_confidence: tuple[ConfidenceCurve, ...]

  def to_json(self) -> dict[str, Any]:
    """Lists of numbers rounded to 6 digits; None where a value is undefined."""
    return {
      "iou_threshold": self.iou_threshold,
      "recall": _listed(RECALLS),
      "classes": [
        {
          "name": pr.name,
          "num_truths": pr.num_truths,
          "ap": _listed(np.array([pr.ap]))[0],
          "best_f1": round(by_confidence.best_f1, 6),
          "best_confidence": round(by_confidence.best_confidence, 6),
          "precision": _listed(pr.precision),
          "confidence": _listed(pr.scores),
        }
        for pr, by_confidence in zip(self.pr, self.per_class_confidence, strict=True)
      ],
      "all": {
        "best_f1": round(self.confidence.best_f1, 6),
        "best_confidence": round(self.confidence.best_confidence, 6),
        "confidence": _listed(self.confidence.confidences[::10]),
        "precision": _listed(self.confidence.precision[::10]),
        "recall": _listed(self.confidence.recall[::10]),
        "f1": _listed(self.confidence.f1[::10]),
      },
    }


def compute_curves(data: EvalData, *, iou_threshold: float = 0.5) -> Curves:
  """All curves at one IoU threshold, by COCO's rules; difficult objects are neither right nor wrong."""
  rules = dataclasses.replace(COCO50, iou_thresholds=(iou_threshold,), difficult=Special.IGNORE)
  result = score(data, rules)
  pr = tuple(
    _pr_curve(name, float(ap), curve) for name, ap, curve in zip(data.names, result.ap[0], result.curves, strict=True)
  )
  each = tuple(_confidence_curve([curve]) for curve in result.curves)
  return Curves(iou_threshold, pr, _confidence_curve(result.curves), each)


def _pr_curve(name: str, ap: float, curve: Curve) -> PrCurve:
  if not curve.num_truths:
    return PrCurve(name, ap, 0, np.full(101, np.nan), np.full(101, np.nan))
  place = np.searchsorted(curve.recall, RECALLS, side="left")
  precision = np.append(curve.envelope, 0.0)[place]
  return PrCurve(name, ap, curve.num_truths, precision, np.append(curve.scores, np.nan)[place])


def _confidence_curve(curves: Sequence[Curve]) -> ConfidenceCurve:
  rising = np.sort(np.concatenate([curve.scores for curve in curves] or [np.zeros(0)]))
  rising_right = np.sort(np.concatenate([curve.scores[curve.is_right] for curve in curves] or [np.zeros(0)]))
  found = len(rising) - np.searchsorted(rising, CONFIDENCES, side="right")
  right = len(rising_right) - np.searchsorted(rising_right, CONFIDENCES, side="right")
  num_truths = sum(curve.num_truths for curve in curves)
  nothing = np.full(len(CONFIDENCES), np.nan)
  precision = np.divide(right, found, out=nothing.copy(), where=found > 0)
  recall = right / num_truths if num_truths else nothing
  f1 = 2 * right / np.maximum(found + num_truths, 1)
  return ConfidenceCurve(CONFIDENCES, precision, recall, f1)


def _listed(values: NDArray[np.float64]) -> list[float | None]:
  return [finite(round(float(value), 6)) for value in values]
