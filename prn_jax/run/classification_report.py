"""The report of a classifier's evaluation: figures, the table of classes and the confusion matrix."""

from __future__ import annotations

from pathlib import Path

from prn_jax.classify.metrics import ClassificationMetrics
from prn_jax.detect.metrics.plots import plot_confusion_counts, save_png
from prn_jax.detect.metrics.tables import format_table
from prn_jax.files.disk import write_text
from prn_jax.files.json_text import json_text


def write_classification_report(out_dir: Path, result: ClassificationMetrics) -> dict[str, Path]:
  """Writes top1.json (figures and the table of classes), per_class.txt and confusion.png into a folder.

  Args:
    out_dir: made if it does not exist; files of these names are replaced, each whole or not at all.
    result: the result of `classification_metrics`.

  Returns:
    The paths by name.
  """
  files = {name: out_dir / name for name in ("top1.json", "per_class.txt", "confusion.png")}
  content = result.to_json() | {"per_class": list(result.per_class)}
  write_text(files["top1.json"], json_text(content, indent=1, is_ascii=False) + "\n")
  write_text(files["per_class.txt"], format_table(result.per_class) + "\n")
  subtitle = f"{result.images:,} images, top-1 {result.top1:.4f}, top-5 {result.top5:.4f}"
  save_png(plot_confusion_counts(result.names, result.counts, subtitle), files["confusion.png"])
  return files
