"""What a sparse training leaves of the scales of batch norm: numbers, histograms and a picture, for choosing what to prune."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.detect.metrics.plots import save_png
from prn_jax.files.disk import write_text
from prn_jax.train.log import read_metrics
from prn_jax.train.sparse import SMALL, sparsity_figures

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

FILE, PICTURE = "gammas.json", "gammas.png"
EDGES = (0.0, *(float(edge) for edge in 10.0 ** np.arange(-6, 1.26, 0.25)))  # the first bin holds exact zeros, too
_MOST_BARS = 120  # beyond it, the name of a layer is no longer readable
_COLOURS = ("#d1495b", "#1b6ca8", "#66a182")
_USED = 0.01  # scales below it count as faded in the picture


def write_gammas(folder: Path, step: int, scales: Mapping[str, np.ndarray]) -> None:
  """Writes `gammas.json`: for every layer how many scales are below each of `SMALL`, and a histogram of their absolute values.

  Args:
    folder: the run directory.
    step: updates done.
    scales: layer -> (channels,) its scales.
  """
  layers = {}
  for name, scale in scales.items():
    values = np.abs(np.asarray(scale, np.float64))
    layers[name] = {
      "channels": int(values.size),
      "below": {f"{limit:g}": int(np.sum(values < limit)) for limit in SMALL},
      "zero": int(np.sum(values == 0)),
      "mean": float(values.mean()),
      "max": float(values.max()),
      "counts": _counts(values).tolist(),
    }
  found = {"step": step, "all": sparsity_figures(list(scales.values())), "edges": list(EDGES), "layers": layers}
  write_text(folder / FILE, json.dumps(found, indent=1) + "\n")


def write_picture(folder: Path, scales: Mapping[str, np.ndarray]) -> Path:
  """Draws `gammas.png` of the scales of now and of the shares in the metrics of the run directory."""
  return save_png(plot_gammas(scales, read_metrics(folder)), folder / PICTURE)


def plot_gammas(scales: Mapping[str, np.ndarray], rows: list[dict[str, Any]]) -> Figure:
  """The histogram of all scales, the faded share of every layer, and the shares over the steps.

  Args:
    scales: layer -> (channels,) its scales.
    rows: the result of `log.read_metrics`.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(12, 3.4), layout="constrained")
  histogram, bars, course = figure.subplots(1, 3)
  _histogram(histogram, np.abs(np.concatenate([np.asarray(one, np.float64) for one in scales.values()])))
  names = list(scales)
  bars.bar(range(len(names)), [float(np.mean(np.abs(scales[name]) < _USED)) for name in names], color=_COLOURS[0])
  bars.set_title(f"share below {_USED:g}, by layer", fontsize=10)
  bars.set_ylim(0, 1.02)
  if len(names) <= _MOST_BARS:
    bars.set_xticks(range(len(names)), names, rotation=90, fontsize=max(3, min(7, 240 // len(names))))
  for colour, limit in zip(_COLOURS, SMALL, strict=True):
    key = f"sparse/below_{limit:g}"
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    course.plot([step for step, _ in points], [value for _, value in points], color=colour, label=f"below {limit:g}")
  course.set_ylim(0, 1.02)
  course.set_title("share of scales over the steps", fontsize=10)
  course.legend(frameon=False, fontsize=8)
  for axes in (histogram, bars, course):
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
  return figure


def _histogram(axes: Axes, values: np.ndarray) -> None:
  counts, middles = _counts(values), [EDGES[1] / 2, *np.sqrt(np.multiply(EDGES[1:-1], EDGES[2:]))]
  axes.bar(middles, counts, width=np.diff(EDGES), color=_COLOURS[1], edgecolor="white", linewidth=0.3)
  axes.set_xscale("log")
  axes.set_xlim(EDGES[1] / 3, EDGES[-1])
  axes.set_title(f"{values.size:,} scales (gamma) by absolute value", fontsize=10)


def _counts(values: np.ndarray) -> np.ndarray:
  """How many values fall into each bin of `EDGES`; larger ones count in the last."""
  return np.histogram(np.minimum(values, EDGES[-1]), EDGES)[0]
