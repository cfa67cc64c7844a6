"""Figures of a detector: bring truths and detections together (`collect`), score them (`evaluate`), explain and draw.

data = collect(names, dataset, detections)           # checked once
result = evaluate(data, "coco")                      # or voc07, voc, darknet, visdrone
write_report(folder, data, result, read_image=..., explanation=explain(data))
"""

from prn_jax.detect.metrics.coco import BACKENDS, FIGURES, NO_TRUTHS, CocoClass, CocoMetrics, coco_metrics
from prn_jax.detect.metrics.curves import ConfidenceCurve, Curves, PrCurve, compute_curves
from prn_jax.detect.metrics.darknet import DarknetClass, DarknetMetrics, darknet_metrics
from prn_jax.detect.metrics.data import NO_DETECTIONS, EvalData, EvalError, ImageDetections, collect
from prn_jax.detect.metrics.explain import PROTOCOLS, Change, Explanation, Walk, explain
from prn_jax.detect.metrics.match import (
  COCO,
  COCO50,
  DARKNET,
  VOC,
  VOC07,
  Curve,
  Interpolation,
  Regions,
  Rules,
  Score,
  Special,
  score,
)
from prn_jax.detect.metrics.mistakes import (
  Assignment,
  ConfusionMatrix,
  Mistake,
  Verdict,
  assign,
  confusion_matrix,
  missed_objects,
  wrong_detections,
)
from prn_jax.detect.metrics.overlap import Pixels
from prn_jax.detect.metrics.protocols import (
  Protocol,
  Settings,
  evaluate,
  get_protocol,
  protocols,
  register_protocol,
)
from prn_jax.detect.metrics.regions import without_regions
from prn_jax.detect.metrics.report import Report, write_report
from prn_jax.detect.metrics.results import (
  CocoRow,
  coco_rows,
  darknet_image_id,
  read_coco_results,
  write_coco_results,
)
from prn_jax.detect.metrics.sheet import Sheet, contact_sheet
from prn_jax.detect.metrics.tables import Evaluation, format_table, with_confidence
from prn_jax.detect.metrics.visdrone import VisDroneClass, VisDroneMetrics, visdrone_metrics
from prn_jax.detect.metrics.voc import VocMetrics, voc_metrics
from prn_jax.labels import COCO_CATEGORY_IDS

__all__ = [
  "BACKENDS",
  "COCO",
  "COCO50",
  "COCO_CATEGORY_IDS",
  "DARKNET",
  "FIGURES",
  "NO_DETECTIONS",
  "NO_TRUTHS",
  "PROTOCOLS",
  "VOC",
  "VOC07",
  "Assignment",
  "Change",
  "CocoClass",
  "CocoMetrics",
  "CocoRow",
  "ConfidenceCurve",
  "ConfusionMatrix",
  "Curve",
  "Curves",
  "DarknetClass",
  "DarknetMetrics",
  "EvalData",
  "EvalError",
  "Evaluation",
  "Explanation",
  "ImageDetections",
  "Interpolation",
  "Mistake",
  "Pixels",
  "PrCurve",
  "Protocol",
  "Regions",
  "Report",
  "Rules",
  "Score",
  "Settings",
  "Sheet",
  "Special",
  "Verdict",
  "VisDroneClass",
  "VisDroneMetrics",
  "VocMetrics",
  "Walk",
  "assign",
  "coco_metrics",
  "coco_rows",
  "collect",
  "compute_curves",
  "confusion_matrix",
  "contact_sheet",
  "darknet_image_id",
  "darknet_metrics",
  "evaluate",
  "explain",
  "format_table",
  "get_protocol",
  "missed_objects",
  "protocols",
  "read_coco_results",
  "register_protocol",
  "score",
  "visdrone_metrics",
  "voc_metrics",
  "with_confidence",
  "without_regions",
  "write_coco_results",
  "write_report",
  "wrong_detections",
]
