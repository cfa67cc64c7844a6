"""Pictures of an experiment. matplotlib is imported when the first one is drawn, and never opens a window."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import estimate, figures
from prn_jax.files.disk import written_beside

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart, and marks, for those who print in grey.
COLORS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
MARKS = ("o", "s", "^", "D", "v", "P")
DPI = 100
NEAR = 0.02  # share of all epochs within which two evaluations would be drawn upon each other


def panels(rows: int, columns: int, width_in: float = 4.2, height_in: float = 3.8) -> tuple[Figure, list[Axes]]:
  """A figure with rows x columns axes of this size each, row by row."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width_in * columns, height_in * rows), layout="constrained")
  FigureCanvasAgg(figure)
  axes = list(figure.subplots(rows, columns, squeeze=False).flat)
  for one in axes:
    one.spines[["top", "right"]].set_visible(False)
    one.grid(color="#E6E8EC", linewidth=0.8)
    one.set_axisbelow(True)
  return figure, axes


def draw_curves(
  axes: Axes,
  results: Sequence[Result],
  names: Mapping[str, str],
  figure: str,
  styles: Sequence[int] = range(len(COLORS)),
) -> None:
  """A figure over the epochs: the mean over seeds, and a band of one standard deviation to either side.

  Args:
    axes: where.
    results: the results of which the variants in `names` are drawn.
    names: variant -> text in the legend.
    figure: the name of a figure of the evaluations, such as "top1"; drawn in percent.
    styles: index of every name's colour and mark.
  """
  from matplotlib.ticker import MaxNLocator

  for style, (variant, name) in zip(styles, names.items(), strict=False):
    chosen = [r for r in results if r.variant == variant]
    if not chosen:
      continue
    epochs, rows = _shared([[row["epoch"] for row in r.curve] for r in chosen])
    points = [
      estimate([100 * r.curve[i][figure] for r, i in zip(chosen, at, strict=True)]) for at in zip(*rows, strict=True)
    ]
    means = [point.mean for point in points]
    axes.plot(epochs, means, color=COLORS[style], marker=MARKS[style], markersize=4, linewidth=1.5, label=name)
    if len(chosen) > 1:
      spread = [point.deviation or 0.0 for point in points]
      low, high = ([m + side * s for m, s in zip(means, spread, strict=True)] for side in (-1, 1))
      axes.fill_between(epochs, low, high, color=COLORS[style], alpha=0.15, linewidth=0)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlabel("epochs")
  axes.set_ylabel(f"{figure}, %")


def _shared(runs: Sequence[Sequence[float]]) -> tuple[list[float], list[list[int]]]:
  """The epochs at which all runs were evaluated, and per run the index of its evaluation there: runs on different machines may
  have been evaluated at other times, and means are of equal epochs alone."""
  fewest = min(runs, key=len)
  near = NEAR * fewest[-1]
  epochs, rows = [], []
  for epoch in (fewest[i] for i in _spaced(fewest)):
    nearest = [min(range(len(run)), key=lambda i: abs(run[i] - epoch)) for run in runs]
    if all(abs(run[i] - epoch) < near for run, i in zip(runs, nearest, strict=True)):
      epochs.append(epoch)
      rows.append(nearest)
  return epochs, [list(one) for one in zip(*rows, strict=True)]


def _spaced(epochs: Sequence[float]) -> list[int]:
  """Indices to draw: all but the last but one where the last step's evaluation follows it at once."""
  indices = list(range(len(epochs)))
  if len(epochs) > 2 and epochs[-1] - epochs[-2] < NEAR * epochs[-1]:
    del indices[-2]
  return indices


class Point(NamedTuple):
  """A variant in the picture of accuracy over cost.

  Attributes:
    variant: the variant of the results.
    text: beside the point; may be empty.
    offset_pt: distance of the text's middle from the point, to the right and up.
  """

  variant: str
  text: str = ""
  offset_pt: tuple[float, float] = (0.0, 9.0)


def draw_trade(
  axes: Axes,
  results: Sequence[Result],
  start: str,
  families: Mapping[str, Sequence[Point]],
  figure: str,
  styles: Sequence[int] = range(len(COLORS)),
) -> None:
  """The final figure over BFLOPs, with error bars of one standard deviation.

  Args:
    axes, results, figure: the arguments of `draw_curves`.
    start: the variant where the line of every family begins.
    families: text in the legend -> points, joined in order.
    styles: index of the colour and mark of `start`, then of every family.
  """
  at = {}
  for variant in (start, *(point.variant for listed in families.values() for point in listed)):
    if values := figures(results, variant, figure):
      bflops = next(r.bflops for r in results if r.variant == variant)
      at[variant] = (bflops, estimate(list(values.values())))

  def draw(variants: Sequence[str], style: int, label: str) -> None:
    x, y = [at[name][0] for name in variants], [at[name][1] for name in variants]
    axes.errorbar(
      x, [one.mean for one in y], yerr=[one.deviation or 0.0 for one in y],
      color=COLORS[style], marker=MARKS[style], markersize=6, linewidth=1.2, capsize=3, label=label, zorder=3,
    )  # fmt: skip

  if start in at:
    draw([start], styles[0], start)
  for style, (family, listed) in zip(styles[1:], families.items(), strict=False):
    points = [point for point in listed if point.variant in at]
    if not points:
      continue
    draw([point.variant for point in points], style, family)
    if start in at:
      ends = [at[start], at[points[0].variant]]
      axes.plot([x for x, _ in ends], [y.mean for _, y in ends], color=COLORS[style], linewidth=1.2, zorder=2)
    for point in points:
      bflops, one = at[point.variant]
      axes.annotate(
        point.text, (bflops, one.mean), xytext=point.offset_pt, textcoords="offset points",
        ha="center", va="center", fontsize=8, color=COLORS[style],
      )  # fmt: skip
  axes.set_xlabel("BFLOPs")
  axes.set_ylabel(f"{figure} at the end, %")


def legend(axes: Axes) -> None:
  """A legend of what is drawn, where rising curves leave room; none where nothing is drawn."""
  if axes.get_legend_handles_labels()[1]:
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def save(figure: Figure, path: Path) -> Path:
  """Writes a PNG of 256 colours, which is a third of the bytes; it appears whole or not at all."""
  from PIL import Image

  drawn = io.BytesIO()
  figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
  with Image.open(drawn) as picture, written_beside(path) as file:
    picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT).save(file, format="png", optimize=True)
  return path
