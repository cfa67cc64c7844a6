"""The figures of an evaluation and its table of classes, as numbers and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from prn_jax.detect.metrics.coco import NO_TRUTHS
from prn_jax.detect.metrics.curves import Curves

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The figures of one protocol.

  Attributes:
    protocol: its name.
    metrics: COCO's 12 figures (-1 where no truth of that size exists), or "mAP" and what the protocol adds, in [0, 1].
    images, detections: how many were scored.
    per_class: one row per class, "name" first; None where a value is undefined.
    backend: the library behind COCO's figures; None elsewhere.
    num_regions: ignored regions in the data.
    regions_rule: what the protocol does with them.
    without_regions: the metrics as if nothing were ignored, where they were asked for.
  """

  protocol: str
  metrics: dict[str, float | None]
  images: int
  detections: int
  per_class: tuple[Row, ...]
  backend: str | None = None
  num_regions: int = 0
  regions_rule: str = ""
  without_regions: dict[str, float | None] | None = None

  def to_json(self) -> dict[str, Any]:
    """The contract of `prn eval --json`: metrics, images, detections, protocol; of data with ignored regions also
    ignored_regions: count, rule and metrics_without."""
    content: dict[str, Any] = {
      "metrics": self.metrics,
      "images": self.images,
      "detections": self.detections,
      "protocol": self.protocol,
    }
    if self.num_regions:
      regions = {"count": self.num_regions, "rule": self.regions_rule, "metrics_without": self.without_regions}
      content["ignored_regions"] = regions
    return content

  def text(self) -> str:
    """The figures and the table of classes."""
    width = max(len(name) for name in self.metrics)
    lines = [f"{self.images:,} images, {self.detections:,} detections, protocol {self.protocol}"]
    if self.num_regions:
      lines += [f"{self.num_regions:,} ignored regions: {self.regions_rule}"]
    if self.without_regions is not None:
      lines += ["figures, and as they would be if nothing were ignored:"]
    for name, value in self.metrics.items():
      other = "" if self.without_regions is None else f"  {_cell(self.without_regions.get(name)):>6}"
      lines.append(f"  {name:<{width}}  {_cell(value)}{other}")
    return "\n".join([*lines, "", format_table(self.per_class)])


def with_confidence(rows: Sequence[Row], curves: Curves, conf_threshold: float) -> tuple[Row, ...]:
  """The table of classes with precision, recall and F1 above a confidence, and the best F1 and where it lies."""
  out = []
  for row, curve in zip(rows, curves.per_class_confidence, strict=True):
    precision, recall, f1 = curve.at(conf_threshold)
    has_truths = not np.isnan(recall)
    out.append(
      row
      | {
        "precision": defined(precision),
        "recall": defined(recall),
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
  """A value as text; "-" where it is undefined."""
  if value is None or (isinstance(value, float) and (np.isnan(value) or value == NO_TRUTHS)):
    return "-"
  return f"{value:.4f}" if isinstance(value, float) else str(value)


def defined(value: float) -> float | None:
  """None for NaN."""
  return None if np.isnan(value) else float(value)
