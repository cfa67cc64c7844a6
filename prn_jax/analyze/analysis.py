"""Everything that `prn analyze` says about one network."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import Any

from prn_jax.analyze.memory import Memory, live_memory
from prn_jax.errors import GraphError
from prn_jax.graph.cost import peak_activation_bytes
from prn_jax.graph.gradients import ChannelRange, LayerGradients, Stage, StageBy, Totals, gradients, stages, totals
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
    """The gradients of one layer; GraphError names the nearest layer, and says so if that one has no weights."""
    for layer in self.layers:
      if layer.name == name:
        return layer
    if any(layer.name == name for layer in self.graph):
      raise GraphError(f"layer '{name}' of '{self.name}' {self._no_weights(name)}")
    near = difflib.get_close_matches(name, [layer.name for layer in self.graph], n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    if near and all(layer.name != near[0] for layer in self.layers):
      hint += f". Layer '{near[0]}' {self._no_weights(near[0])}"
    raise GraphError(f"network '{self.name}' has no layer '{name}'{hint}".rstrip(".") + ".")

  def _no_weights(self, name: str) -> str:
    """Why a layer without weights has no gradients of its own, and the nearest layer that has some."""
    index = next(i for i, layer in enumerate(self.graph) if layer.name == name)
    places = {layer.name: i for i, layer in enumerate(self.graph)}
    near = min((layer.name for layer in self.layers), key=lambda other: abs(places[other] - index))
    return (
      f"is a {self.graph[name].kind}: it has no kernel, so it passes gradients on at once. "
      f"Name one of the {len(self.layers)} layers with weights, for example '{near}'."
    )

  @functools.cached_property
  def _num_parts(self) -> dict[str, int]:
    """Source -> number of parts that its gradient falls into; each of them reaches some layer."""
    result: dict[str, int] = {}
    for layer in self.layers:
      for channels in layer.ranges:
        for source, part in channels.parts:
          result[source] = max(result.get(source, 0), part + 1)
    return result

  def parts(self, channels: ChannelRange) -> tuple[str, ...]:
    """Labels of the parts of sources that reach a range, in the order of its sources: "stage4_down#2" is the second
    part of a source that is cut up, "stage4_down" the whole of one that is not."""
    numbers: dict[str, list[int]] = {source: [] for source in channels.sources}
    for source, part in sorted(channels.parts):
      numbers[source].append(part + 1)
    return tuple(
      f"{source}#{number}" if self._num_parts[source] > 1 else source
      for source, found in numbers.items()
      for number in found
    )

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
      "layers": [self._layer_json(layer) for layer in self.layers],
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

  def _layer_json(self, layer: LayerGradients) -> dict[str, Any]:
    """Every number can be recounted from "ranges": a combination of timestamps is a different pair of "timestamps" and
    "paths", one of sources a different set of "parts"."""
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
        {
          "start": channels.start,
          "end": channels.end,
          "timestamps": list(channels.timestamps),
          "paths": list(channels.paths),
          "sources": list(channels.sources),
          "parts": list(self.parts(channels)),
        }
        for channels in layer.ranges
      ],
    }


def analyze(graph: Graph, by: StageBy = "size") -> Analysis:
  """Analyses a graph; stages are cut by output size or by the layers' names (`graph.gradients.stages`).

  Raises:
    GraphError: the graph has no layer with a kernel.
  """
  layers = gradients(graph)
  return Analysis(graph, layers, stages(layers, by), live_memory(graph))
