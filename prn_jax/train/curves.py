"""The curves of a run as one picture: loss, and the figures of its evaluations, over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prn_jax.detect.metrics.plots import save_png
from prn_jax.train.log import read_metrics

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

FILE = "curves.png"
SHOWN = {"AP50": "AP50", "AP": "AP", "mAP": "mAP", "top1": "top-1"}  # figures worth a line, best known first
_COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#8d6a9f")


def write_curves(folder: Path) -> Path | None:
  """Draws `curves.png` from the metrics of a run directory; None if it has none yet."""
  rows = read_metrics(folder)
  if not any("loss" in row for row in rows):
    return None
  return save_png(plot_curves(rows), folder / FILE)


def plot_curves(rows: list[dict[str, Any]]) -> Figure:
  """Loss on the left (logarithmic), figures of evaluations on the right.

  Args:
    rows: of `read_metrics`.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.4), layout="constrained")
  left, right = figure.subplots(1, 2)
  _line(left, rows, "loss", "loss", _COLOURS[1])
  left.set_yscale("log")
  left.set_title("training loss per image", fontsize=10)
  found = [key for key in SHOWN if any(f"eval/{key}" in row for row in rows)]
  for colour, key in zip(_COLOURS, found, strict=False):
    _line(right, rows, f"eval/{key}", SHOWN[key], colour, marker="o")
  right.set_ylim(0, 1)
  right.set_title("held-out images", fontsize=10)
  if found:
    right.legend(frameon=False, fontsize=9)
  for axes in (left, right):
    axes.set_xlabel("step", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  return figure


def _line(axes: Axes, rows: list[dict[str, Any]], key: str, label: str, colour: str, marker: str = "") -> None:
  points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
  axes.plot(
    [step for step, _ in points], [value for _, value in points], color=colour, label=label, marker=marker, markersize=3.5
  )  # fmt: skip
  if marker and points:
    step, value = points[-1]
    axes.annotate(
      f"{value:.3f}", (step, value), xytext=(4, 4), textcoords="offset points", fontsize=8, color=colour, ha="right"
    )
