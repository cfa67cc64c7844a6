"""Figures of an analysis, in the manner of the PRN paper's figures 5 and 6. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.analyze.analysis import Analysis
from prn_jax.formats.files import written_beside
from prn_jax.graph.gradients import LOSS

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

SHARES = "YlGnBu"  # colour map of shares of channels; nothing is white
COUNTS = "YlGnBu"
LIVE, WAITING = "#C9D6E8", "#D55E00"
LINE = "#8A929E"
CUT = "#D1007A"  # visible on every colour of COUNTS
MOST_NAMED = 42  # layers whose names fit below a figure
PANEL_WIDTH_IN = 11.0
FORMATS = ("png", "svg")
DPI = 110


def plot_timestamps(models: Sequence[Analysis]) -> Figure:
  """Layers across, timestamps up; colour: share of the layer's channels that a gradient reaches at that time."""
  longest = max((layer.timestamps[-1] for model in models for layer in model.layers if layer.timestamps), default=1)

  def grid(model: Analysis) -> NDArray[np.float64]:
    shares = np.zeros((longest, len(model.layers)))
    for column, layer in enumerate(model.layers):
      for part in layer.ranges:
        for time in part.timestamps:
          shares[time - 1, column] += (part.end - part.start) / layer.shape.channels
    return shares

  def finish(axes: Axes, model: Analysis) -> None:
    axes.set_ylabel("timestamp\n(layers from the loss)")

  return _grids(models, "Gradient timestamps", grid, finish, height_in=1.2 + 0.036 * max(longest, 40), first=1)


def plot_sources(models: Sequence[Analysis]) -> Figure:
  """Layers across, sources up (the losses first); colour: share of the layer's channels that a source's gradient
  reaches without passing another layer with weights."""

  def names(model: Analysis) -> list[str]:
    losses = list(dict.fromkeys(s for layer in model.layers for s in layer.sources if s.startswith(LOSS)))
    return [*losses, *(layer.name for layer in reversed(model.layers))]

  def grid(model: Analysis) -> NDArray[np.float64]:
    rows = {name: i for i, name in enumerate(names(model))}
    shares = np.zeros((len(rows), len(model.layers)))
    for column, layer in enumerate(model.layers):
      for part in layer.ranges:
        for source in part.sources:
          shares[rows[source], column] += (part.end - part.start) / layer.shape.channels
    return shares

  def finish(axes: Axes, model: Analysis) -> None:
    labels = names(model)
    axes.set_ylabel("source of the gradient")
    if len(labels) <= MOST_NAMED:
      axes.set_yticks(range(len(labels)), labels, fontsize=7)
    else:
      losses = sum(name.startswith(LOSS) for name in labels)
      last, first = losses, len(labels) - 1
      axes.set_yticks([0, last, first], [f"{losses} loss{'es' if losses > 1 else ''}", labels[last], labels[first]])
      axes.tick_params(axis="y", labelsize=7)

  rows = max(len(model.layers) for model in models)
  return _grids(models, "Gradient sources", grid, finish, height_in=1.2 + 0.05 * max(rows, 30), first=0)


def plot_ranges(models: Sequence[Analysis]) -> Figure:
  """Every layer a column of its channels, cut where the combination changes; colour: number of sources."""
  import matplotlib
  from matplotlib.collections import PolyCollection

  figure, panels = _figure(len(models), 3.0)
  colors = matplotlib.colormaps[COUNTS].with_extremes(under="#E6E8EC")  # no gradient at all
  most = max(len(part.sources) for model in models for layer in model.layers for part in layer.ranges)
  for axes, model in zip(panels, models, strict=True):
    boxes, counts, cuts = [], [], []
    for column, layer in enumerate(model.layers):
      left, right = column - 0.45, column + 0.45
      for part in layer.ranges:
        low, high = (100 * c / layer.shape.channels for c in (part.start, part.end))
        boxes.append([(left, low), (left, high), (right, high), (right, low)])
        counts.append(len(part.sources))
        if low:
          cuts.append((low, left, right))
    patches = PolyCollection(boxes, array=counts, cmap=colors, linewidths=0, clim=(0.5, max(most, 2)))
    axes.add_collection(patches)
    if cuts:
      axes.hlines(*zip(*cuts, strict=True), color=CUT, linewidth=1.1)
    axes.set_ylim(0, 100)
    axes.set_ylabel("channels of the layer (%)")
    combinations = model.totals.source_combinations
    _name_columns(axes, model)
    _title(
      axes, f"Channel ranges: {model.name}", f"{combinations} combinations of sources in {len(model.layers)} layers"
    )
  bar = figure.colorbar(patches, ax=panels, fraction=0.025, pad=0.01)
  bar.set_label("sources that reach the range")
  bar.locator = _whole_numbers()
  bar.update_ticks()
  return figure


