"""How wide the blocks of a network's residual stages are, as it was trained, and as a line would have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prn_jax.formats import darknet_cfg
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.graph.partial import SHARES

RESIDUAL = "residual"  # the variant whose stages keep their channels
# "channels": in front of a stage, then behind each block; "added": how many of them each block's shortcut adds.
Stage = Mapping[str, Sequence[int]]


def stages(graph: Graph) -> list[Stage]:
  """The stages of a classifier: its shortcuts of one source, by the size of their maps, in order.

  Example: shrink:0.5 of a stage of 32 channels and two blocks has channels [32, 24, 16] and adds [24, 16]; inside
  are [16, 16].
  """
  found: dict[tuple[int, int], dict[str, list[int]]] = {}
  for layer in graph:
    if layer.adds_sources:
      shape = graph.shapes[layer.name]
      source = graph.shapes[layer.inputs[1]].channels
      front = {"channels": [graph.shapes[_uncut(graph, layer.inputs[1])].channels], "added": [], "inner": []}
      stage = found.setdefault((shape.height, shape.width), front)
      stage["channels"].append(shape.channels)
      stage["added"].append(min(source, shape.channels))
      stage["inner"].append(min(_branch(graph, layer)))
  return [dict(stage) for stage in found.values()]


def _branch(graph: Graph, shortcut: Layer) -> list[int]:
  """Channels of the maps between the source of a shortcut and its sum, back from the sum."""
  name, source = shortcut.inputs[0], _uncut(graph, shortcut.inputs[1])
  widths = []
  while _uncut(graph, name) != source:
    widths.append(graph.shapes[name].channels)
    name = graph[name].inputs[0]
  return widths


def _uncut(graph: Graph, name: str) -> str:
  """The layer that `name` was cut out of; `name` if it is no cut."""
  while name != INPUT and (layer := graph[name]).copies:
    name = layer.inputs[0]
  return name


def trained_stages(graphs: Mapping[str, Path]) -> dict[str, list[Stage]]:
  """Variant -> stages, of the graph.cfg that trainings have left; those that are missing are left out."""
  return {name: stages(darknet_cfg.read(path).graph) for name, path in graphs.items() if path.is_file()}


def line(variant: str, channels: int, num_blocks: int) -> list[float]:
  """Channels in front of a stage and behind each block if they changed exactly linearly.

  Args:
    variant: "shrink:0.75" and the like; any other name keeps its channels.
    channels: number of channels of this stage in the residual network.
    num_blocks: number of residual blocks in the stage.

  Example: line("shrink:0.75", 16, 2) is [16, 14, 12].
  """
  family, _, gamma = variant.partition(":")
  share = {str(name): one for name, one in SHARES.items()}.get(family)
  if share is None:
    return [float(channels)] * (num_blocks + 1)
  return [channels * share(i / num_blocks, float(gamma)) for i in range(num_blocks + 1)]


def with_lines(variant: str, found: Sequence[Stage], residual: Sequence[Stage]) -> list[tuple[Stage, list[float]]]:
  """The stages of a variant, each with the line that it should follow."""
  pairs = zip(found, residual, strict=True)
  return [(stage, line(variant, full["channels"][-1], len(full["channels"]) - 1)) for stage, full in pairs]
