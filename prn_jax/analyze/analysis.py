"""Everything that `prn analyze` says about one network."""

from __future__ import annotations

import dataclasses
from typing import Any

from prn_jax.analyze.memory import Memory, live_memory
from prn_jax.errors import GraphError, did_you_mean
from prn_jax.graph.cost import peak_activation_bytes
from prn_jax.graph.gradients import LayerGradients, Stage, StageBy, Totals, gradients, stages, totals
from prn_jax.graph.graph import Graph


@dataclasses.dataclass(frozen=True)
class Analysis:
  """Gradient combinations and live memory of one network.

  Attributes:
    graph: the network.
    layers: gradients at each layer with weights, in graph order.
    stages: the same layers by stage.
    memory: live feature maps during inference.
  """

  graph: Graph
  layers: tuple[LayerGradients, ...]
  stages: tuple[Stage, ...]
  memory: Memory

  @property
  def name(self) -> str:
    return self.graph.name

  @property
  def totals(self) -> Totals:
    return totals(self.layers)

  def layer(self, name: str) -> LayerGradients:
    """The gradients of one layer; GraphError names the nearest one with weights."""
    for layer in self.layers:
      if layer.name == name:
        return layer
    names = [layer.name for layer in self.layers]
    if any(layer.name == name for layer in self.graph):
      kind = self.graph[name].kind
      raise GraphError(
        f"layer '{name}' of '{self.name}' is a {kind}: it has no kernel, so it passes gradients on at once. "
        f"Name one of the {len(names)} layers with weights, for example '{names[-1]}'."
      )
    raise GraphError(f"network '{self.name}' has no layer '{name}'{did_you_mean(name, names)}.")

  def to_json(self) -> dict[str, Any]:
    """Plain lists and dictionaries for `--json`."""
    memory = self.memory
    return {
      "name": self.name,
      "width": self.graph.width,
      "height": self.graph.height,
      "totals": self.totals._asdict(),
      "stages": [
        {"name": stage.name, "layers": [layer.name for layer in stage.layers], "totals": stage.totals._asdict()}
        for stage in self.stages
      ],
      "layers": [_layer_json(layer) for layer in self.layers],
      "memory": {
        "peak_bytes": memory.peak_bytes,
        "peak_layer": self.graph.layers[memory.peak_index].name,
        "peak_whole_maps_bytes": peak_activation_bytes(self.graph),
        "peak_waiting_bytes": max(memory.shortcut_bytes),
        "kept_bytes": memory.kept_bytes,
        "full_bytes": memory.full_bytes,
        "live_bytes": list(memory.live_bytes),
        "waiting_bytes": list(memory.shortcut_bytes),
        "shortcuts": [item._asdict() for item in memory.kept],
      },
    }


def _layer_json(layer: LayerGradients) -> dict[str, Any]:
  return {
    "name": layer.name,
    "kind": layer.kind,
    "height": layer.shape.height,
    "width": layer.shape.width,
    "channels": layer.shape.channels,
    "timestamps": list(layer.timestamps),
    "sources": list(layer.sources),
    "timestamp_combinations": layer.timestamp_combinations,
    "source_combinations": layer.source_combinations,
    "ranges": [
      {"start": part.start, "end": part.end, "timestamps": list(part.timestamps), "sources": list(part.sources)}
      for part in layer.ranges
    ],
  }


def analyze(graph: Graph, by: StageBy = "size") -> Analysis:
  """Analyses a graph; stages are cut by output size or by the layers' names (`graph.gradients.stages`).

  Raises:
    GraphError: the graph has no layer with a kernel.
  """
  layers = gradients(graph)
  return Analysis(graph, layers, stages(layers, by), live_memory(graph))
