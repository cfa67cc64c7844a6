"""Figures of an analysis, in the manner of the PRN paper's figures 5 and 6. matplotlib is imported when one is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.analyze.analysis import Analysis
from prn_jax.files.disk import written_beside
from prn_jax.graph.gradients import LOSS, LayerGradients

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

SHARES = "YlGnBu"  # colour map of shares of channels; nothing is white
COUNTS = "YlGnBu"
BAR = "#5B7BA8"
LIVE, WAITING = "#C9D6E8", "#D55E00"
LINE = "#8A929E"
CUT = "#D1007A"  # visible on every colour of COUNTS
MOST_NAMED = 42  # layers whose names fit below a figure; of more, those that begin a stage are named
NAME_GAP_IN = 0.115  # least distance of two names beside each other
PANEL_WIDTH_IN = 11.0
AXES_WIDTH_IN = 9.0  # of it, between the labels on both sides
BARS_IN = 0.6
FORMATS = ("png", "svg")
DPI = 110


def plot_timestamps(models: Sequence[Analysis]) -> Figure:
  """Layers across, timestamps up; colour: in how many of the layer's combinations a timestamp stands. The bars above
  are the layer's number of combinations of timestamps."""
  longest = max((layer.timestamps[-1] for model in models for layer in model.layers if layer.timestamps), default=1)

  def grid(model: Analysis) -> NDArray[np.float64]:
    counts = np.zeros((longest, len(model.layers)))
    for column, layer in enumerate(model.layers):
      for times, _ in {(channels.timestamps, channels.paths) for channels in layer.ranges}:
        counts[np.array(times, int) - 1, column] += 1
    return counts

  def finish(axes: Axes, model: Analysis) -> None:
    axes.set_ylabel("timestamp (layers from the loss)")

  panel = _Panel(
    "Gradient timestamps",
    lambda layer: layer.timestamp_combinations,
    grid,
    finish,
    "combinations with the timestamp",
    is_share=False,
  )
  return _grids(models, panel, height_in=1.2 + 0.036 * max(longest, 40), first=1)


def plot_sources(models: Sequence[Analysis]) -> Figure:
  """Layers across, sources up (the losses first); colour: share of the layer's channels that a source's gradient
  reaches without passing another layer with weights. The bars above are the layer's number of combinations of
  sources."""
  rows = max(len(_source_names(model)) for model in models)
  height_in = 1.2 + 0.062 * min(max(rows, 30), 110)

  def grid(model: Analysis) -> NDArray[np.float64]:
    row = {name: i for i, name in enumerate(_source_names(model))}
    shares = np.zeros((len(row), len(model.layers)))
    for column, layer in enumerate(model.layers):
      for channels in layer.ranges:
        for source in channels.sources:
          shares[row[source], column] += 100 * (channels.end - channels.start) / layer.shape.channels
    return shares

  def finish(axes: Axes, model: Analysis) -> None:
    names = _source_names(model)
    losses = len(names) - len(model.layers)
    axes.set_ylabel("source of the gradient")
    if len(names) <= MOST_NAMED:
      axes.set_yticks(range(len(names)), names, fontsize=7)
      return
    starts = [len(names) - 1 - start for start in _stage_starts(model)]
    ticks = _apart([(losses - 1) / 2, losses, *reversed(starts)], height_in / len(names))
    labels = [f"{losses} loss{'es' if losses > 1 else ''}", *(names[int(tick)] for tick in ticks[1:])]
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.set_yticks(range(len(names)), minor=True)
    for start in starts:
      axes.axhline(start + 0.5, color=LINE, linewidth=0.5)
    axes.axhline(losses - 0.5, color=LINE, linewidth=0.5)

  panel = _Panel(
    "Gradient sources",
    lambda layer: layer.source_combinations,
    grid,
    finish,
    "share of the layer's channels (%)",
    is_share=True,
  )
  return _grids(models, panel, height_in, first=0)


def _source_names(model: Analysis) -> list[str]:
  """The losses, then the layers with weights from the last to the first."""
  losses = list(dict.fromkeys(s for layer in model.layers for s in layer.sources if s.startswith(LOSS)))
  return [*losses, *(layer.name for layer in reversed(model.layers))]


def plot_ranges(models: Sequence[Analysis]) -> Figure:
  """Every layer a column of its channels, cut where the combination changes; colour: number of sources."""
  import matplotlib
  from matplotlib.collections import PolyCollection

  figure, panels = _figure([3.0] * len(models), labels_in=1.6 * len(models))
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
    _mark_stages([axes], model)
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
  figure, panels = _figure([2.6] * len(models), labels_in=1.0 * len(models))
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


class _Panel(NamedTuple):
  """What `_grids` shows of each model.

  Attributes:
    title: the title of the panel.
    combinations: number of a layer's combinations, the height of its bar.
    grid: model -> (rows, layers) values; 0 stays white.
    finish: adds the axis on the left.
    label: what the values are.
    is_share: they are percentages; else numbers of combinations.
  """

  title: str
  combinations: Callable[[LayerGradients], int]
  grid: Callable[[Analysis], NDArray[np.float64]]
  finish: Callable[[Axes, Analysis], None]
  label: str
  is_share: bool


