"""Figures of an evaluation. matplotlib is imported when the first one is drawn, and never opens a window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.curves import RECALLS, Curves, PrCurve
from prn_jax.detect.metrics.mistakes import BACKGROUND, ConfusionMatrix
from prn_jax.files.disk import written_beside
from prn_jax.fonts import fitted

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#999999", "#000000", "#8B4FBF")
_MUTED = "#C9CED6"
_MAX_ALL_NAMED = len(_COLORS)
_NUM_EXTREMES = 4
_MAX_MATRIX = 100
_MAX_SHOWN = 60
_DPI = 110


def plot_pr_curves(curves: Curves) -> Figure:
  """Precision over recall: every class by name where there are few, else the best, the worst and the mean."""
  figure, axes = _figure(8.6, 5.4)
  present = sorted((pr for pr in curves.pr if pr.num_truths), key=lambda pr: -pr.ap)
  absent = len(curves.pr) - len(present)
  if len(present) <= _MAX_ALL_NAMED:
    named, muted = present, []
  else:
    named = present[:_NUM_EXTREMES] + present[-_NUM_EXTREMES:]
    muted = present[_NUM_EXTREMES:-_NUM_EXTREMES]
  for number, pr in enumerate(muted):
    label = f"{len(muted)} other classes" if number == 0 else None
    axes.plot(RECALLS, pr.precision, color=_MUTED, linewidth=0.7, zorder=1, label=label)
  for number, pr in enumerate(named):
    # The worst of many classes are dashed, so that best and worst differ without their colours.
    is_worst = bool(muted) and number >= _NUM_EXTREMES
    style = "--" if is_worst else "-"
    axes.plot(RECALLS, pr.precision, style, color=_COLORS[number], linewidth=1.6, zorder=2, label=_pr_label(pr))
  if present:
    mean = np.mean([pr.precision for pr in present], axis=0)
    mean_ap = float(np.mean([pr.ap for pr in present]))
    axes.plot(RECALLS, mean, color="black", linewidth=3, zorder=3, label=f"mean of {len(present)}  AP {mean_ap:.3f}")
  _unit_axes(axes, "recall (share of the objects found)", "precision (share of the detections that are right)")
  without = f", {absent} without truths" if absent else ""
  _title(
    axes,
    f"Precision over recall, IoU {curves.iou_threshold:g}",
    f"{len(curves.pr)} classes{without}; envelope as in COCO's AP",
  )
  _legend_beside(axes)
  return figure


def _pr_label(pr: PrCurve) -> str:
  hidden = " " if pr.name.startswith("_") else ""  # matplotlib leaves labels with an underscore out of the legend
  return f"{hidden}{_short(pr.name)}  AP {pr.ap:.3f} (n={pr.num_truths})"


def plot_f1_curve(curves: Curves) -> Figure:
  """F1, precision and recall over the confidence, and where F1 is best."""
  figure, axes = _figure(8.6, 5.4)
  all_classes = curves.confidence
  has_many = len(curves.pr) > 1
  for number, curve in enumerate(curves.per_class_confidence if has_many else ()):
    label = "F1 of each class" if number == 0 else None
    axes.plot(curve.confidences, curve.f1, color=_MUTED, linewidth=0.7, zorder=1, label=label)
  axes.plot(all_classes.confidences, all_classes.precision, color=_COLORS[1], linewidth=1.6, label="precision")
  axes.plot(all_classes.confidences, all_classes.recall, color=_COLORS[2], linewidth=1.6, label="recall")
  axes.plot(all_classes.confidences, all_classes.f1, color=_COLORS[0], linewidth=3, label="F1")
  x, y = all_classes.best_confidence, all_classes.best_f1
  axes.axvline(x, color=_COLORS[0], linewidth=1, linestyle=":", label=f"best F1 {y:.3f} at {x:.3f}")
  axes.plot([x], [y], marker="o", color=_COLORS[0], markersize=7, zorder=4)
  _unit_axes(axes, "confidence (detections with a higher score count)", "precision, recall, F1")
  _title(
    axes, f"F1 over confidence, IoU {curves.iou_threshold:g}", "all classes together" if has_many else curves.pr[0].name
  )
  _legend_beside(axes)
  return figure


def plot_class_ap(rows: Sequence[dict[str, Any]], key: str = "AP") -> Figure:
  """A bar per class, the best on top; classes without truths are left out.

  Args:
    rows: a table of classes with the columns name, truths and `key`.
    key: the column to draw, in [0, 1].
  """
  present = sorted((row for row in rows if row[key] is not None and row["truths"]), key=lambda row: row[key])
  figure, axes = _figure(7.6, 1.5 + 0.19 * max(len(present), 4))
  values = [row[key] for row in present]
  axes.barh(range(len(present)), values, color=_COLORS[0], height=0.72)
  for position, value in enumerate(values):
    axes.text(value + 0.008, position, f"{value:.3f}", va="center", fontsize=7)
  labels = [f"{_short(row['name'])} ({row['truths']})" for row in present]
  _plain(axes.set_yticks(range(len(present)), labels, fontsize=8))
  axes.set_ylim(-0.6, max(len(present), 1) - 0.4)
  axes.set_xlim(0, min(max([*values, 0.1]) * 1.15, 1.07))
  axes.grid(axis="x", color="#E6E8EC", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.set_xlabel(key)
  axes.set_ylabel("class (number of truths)")
  absent = len(rows) - len(present)
  _title(
    axes, f"{key} of each class", f"{len(present)} classes" + (f"; {absent} without truths not shown" if absent else "")
  )
  return figure


def plot_confusion(matrix: ConfusionMatrix) -> Figure:
  """The confusion matrix of a detector: each row as shares of its objects, cells with their counts where they fit."""
  subtitle = f"IoU {matrix.iou_threshold:g}, confidence above {matrix.conf_threshold:g}"
  return plot_confusion_counts(matrix.names, matrix.counts, subtitle)


def plot_confusion_counts(names: Sequence[str], counts: NDArray[np.int64], subtitle: str = "") -> Figure:
  """A confusion matrix from names and counts (k, k), rows the truth; of more than 100 classes the most confused ones."""
  total = len(names)
  shown = _most_confused(names, counts)
  sums = counts.sum(axis=1, keepdims=True)
  share = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
  names = [names[index] for index in shown]
  counts, share = counts[np.ix_(shown, shown)], share[np.ix_(shown, shown)]
  k = len(names)
  cell = 0.56 if k <= 12 else 0.36 if k <= 25 else 0.23
  figure, axes = _figure(2.9 + cell * k, 2.5 + cell * k)
  image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
  size = 9 if k <= 12 else 8
  labels = [_short(name) for name in names]
  _plain(axes.set_xticks(range(k), labels, rotation=90, fontsize=size))
  _plain(axes.set_yticks(range(k), labels, fontsize=size))
  axes.tick_params(length=0)
  axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
  axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
  axes.grid(which="minor", color="#E6E8EC", linewidth=0.5)
  axes.tick_params(which="minor", length=0)
  has_background = names[-1] == BACKGROUND
  if has_background:
    axes.axhline(k - 1.5, color="#444444", linewidth=1)
    axes.axvline(k - 1.5, color="#444444", linewidth=1)
    axes.add_patch(_hatched_cell(k - 1))
  _write_counts(axes, counts, share, is_small=k > 25)
  axes.set_xlabel("detected as (background: missed)" if has_background else "classified as")
  axes.set_ylabel("truth" + (" (background: false detections)" if has_background else ""))
  left_out = f"; the {k} most confused of {total} classes" if k < total else ""
  _title(axes, "Confusion matrix", f"{subtitle}{left_out}".strip("; "))
  # One inch is one inch, whatever the number of classes.
  bar = figure.colorbar(
    image,
    ax=axes,
    fraction=0.18 / (2.9 + cell * k),
    pad=0.25 / (2.9 + cell * k),
    aspect=22,
    shrink=min(1.0, 4 / (cell * k)),
  )
  bar.set_label("share of the row")
  return figure


def _most_confused(names: Sequence[str], counts: NDArray[np.int64]) -> list[int]:
  """All classes, or, of too many, those of the most frequent confusions; and the background."""
  if len(names) <= _MAX_MATRIX:
    return list(range(len(names)))
  classes = len(names) - (names[-1] == BACKGROUND)
  confused = counts[:classes, :classes].copy()
  np.fill_diagonal(confused, 0)
  shown: dict[int, None] = {}
  for cell in np.argsort(-confused, axis=None, kind="stable"):
    shown |= dict.fromkeys(divmod(int(cell), classes))
    if len(shown) >= _MAX_SHOWN - 1:
      break
  return sorted({*shown, *range(classes, len(names))})


def _hatched_cell(position: int) -> Any:
  from matplotlib.patches import Rectangle

  corner = (position - 0.5, position - 0.5)
  return Rectangle(corner, 1, 1, facecolor="#F1F2F4", edgecolor="#B8BDC6", hatch="////", linewidth=0)


def _write_counts(axes: Axes, counts: NDArray[np.int64], share: NDArray[np.float64], is_small: bool) -> None:
  """The counts in their cells; a number that is too long for a small cell is written in thousands."""
  for row, column in np.argwhere(counts > 0):
    text = _short_count(int(counts[row, column]), 1_000 if is_small else 10_000)
    size = 6 if is_small else 8
    color = "white" if share[row, column] > 0.55 else "#222222"
    axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)


def _short_count(count: int, limit: int) -> str:
  return str(count) if count < limit else f"{count / 1000:.0f}k"


def save_png(figure: Figure, path: Path) -> Path:
  """Writes a figure; the file appears whole or not at all."""
  with written_beside(path) as file, fitted(figure):
    figure.savefig(file, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.15, facecolor="white")
  return path


def _figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  # Not pyplot: it would keep the figure alive and choose a backend for the whole process.
  figure = Figure(figsize=(width_in, height_in), layout="constrained")
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  axes.spines[["top", "right"]].set_visible(False)
  return figure, axes


def _unit_axes(axes: Axes, x_label: str, y_label: str) -> None:
  axes.set_xlim(0, 1)
  axes.set_ylim(0, 1.02)
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  axes.grid(color="#E6E8EC", linewidth=0.8)
  axes.set_axisbelow(True)


def _title(axes: Axes, title: str, subtitle: str) -> None:
  axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=20 if subtitle else 6)
  axes.annotate(
    subtitle,
    xy=(0, 1),
    xytext=(0, 5),
    xycoords="axes fraction",
    textcoords="offset points",
    fontsize=9,
    color="#555555",
    parse_math=False,
  )


def _legend_beside(axes: Axes) -> None:
  if axes.get_legend_handles_labels()[0]:
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    _plain(legend.get_texts())


def _plain(texts: Any) -> None:
  """Class names are shown as they are, dollar signs included."""
  for item in texts:
    label = getattr(item, "label1", item)
    label.set_parse_math(False)


def _short(name: str, limit: int = 22) -> str:
  return name if len(name) <= limit else name[: limit - 1] + "…"
