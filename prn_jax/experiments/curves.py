"""Pictures of an experiment. matplotlib is imported when the first one is drawn, and never opens a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import estimate, figures
from prn_jax.formats.files import written_beside

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart, and marks, for those who print in grey.
COLORS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
MARKS = ("o", "s", "^", "D", "v", "P")
DPI = 80


def panels(count: int, width_in: float = 4.2, height_in: float = 3.8) -> tuple[Figure, list[Axes]]:
  """A figure with `count` axes side by side."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width_in * count, height_in), layout="constrained")
  FigureCanvasAgg(figure)
  axes = list(figure.subplots(1, count, squeeze=False)[0])
  for one in axes:
    one.spines[["top", "right"]].set_visible(False)
    one.grid(color="#E6E8EC", linewidth=0.8)
    one.set_axisbelow(True)
  return figure, axes


def draw_curves(axes: Axes, results: Sequence[Result], names: Mapping[str, str], figure: str) -> None:
  """A figure over the epochs: the mean over seeds, and a band of one standard deviation to either side.

  Args:
    axes: where.
    results: of these, the variants in `names` are drawn.
    names: variant -> text in the legend, in the order of the colours.
    figure: of the evaluations, such as "top1"; drawn in percent.
  """
  from matplotlib.ticker import MaxNLocator

  for color, mark, (variant, name) in zip(COLORS, MARKS, names.items(), strict=False):
    chosen = [r for r in results if r.variant == variant]
    if not chosen:
      continue
    epochs = [row["epoch"] for row in chosen[0].curve]
    points = [estimate([100 * r.curve[i][figure] for r in chosen]) for i in range(len(epochs))]
    means = [point.mean for point in points]
    axes.plot(epochs, means, color=color, marker=mark, markersize=4, linewidth=1.5, label=name)
    if len(chosen) > 1:
      spread = [point.deviation or 0.0 for point in points]
      low, high = ([m + side * s for m, s in zip(means, spread, strict=True)] for side in (-1, 1))
      axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlabel("epochs")
  axes.set_ylabel(f"{figure}, %")


def draw_trade(axes: Axes, results: Sequence[Result], names: Mapping[str, Sequence[str]], figure: str) -> None:
  """The final figure over BFLOPs, with error bars of one standard deviation; each family's variants are joined.

  Args:
    axes, results, figure: as for `draw_curves`.
    names: family -> its variants, in the order of the colours.
  """
  for color, mark, (family, variants) in zip(COLORS, MARKS, names.items(), strict=False):
    points = []
    for variant in variants:
      if values := figures(results, variant, figure):
        bflops = next(r.bflops for r in results if r.variant == variant)
        points.append((bflops, estimate(list(values.values()))))
    if points:
      axes.errorbar(
        [x for x, _ in points],
        [y.mean for _, y in points],
        yerr=[y.deviation or 0.0 for _, y in points],
        color=color, marker=mark, markersize=5, linewidth=1, capsize=3, label=family,
      )  # fmt: skip
  axes.set_xlabel("BFLOPs")
  axes.set_ylabel(f"{figure} at the end, %")


def save(figure: Figure, path: Path) -> Path:
  """Writes a PNG; it appears whole or not at all."""
  with written_beside(path) as file:
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
  return path
