"""What a network computes with, by name: random, expected, flat and nested. No JAX and no Flax, whose imports take a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prn_jax.graph.graph import Graph
from prn_jax.nested import flattened, nested

Variables = dict[str, Any]


def wanted_layers(graph: Graph, layers: str | Sequence[str]) -> list[str]:
  """Names of the layers asked for, a list in its own order; KeyError for a name that does not exist."""
  if layers == "heads":
    return [layer.name for layer in graph.heads]
  if layers == "all":
    return [layer.name for layer in graph]
  names = [layers] if isinstance(layers, str) else list(layers)
  return [graph[name].name for name in names]


def init_variables(graph: Graph, seed: int = 0) -> Variables:
  """Random variables by Darknet's rules (`Layer.initial`), as numpy arrays: the same on every machine.

  `Network.init` draws kernels by the same rule, but takes seconds to compile.
  """
  rng = np.random.default_rng(seed)
  return unflatten_variables(
    {array.key(layer.name): layer.initial(array, rng) for layer in graph for array in graph.arrays(layer)}
  )


def expected_variables(graph: Graph) -> dict[str, tuple[int, ...]]:
  """ "collection/layer/path" -> shape of every variable of a network, from the graph alone."""
  return {array.key(layer.name): array.array_shape for layer in graph for array in graph.arrays(layer)}


def flatten_variables(variables: Variables) -> dict[str, Any]:
  """ "collection/layer/path" -> array."""
  return flattened(variables)


def why_not_finite(variables: Variables) -> str:
  """What to say of a network that puts out NaN or infinity: a training exploded. No file is damaged, for every reader
  compares sums or sizes before.
  """
  flat = {key: np.asarray(value, np.float32) for key, value in flatten_variables(variables).items()}
  if not flat:
    return "the file holds weights that are not finite, or that belong to another cfg."
  advice = "Use an earlier checkpoint of it, or train again with a lower learning rate."
  for key, value in flat.items():
    if count := int(value.size - np.isfinite(value).sum()):
      return (
        f"the training that made its weights exploded: {key} holds {count:,} values that are NaN or infinite. {advice}"
      )
  key, largest = max(
    ((key, float(np.abs(value).max(initial=0))) for key, value in flat.items()), key=lambda one: one[1]
  )
  return (
    f"its weights are finite (the largest is {largest:.3g}, in {key}), but what it computes from them overflows: the "
    f"training that made them exploded, or they belong to another cfg. {advice}"
  )


def unflatten_variables(flat: dict[str, Any]) -> Variables:
  """The reverse of `flatten_variables`."""
  return nested(flat)
