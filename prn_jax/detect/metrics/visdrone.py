"""VisDrone's evaluation of detections in images (aiskyeye.com, object detection; its toolkit is VisDrone2018-DET-toolkit).

1. Truths and detections of which half or more lies in the ignored regions of their image are taken away. The share is
   that of the area; the toolkit counts pixels of a mask, which is the same where corners are whole pixels.
2. The 500 detections with the highest scores stay in each image, of all classes together.
3. Within a class, by falling score, a detection takes the free truth that it overlaps most, from IoU .50, .55, ... .95 on;
   objects that need not be found (score 0 in the files, crowds here) take any number of detections of which so large a
   share lies in them, but only those that fit no other; these count neither way. That is COCO's matching.
4. AP is the area under the precision that never rises, as VOC's, averaged over the classes that have truths and the ten
   IoUs. AR1, AR10, AR100 and AR500 are the recalls with so many detections of an image, of all classes together.

Written from the public description, and the names of the toolkit's files (VOCap); it has not been run beside the toolkit,
whose program needs MATLAB and whose text has no licence.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.match import (
  COCO_IOUS,
  Interpolation,
  Regions,
  Rules,
  average_precision,
  curves_of,
  find_pairs,
  is_ignored,
  match,
)
from prn_jax.detect.metrics.regions import drop_inside

LEAST_SHARE = 0.5
MOST_DETECTIONS = 500
RECALLS_AT = (1, 10, 100, 500)
FIGURES = ("AP", "AP50", "AP75", *(f"AR{most}" for most in RECALLS_AT))
RULES = Rules(iou_thresholds=COCO_IOUS, interpolation=Interpolation.AREA, max_detections=None, regions=Regions.UNKNOWN)
"""What follows the first two steps."""


@dataclasses.dataclass(frozen=True)
class VisDroneClass:
  """One class: its truths, the detections that were scored, and its figures in [0, 1], NaN without truths."""

  name: str
  num_truths: int
  num_detections: int
  figures: dict[str, float]


@dataclasses.dataclass(frozen=True)
class VisDroneMetrics:
  """VisDrone's evaluation.

  Attributes:
    figures: AP, AP50, AP75, AR1, AR10, AR100 and AR500 in [0, 1]; NaN if no class has truths.
    per_class: the same of every class.
    num_dropped_truths, num_dropped_detections: what lay in ignored regions.
  """

  figures: dict[str, float]
  per_class: tuple[VisDroneClass, ...]
  num_dropped_truths: int
  num_dropped_detections: int


def visdrone_metrics(data: EvalData) -> VisDroneMetrics:
  """VisDrone's figures; difficult objects count as any other, since VisDrone knows none."""
  kept = drop_inside(data, LEAST_SHARE)
  dropped = len(data.truth_classes) - len(kept.truth_classes), data.num_detections - kept.num_detections
  kept = kept.with_detections(_ranks(kept) < MOST_DETECTIONS)
  ranks = _ranks(kept)
  num_truths = np.bincount(kept.truth_classes[~is_ignored(kept, RULES)], minlength=data.num_classes)
  order, pairs = np.argsort(-kept.det_scores, kind="stable"), find_pairs(kept, RULES)
  ap = np.full((len(COCO_IOUS), data.num_classes), np.nan)
  recall = np.full((len(RECALLS_AT), *ap.shape), np.nan)
  for row, threshold in enumerate(COCO_IOUS):
    matches = match(kept, RULES, threshold, pairs)
    curves = curves_of(kept, matches, order, num_truths)
    ap[row] = [average_precision(curve, RULES.interpolation) for curve in curves]
    for column, most in enumerate(RECALLS_AT):
      right = np.bincount(kept.det_classes[(matches.status == 1) & (ranks < most)], minlength=data.num_classes)
      np.divide(right, num_truths, out=recall[column, row], where=num_truths > 0)
  detections = np.bincount(kept.det_classes, minlength=data.num_classes)
  per_class = tuple(
    VisDroneClass(name, int(num_truths[i]), int(detections[i]), _figures(ap[:, [i]], recall[..., [i]]))
    for i, name in enumerate(data.names)
  )
  return VisDroneMetrics(_figures(ap, recall), per_class, *dropped)


def _ranks(data: EvalData) -> NDArray[np.int64]:
  """(d,) place of every detection by falling score within its image, from 0; ties in the given order."""
  order = np.lexsort((-data.det_scores, data.det_image))
  ranks = np.empty(len(order), np.int64)
  ranks[order] = np.arange(len(order)) - np.searchsorted(data.det_image, data.det_image)
  return ranks


def _figures(ap: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
  """Means over the classes with truths; `ap` is (iou, class), `recall` (limits, iou, class)."""
  has_truths = ~np.isnan(ap[0])
  if not has_truths.any():
    return dict.fromkeys(FIGURES, float("nan"))
  ap, recall = ap[:, has_truths], recall[..., has_truths]
  return {
    "AP": float(ap.mean()),
    "AP50": float(ap[0].mean()),
    "AP75": float(ap[5].mean()),
    **{f"AR{most}": float(recall[row].mean()) for row, most in enumerate(RECALLS_AT)},
  }
