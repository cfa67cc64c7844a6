"""The figures of a protocol, and its table of classes, as numbers and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from prn_jax.detect.metrics.coco import NO_TRUTHS, coco_metrics
from prn_jax.detect.metrics.curves import Curves
from prn_jax.detect.metrics.darknet import darknet_metrics
from prn_jax.detect.metrics.data import EvalData, EvalError
from prn_jax.detect.metrics.match import Pixels
from prn_jax.detect.metrics.voc import voc_metrics
from prn_jax.errors import did_you_mean

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a protocol leaves open.

  Attributes:
    backend: library for COCO's figures; None takes the fastest that is installed.
    pixels: how wide a box is; "inclusive" for BDD100K and for VOC boxes that still count pixels from 1.
    iou_threshold: least overlap, for VOC and Darknet.
    points: 0 (area), 11 or 101, for Darknet.
    conf_threshold: score to exceed for precision, recall and F1.
  """

  backend: str | None = None
  pixels: Pixels | str = Pixels.CONTINUOUS
  iou_threshold: float = 0.5
  points: Literal[0, 11, 101] = 0
  conf_threshold: float = 0.25


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The figures of one protocol.

  Attributes:
    protocol: "coco", "voc07", "voc" or "darknet".
    metrics: COCO's 12 figures (-1 where no truth of that size exists), or "mAP" and what the protocol adds, in [0, 1].
    images, detections: how many were scored.
    per_class: one row per class, "name" first; None where a value is undefined.
    backend: the library behind COCO's figures; None elsewhere.
  """

  protocol: str
  metrics: dict[str, float | None]
  images: int
  detections: int
  per_class: tuple[Row, ...]
  backend: str | None = None

  def to_json(self) -> dict[str, Any]:
    """The contract of `prn eval --json`: metrics, images, detections, protocol."""
    return {
      "metrics": self.metrics,
      "images": self.images,
      "detections": self.detections,
      "protocol": self.protocol,
    }

  def text(self) -> str:
    """The figures and the table of classes."""
    width = max(len(name) for name in self.metrics)
    lines = [f"{self.images:,} images, {self.detections:,} detections, protocol {self.protocol}"]
    lines += [f"  {name:<{width}}  {_cell(value)}" for name, value in self.metrics.items()]
    return "\n".join([*lines, "", format_table(self.per_class)])


def evaluate(data: EvalData, protocol: str = "coco", settings: Settings | None = None) -> Evaluation:
  """Scores detections under a protocol.

  Args:
    data: from `collect`.
    protocol: "coco", "voc07" (11 points), "voc" (every point) or "darknet".
    settings: what the protocol leaves open.

  Raises:
    EvalError: the protocol is unknown, or its library is missing.
  """
  if protocol not in _PROTOCOLS:
    raise EvalError(
      f"protocol '{protocol}' is unknown{did_you_mean(protocol, _PROTOCOLS)}; expected one of {', '.join(_PROTOCOLS)}"
    )
  return _PROTOCOLS[protocol](data, settings or Settings())


def _coco(data: EvalData, settings: Settings) -> Evaluation:
  result = coco_metrics(data, backend=settings.backend, pixels=settings.pixels)
  rows = tuple(
    {"name": row.name, "truths": row.num_truths, "detections": row.num_detections}
    | {key: None if row.figures[key] == NO_TRUTHS else row.figures[key] for key in _COCO_CLASS_FIGURES}
    for row in result.per_class
  )
  metrics: dict[str, float | None] = dict(result.figures)
  return Evaluation("coco", metrics, data.num_images, data.num_detections, rows, result.backend)


_COCO_CLASS_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def _voc(protocol: str, interpolation: Literal["11", "every"]) -> Callable[[EvalData, Settings], Evaluation]:
  def run(data: EvalData, settings: Settings) -> Evaluation:
    result = voc_metrics(
      data, interpolation=interpolation, iou_threshold=settings.iou_threshold, pixels=settings.pixels
    )
    detections = np.bincount(data.det_classes, minlength=data.num_classes)
    rows = tuple(
      {"name": name, "truths": curve.num_truths, "detections": int(number), "AP": _defined(ap)}
      for (name, ap), curve, number in zip(result.ap.items(), result.curves, detections, strict=True)
    )
    return Evaluation(protocol, {"mAP": _defined(result.mean_ap)}, data.num_images, data.num_detections, rows)

  return run


def _darknet(data: EvalData, settings: Settings) -> Evaluation:
  result = darknet_metrics(
    data, points=settings.points, iou_threshold=settings.iou_threshold, conf_threshold=settings.conf_threshold
  )
  rows = tuple(
    {
      "name": row.name,
      "truths": row.num_truths,
      "AP": row.ap,
      "TP": row.true_positives,
      "FP": row.false_positives,
      "avg_iou": row.average_iou,
    }
    for row in result.per_class
  )
  metrics: dict[str, float | None] = {
    "mAP": result.mean_ap,
    "precision": result.precision,
    "recall": result.recall,
    "F1": result.f1,
    "avg_iou": result.average_iou,
    "TP": result.true_positives,
    "FP": result.false_positives,
    "FN": result.false_negatives,
  }
  return Evaluation("darknet", metrics, data.num_images, data.num_detections, rows)


_PROTOCOLS: dict[str, Callable[[EvalData, Settings], Evaluation]] = {
  "coco": _coco,
  "voc07": _voc("voc07", "11"),
  "voc": _voc("voc", "every"),
  "darknet": _darknet,
}


def with_confidence(rows: Sequence[Row], curves: Curves, conf_threshold: float) -> tuple[Row, ...]:
  """The table of classes with precision, recall and F1 above a confidence, and the best F1 and where it lies."""
  out = []
  for row, curve in zip(rows, curves.per_class_confidence, strict=True):
    precision, recall, f1 = curve.at(conf_threshold)
    has_truths = not np.isnan(recall)
    out.append(
      row
      | {
        "precision": _defined(precision),
        "recall": _defined(recall),
        "F1": f1 if has_truths else None,
        "best F1": curve.best_f1 if has_truths else None,
        "at": curve.best_confidence if has_truths else None,
      }
    )
  return tuple(out)


def format_table(rows: Sequence[Row]) -> str:
  """Rows as aligned text; "-" where a value is undefined. All rows have the keys of the first."""
  if not rows:
    return ""
  keys = list(rows[0])
  cells = [keys, *([_cell(row[key]) for key in keys] for row in rows)]
  widths = [max(len(line[column]) for line in cells) for column in range(len(keys))]
  return "\n".join(
    "  ".join(
      text.ljust(width) if column == 0 else text.rjust(width)
      for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in cells
  )


def _cell(value: Any) -> str:
  if value is None or (isinstance(value, float) and (np.isnan(value) or value == NO_TRUTHS)):
    return "-"
  return f"{value:.4f}" if isinstance(value, float) else str(value)


def _defined(value: float) -> float | None:
  return None if np.isnan(value) else float(value)
