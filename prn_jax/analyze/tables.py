"""Tables of an analysis as text."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence

from prn_jax.analyze.analysis import Analysis
from prn_jax.graph.cost import peak_activation_bytes
from prn_jax.graph.gradients import LayerGradients

HEADINGS = ("timestamps", "sources", "timestamp comb.", "source comb.")
CELL_WIDTH = 60  # longer cells of the table of one layer take several lines
RANGE_HEADINGS = ["channels", "timestamps", "paths at each", "sources"]


def stage_table(models: Sequence[Analysis]) -> str:
  """A row per stage; for two models each cell holds both values."""
  names = list(dict.fromkeys(stage.name for model in models for stage in model.stages))
  by_name = [{stage.name: stage for stage in model.stages} for model in models]
  rows = [["stage", "layers", *HEADINGS]]
  for name in names:
    found = [stages.get(name) for stages in by_name]
    columns = [(len(stage.layers), *stage.totals) if stage else (None,) * 5 for stage in found]
    rows.append([name, *(_pair(values) for values in zip(*columns, strict=True))])
  columns = [(len(model.layers), *model.totals) for model in models]
  rows.append(["all", *(_pair(values) for values in zip(*columns, strict=True))])
  title = " | ".join(f"{model.name} {model.graph.width}x{model.graph.height}" for model in models)
  return f"{title}\n{aligned(rows)}"


def _pair(values: Sequence[int | None]) -> str:
  return " | ".join("-" if value is None else f"{value}" for value in values)


def layer_table(model: Analysis) -> str:
  """A row per layer with weights."""
  rows = [["layer", "output", "ranges", "timestamps", "sources", "timestamp comb.", "source comb."]]
  for layer in model.layers:
    rows.append(
      [
        layer.name,
        str(layer.shape),
        str(len(layer.ranges)),
        runs(layer.timestamps) or "none",
        str(len(layer.sources)),
        str(layer.timestamp_combinations),
        str(layer.source_combinations),
      ]
    )
  return f"{model.name}, layer by layer\n{aligned(rows, left=4)}"


def range_table(model: Analysis, layer: LayerGradients) -> str:
  """The channel ranges of one layer with their timestamps, paths and sources, all of them."""
  rows = [RANGE_HEADINGS]
  for cells in range_rows(model, layer):
    lines = [textwrap.wrap(cell, CELL_WIDTH, break_long_words=False) for cell in cells]
    rows += [list(parts) for parts in itertools.zip_longest(*lines, fillvalue="")]
  return f"{model.name}, {layer.name} ({layer.kind}, {layer.shape})\n{aligned(rows, left=4)}"


def range_rows(model: Analysis, layer: LayerGradients) -> list[list[str]]:
  """A row per channel range of a layer, with the columns `RANGE_HEADINGS`."""
  return [
    [
      f"{channels.start}-{channels.end - 1}",
      runs(channels.timestamps) or "none",
      " ".join(map(str, channels.paths)) or "none",
      ", ".join(model.parts(channels)) or "none",
    ]
    for channels in layer.ranges
  ]


def memory_table(models: Sequence[Analysis]) -> str:
  """Live feature maps of each model, and what its shortcuts keep alive."""
  return aligned(memory_rows(models))


def memory_rows(models: Sequence[Analysis]) -> list[list[str]]:
  """A column per model, headings in the first row."""
  facts = [_memory_facts(model) for model in models]
  names = [model.name for model in models]
  rows = [[key, *(fact[key] for fact in facts)] for key in facts[0]]
  return [["memory of feature maps (float32, batch 1)", *names], *rows]


def _memory_facts(model: Analysis) -> dict[str, str]:
  memory = model.memory
  kept, full = memory.kept_bytes, memory.full_bytes
  return {
    "peak, whole maps (prn summary)": megabytes(peak_activation_bytes(model.graph)),
    "peak, channels freed when read last": megabytes(memory.peak_bytes),
    "  reached at layer": model.graph.layers[memory.peak_index].name,
    "maps that wait for a shortcut": str(len(memory.kept)),
    "  bytes kept for them, summed": megabytes(kept),
    "  if shortcuts added their whole maps": megabytes(full),
    "  kept share": f"{kept / full:.1%}" if full else "-",
    "peak of what only waits": megabytes(max(memory.shortcut_bytes)),
  }


def megabytes(count: int) -> str:
  return f"{count / 1e6:.2f} MB"


def runs(values: Sequence[int]) -> str:
  """Sorted numbers with their runs joined: (1, 2, 3, 7) is "1-3 7"."""
  found: list[list[int]] = []
  for value in values:
    if found and value == found[-1][1] + 1:
      found[-1][1] = value
    else:
      found.append([value, value])
  return " ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in found)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
  """Columns of equal width; the first `left` ones flush left, the others right."""
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = (
    "  ".join(
      f"{cell:<{w}}" if i < left else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  )
  return "\n".join(line.rstrip() for line in lines)
