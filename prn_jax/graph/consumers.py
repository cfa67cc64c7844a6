"""Who reads a layer: the links of a graph the other way round."""

from __future__ import annotations

from prn_jax.graph.graph import Graph


def consumers_of(graph: Graph) -> dict[str, list[str]]:
  """Layer (or "input") -> the layers that read it, each once, in the order of the graph."""
  consumers: dict[str, list[str]] = {name: [] for name in graph.shapes}
  for layer in graph:
    for name in dict.fromkeys(layer.inputs):
      consumers[name].append(layer.name)
  return consumers