def plot_memory(models: Sequence[Analysis]) -> Figure:
  """Feature maps alive while each layer runs, and what of them only waits for a shortcut."""
  figure, panels = _figure(len(models), 2.6)
  top = max(model.memory.peak_bytes for model in models) / 1e6
  for axes, model in zip(panels, models, strict=True):
    live = np.array(model.memory.live_bytes) / 1e6
    waiting = np.array(model.memory.shortcut_bytes) / 1e6
    steps = np.arange(len(live) + 1)
    axes.stairs(live, steps, fill=True, color=LIVE, label="alive")
    axes.stairs(live, steps, color="#5B7BA8", linewidth=0.9)
    if waiting.any():
      axes.stairs(waiting, steps, fill=True, color=WAITING, label="of it only waiting for a shortcut")
    axes.set_xlim(0, len(live))
    axes.set_ylim(0, 1.12 * top)
    axes.set_ylabel("feature maps (MB)")
    axes.set_xlabel("layer of the graph, in the order of computation")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    memory = model.memory
    facts = f"peak {memory.peak_bytes / 1e6:.2f} MB"
    if memory.kept:
      facts += f"; {len(memory.kept)} maps wait for shortcuts, {memory.kept_bytes / 1e6:.2f} MB in sum"
    _title(axes, f"Live feature maps: {model.name}", f"{facts} (float32, batch 1)")
  return figure


FIGURES: dict[str, Callable[[Sequence[Analysis]], Figure]] = {
  "timestamps": plot_timestamps,
  "sources": plot_sources,
  "ranges": plot_ranges,
  "memory": plot_memory,
}


def save(figure: Figure, path: Path) -> Path:
  """Writes a figure as its suffix says; the file appears whole or not at all."""
  import matplotlib

  kind = path.suffix[1:]
  # the same figure gives the same file
  fixed: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
  with written_beside(path) as file, matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):
    figure.savefig(file, format=kind, dpi=DPI, facecolor="white", **fixed)
  return path


def _grids(
  models: Sequence[Analysis],
  title: str,
  grid: Callable[[Analysis], NDArray[np.float64]],
  finish: Callable[[Axes, Analysis], None],
  height_in: float,
  first: int,
) -> Figure:
  """A panel per model: a grid of shares in [0, 1], rows numbered from `first`."""
  figure, panels = _figure(len(models), height_in)
  for axes, model in zip(panels, models, strict=True):
    shares = grid(model)
    rows, columns = shares.shape
    image = axes.imshow(
      np.ma.masked_equal(100 * shares, 0), cmap=SHARES, vmin=0, vmax=100, aspect="auto", origin="lower",
      interpolation="nearest", extent=(-0.5, columns - 0.5, first - 0.5, first + rows - 0.5),
    )  # fmt: skip
    axes.set_ylim(first - 0.5, first + rows - 0.5)
    if max(rows, columns) <= MOST_NAMED:  # cells are large enough for borders
      axes.hlines(np.arange(first, first + rows) - 0.5, -0.5, columns - 0.5, color="white", linewidth=1)
      axes.vlines(np.arange(columns) - 0.5, first - 0.5, first + rows - 0.5, color="white", linewidth=1)
    finish(axes, model)
    _name_columns(axes, model)
    sums = model.totals
    count = sums.timestamp_combinations if "timestamps" in title else sums.source_combinations
    _title(axes, f"{title}: {model.name}", f"{count} combinations in {len(model.layers)} layers")
  bar = figure.colorbar(image, ax=panels, fraction=0.025, pad=0.01)
  bar.set_label("share of the layer's channels (%)")
  return figure


def _figure(panels: int, height_in: float) -> tuple[Figure, list[Axes]]:
  """A figure of `panels` panels, one above the other, each `height_in` high (and a bit for its labels)."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  # Not pyplot: it would keep the figure alive and choose a backend for the whole process.
  figure = Figure(figsize=(PANEL_WIDTH_IN, panels * (height_in + 1.0)), layout="constrained")
  FigureCanvasAgg(figure)
  figure.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr, call-arg]
  return figure, list(figure.subplots(panels, 1, squeeze=False)[:, 0])


def _name_columns(axes: Axes, model: Analysis) -> None:
  """Names of the layers where they fit, and the stages: a line between them and their names above."""
  count = len(model.layers)
  axes.set_xlim(-0.5, count - 0.5)
  if count <= MOST_NAMED:
    axes.set_xticks(range(count), [layer.name for layer in model.layers], rotation=90, fontsize=7)
  else:
    axes.set_xlabel("layers with weights, from the image to the results")
  start = 0
  for stage in model.stages:
    end = start + len(stage.layers)
    if start:
      axes.axvline(start - 0.5, color=LINE, linewidth=0.7)
    label = stage.name.split(" #")[0]
    if (end - start) / count * PANEL_WIDTH_IN > 0.075 * len(label):  # inches that the name needs
      axes.text(
        (start + end - 1) / 2, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
        fontsize=7.5, color="#444444", parse_math=False,
      )  # fmt: skip
    start = end


def _title(axes: Axes, title: str, subtitle: str) -> None:
  text = axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=18)
  text.set_parse_math(False)
  right = axes.set_title(subtitle, loc="right", fontsize=9, color="#555555", pad=18)
  right.set_parse_math(False)


def _whole_numbers() -> Any:
  from matplotlib.ticker import MaxNLocator

  return MaxNLocator(integer=True)