def _grids(models: Sequence[Analysis], panel: _Panel, height_in: float, first: int) -> Figure:
  """Bars and below them a grid for each model, with rows numbered from `first`."""
  import matplotlib
  from matplotlib.colors import ListedColormap

  figure, axes = _figure([BARS_IN, height_in] * len(models), labels_in=1.6 * len(models))
  grids = [panel.grid(model) for model in models]
  colors: Any = SHARES
  limits = (0.0, 100.0)
  if not panel.is_share:  # a colour per count
    top = max(2, *(int(grid.max()) for grid in grids))
    colors = ListedColormap(matplotlib.colormaps[COUNTS](np.linspace(0.2, 1, top)))
    limits = (0.5, top + 0.5)
  most = max(panel.combinations(layer) for model in models for layer in model.layers)
  for bars, cells, model, grid in zip(axes[::2], axes[1::2], models, grids, strict=True):
    counts = [panel.combinations(layer) for layer in model.layers]
    bars.bar(range(len(counts)), counts, width=0.8, color=BAR)
    bars.set_ylim(0, 1.1 * max(most, 2))
    bars.set_ylabel("combi-\nnations", fontsize=8)
    bars.yaxis.set_major_locator(_whole_numbers(4))
    bars.spines[["top", "right"]].set_visible(False)
    rows, columns = grid.shape
    image = cells.imshow(
      np.ma.masked_equal(grid, 0), cmap=colors, clim=limits, aspect="auto", origin="lower",
      interpolation="nearest", extent=(-0.5, columns - 0.5, first - 0.5, first + rows - 0.5),
    )  # fmt: skip
    cells.set_ylim(first - 0.5, first + rows - 0.5)
    if max(rows, columns) <= MOST_NAMED:  # cells are large enough for borders
      cells.hlines(np.arange(first, first + rows) - 0.5, -0.5, columns - 0.5, color="white", linewidth=1)
      cells.vlines(np.arange(columns) - 0.5, first - 0.5, first + rows - 0.5, color="white", linewidth=1)
    panel.finish(cells, model)
    _name_columns(cells, model)
    _mark_stages([bars, cells], model)
    bars.tick_params(axis="x", bottom=False, labelbottom=False)
    _title(bars, f"{panel.title}: {model.name}", f"{sum(counts)} combinations in {len(model.layers)} layers")
  bar = figure.colorbar(image, ax=axes[1::2], fraction=0.025, pad=0.01)
  bar.set_label(panel.label)
  if not panel.is_share:
    bar.locator = _whole_numbers()
    bar.update_ticks()
  return figure


def _figure(heights_in: Sequence[float], labels_in: float) -> tuple[Figure, list[Axes]]:
  """A figure of panels of these heights, one above the other; `labels_in` in all is added for titles and labels."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  # Not pyplot: it would keep the figure alive and choose a backend for the whole process.
  figure = Figure(figsize=(PANEL_WIDTH_IN, sum(heights_in) + labels_in), layout="constrained")
  FigureCanvasAgg(figure)
  figure.get_layout_engine().set(h_pad=0.08, hspace=0.02)  # type: ignore[union-attr, call-arg]
  return figure, list(figure.subplots(len(heights_in), 1, squeeze=False, height_ratios=heights_in)[:, 0])


def _name_columns(axes: Axes, model: Analysis) -> None:
  """Names of the layers below the figure: all where they fit, else those that begin a stage."""
  count = len(model.layers)
  ticks: Sequence[float] = range(count)
  if count > MOST_NAMED:
    ticks = _apart(_stage_starts(model), AXES_WIDTH_IN / count)
    axes.set_xticks(range(count), minor=True)
    # the empty line keeps the title of the next panel away
    axes.set_xlabel("layers with weights, from the image to the results; named where a stage begins\n")
  axes.set_xticks(ticks, [model.layers[int(tick)].name for tick in ticks], rotation=90, fontsize=7)


def _stage_starts(model: Analysis) -> list[int]:
  """Index of the first layer of each stage."""
  return list(itertools.accumulate((len(stage.layers) for stage in model.stages[:-1]), initial=0))


def _apart(ticks: Sequence[float], inches_each: float) -> list[float]:
  """The ticks of an ascending row whose names do not touch the one kept before."""
  kept: list[float] = []
  for tick in ticks:
    if not kept or (tick - kept[-1]) * inches_each >= NAME_GAP_IN:
      kept.append(tick)
  return kept


def _mark_stages(panels: Sequence[Axes], model: Analysis) -> None:
  """A line between two stages in all panels, and the names of the stages above the first panel."""
  count = len(model.layers)
  starts = _stage_starts(model)
  for axes in panels:
    axes.set_xlim(-0.5, count - 0.5)
    for start in starts[1:]:
      axes.axvline(start - 0.5, color=LINE, linewidth=0.7)
  for stage, start in zip(model.stages, starts, strict=True):
    label = stage.name.split(" #")[0]
    if len(stage.layers) / count * PANEL_WIDTH_IN > 0.075 * len(label):  # inches that the name needs
      panels[0].text(
        start + (len(stage.layers) - 1) / 2, 1.01, label, transform=panels[0].get_xaxis_transform(), ha="center",
        va="bottom", fontsize=7.5, color="#444444", parse_math=False,
      )  # fmt: skip


def _title(axes: Axes, title: str, subtitle: str) -> None:
  text = axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=18)
  text.set_parse_math(False)
  right = axes.set_title(subtitle, loc="right", fontsize=9, color="#555555", pad=18)
  right.set_parse_math(False)


def _whole_numbers(most: int = 10) -> Any:
  """At most so many ticks, all at whole numbers."""
  from matplotlib.ticker import MaxNLocator

  return MaxNLocator(nbins=most, integer=True)
