"""The folder of an evaluation: figures, tables and curves as JSON and text, pictures as PNG."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prn_jax.detect.metrics import plots
from prn_jax.detect.metrics.curves import Curves, compute_curves
from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.explain import Explanation
from prn_jax.detect.metrics.mistakes import ConfusionMatrix, assign, confusion_matrix
from prn_jax.detect.metrics.sheet import ReadImage, Sheet, contact_sheet
from prn_jax.detect.metrics.tables import Evaluation, Row, format_table, with_confidence
from prn_jax.files.disk import write_text, written_beside
from prn_jax.files.json_text import json_text


@dataclasses.dataclass(frozen=True)
class Report:
  """What `write_report` computed and wrote.

  Attributes:
    files: paths by what they hold, as "pr_curves.png".
    per_class: the table of classes, with precision, recall and F1 at the confidence.
    curves, confusion, sheet: what the files hold; no sheet without images.
  """

  files: dict[str, Path]
  per_class: tuple[Row, ...]
  curves: Curves
  confusion: ConfusionMatrix
  sheet: Sheet | None


def write_report(
  out_dir: Path,
  data: EvalData,
  evaluation: Evaluation,
  *,
  conf_threshold: float = 0.25,
  iou_threshold: float = 0.5,
  read_image: ReadImage | None = None,
  explanation: Explanation | None = None,
) -> Report:
  """Writes an evaluation into a folder; every file appears whole or not at all.

  Args:
    out_dir: made if it does not exist; files of these names are replaced.
    data: what was evaluated.
    evaluation: the result of `evaluate`; its file is named after the protocol, as coco.json.
    conf_threshold: score to exceed for the confusion matrix, the contact sheet and the table of classes.
    iou_threshold: least overlap for all curves and matrices.
    read_image: gives an image by its id as (h, w, 3) uint8 RGB; without it there is no contact sheet.
    explanation: the result of `explain`, if wanted.

  Returns:
    What was written.

  Raises:
    OSError: the folder cannot be written.
  """
  curves = compute_curves(data, iou_threshold=iou_threshold)
  assignment = assign(data, conf_threshold=conf_threshold, iou_threshold=iou_threshold)
  confusion = confusion_matrix(assignment)
  per_class = with_confidence(evaluation.per_class, curves, conf_threshold)
  writer = _Writer(out_dir)
  summary = evaluation.to_json() | {
    "backend": evaluation.backend,
    "conf_threshold": conf_threshold,
    "iou_threshold": iou_threshold,
    "per_class": list(per_class),
  }
  writer.json(f"{evaluation.protocol}.json", summary)
  writer.text("per_class.txt", format_table(per_class) + "\n")
  writer.json("curves.json", curves.to_json())
  writer.json("confusion.json", confusion.to_json())
  writer.png("pr_curves.png", plots.plot_pr_curves(curves))
  writer.png("f1_curve.png", plots.plot_f1_curve(curves))
  if "AP" in per_class[0]:  # a protocol of an extension may have none
    writer.png("class_ap.png", plots.plot_class_ap(per_class))
  writer.png("confusion.png", plots.plot_confusion(confusion))
  sheet = None
  if read_image is not None:
    picture, sheet = contact_sheet(assignment, read_image)
    with written_beside(writer.path("mistakes.png")) as file:
      picture.save(file, format="PNG")
    writer.json("mistakes.json", sheet.to_json())
  if explanation is not None:
    writer.json("explain.json", explanation.to_json())
    writer.text("explain.txt", explanation.text())
  return Report(writer.files, per_class, curves, confusion, sheet)


class _Writer:
  """Writes files into one folder and remembers them."""

  def __init__(self, folder: Path) -> None:
    self._folder = folder
    self.files: dict[str, Path] = {}

  def path(self, name: str) -> Path:
    self.files[name] = self._folder / name
    return self.files[name]

  def json(self, name: str, content: Any) -> None:
    write_text(self.path(name), json_text(content, indent=1, is_ascii=False) + "\n")

  def text(self, name: str, content: str) -> None:
    write_text(self.path(name), content)

  def png(self, name: str, figure: Any) -> None:
    plots.save_png(figure, self.path(name))
