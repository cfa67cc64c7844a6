"""Pascal VOC's average precision: 11 points (VOC2007) and the whole curve (VOC2010 on).

Overlap of at least .5; a detection takes the truth that it overlaps most, and is wrong if a better-scored one has it;
difficult objects need not be found, and finding them counts neither way. Source: VOC devkit `VOCevaldet.m`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.match import VOC, Curve, Interpolation, score
from prn_jax.detect.metrics.overlap import Pixels


@dataclasses.dataclass(frozen=True)
class VocMetrics:
  """VOC's evaluation.

  Attributes:
    mean_ap: mean over the classes that have truths, in [0, 1]; NaN if none has.
    ap: per class, by name; NaN for a class without truths (difficult ones do not count).
    curves: per class, in the order of the names.
    iou_threshold: least overlap.
    interpolation: "11" or "every".
  """

  mean_ap: float
  ap: dict[str, float]
  curves: tuple[Curve, ...]
  iou_threshold: float
  interpolation: str


def voc_metrics(
  data: EvalData,
  *,
  interpolation: Literal["11", "every"] = "every",
  iou_threshold: float = 0.5,
  pixels: Pixels | str = Pixels.CONTINUOUS,
) -> VocMetrics:
  """VOC's average precision.

  Args:
    data: the result of `collect`. Crowd regions count as difficult objects. A wrong detection of which a share of the
      `iou_threshold` or more lies in an ignored region counts neither way.
    interpolation: "11" is VOC2007's mean over 11 recalls, "every" the area under the envelope of the curve.
    iou_threshold: least overlap of a right detection.
    pixels: "continuous" for data from `voc:`, whose boxes lost 1 from xmin and ymin: that is the devkit's overlap.
      "inclusive" (x2-x1+1) for boxes whose corners are still pixels that belong to the box.
  """
  kind = Interpolation.VOC_11 if interpolation == "11" else Interpolation.AREA
  rules = dataclasses.replace(VOC, interpolation=kind, iou_thresholds=(iou_threshold,), pixels=Pixels(pixels))
  result = score(data, rules)
  ap = {name: float(value) for name, value in zip(data.names, result.ap[0], strict=True)}
  present = [value for value in ap.values() if not np.isnan(value)]
  mean = float(np.mean(present)) if present else float("nan")
  return VocMetrics(mean, ap, result.curves, iou_threshold, interpolation)
