"""The curves of a run as one picture: loss, learning rate, figures of evaluations and of batches, over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prn_jax.detect.metrics.plots import save_png
from prn_jax.train.log import EVAL, POINT, read_metrics

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

FILE = "curves.png"
SHOWN = {
  "AP50": "AP50",
  "AP": "AP",
  "mAP": "mAP",
  "top1": "top-1",
  "top5": "top-5",
}  # figures worth a line, best known first
POINTS = {"precision": "precision", "recall": "recall"}  # at the confidence of the pictures
OF_BATCHES = {"iou": "IoU", "recall50": "recall at IoU .5", "top1": "top-1"}
_COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#8d6a9f")


def write_curves(folder: Path) -> Path | None:
  """Draws `curves.png` from the metrics of a run directory; None if it has none yet."""
  rows = read_metrics(folder)
  if not any("loss" in row for row in rows):
    return None
  return save_png(plot_curves(rows), folder / FILE)


def plot_curves(rows: list[dict[str, Any]]) -> Figure:
  """Loss (logarithmic), learning rate, figures of evaluations with precision and recall, and those of training batches.

  Args:
    rows: the result of `read_metrics`.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 6), layout="constrained")
  (loss, rate), (held_out, batches) = figure.subplots(2, 2)
  _line(loss, rows, "loss", "loss", _COLOURS[1])
  loss.set_yscale("log")
  loss.set_title("training loss per image", fontsize=10)
  _line(rate, rows, "learning_rate", "learning rate", _COLOURS[3])
  rate.set_title("learning rate", fontsize=10)
  rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
  lines = [(f"{EVAL}{key}", label, "-") for key, label in SHOWN.items()]
  lines += [(f"{POINT}{key}", f"{label} at confidence .25", "--") for key, label in POINTS.items()]
  _shares(held_out, rows, lines, "held-out images", marker="o")
  _shares(batches, rows, [(key, label, "-") for key, label in OF_BATCHES.items()], "training batches")
  last = max(row["step"] for row in rows)
  for axes in (loss, rate, held_out, batches):
    axes.set_xlim(0, 1.03 * last)  # one scale: also where there is a single evaluation
    axes.set_xlabel("step", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  return figure


def _shares(
  axes: Axes, rows: list[dict[str, Any]], lines: list[tuple[str, str, str]], title: str, marker: str = ""
) -> None:
  """Figures from 0 to 1, those that occur, with their last values."""
  found = [one for one in lines if any(row.get(one[0]) is not None for row in rows)]
  for colour, (key, label, style) in zip(_COLOURS, found, strict=False):
    last = [row[key] for row in rows if row.get(key) is not None][-1]
    _line(axes, rows, key, f"{label}: {last:.3f}", colour, marker=marker, style=style)
  axes.set_ylim(0, 1.02)
  axes.set_title(title, fontsize=10)
  if found:
    axes.legend(frameon=False, fontsize=8)
  else:
    axes.text(0.5, 0.5, "nothing was measured", ha="center", transform=axes.transAxes, fontsize=9, color="#777777")


def _line(
  axes: Axes, rows: list[dict[str, Any]], key: str, label: str, colour: str, marker: str = "", style: str = "-"
) -> None:
  points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
  axes.plot(
    [step for step, _ in points], [value for _, value in points], style, color=colour, label=label, marker=marker,
    markersize=4 if len(points) > 1 else 7,
  )  # fmt: skip
