"""Graph -> one flax.linen module. All arithmetic lives in the kinds; this file only walks the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import linen as nn

from prn_jax.graph.graph import INPUT, Context, Graph, Layer
from prn_jax.nested import flattened, nested

Variables = dict[str, Any]


class LayerScope(nn.Module):
  """Holds the variables of one layer. Layers that share weights call the same scope."""

  @nn.compact
  def __call__(self, layer: Layer, xs: Sequence[jax.Array], ctx: Context) -> jax.Array:
    return layer.lower(xs, dataclasses.replace(ctx, module=self))


class Network(nn.Module):
  """A layer graph as a linen module; variables live at `<layer>/<conv|bn|...>/<leaf>`.

  Attributes:
    graph: the network.
    dtype: compute dtype; parameters, BN statistics and head outputs stay float32.
    precision: `jax.lax.Precision` of convolutions and matrix products.
    bn_axis: mesh axis over which BN statistics are averaged; None is right under plain `jit`, where they are
      global over the batch already, and inside `shard_map` for Darknet's per-device statistics.
    bn_momentum: share of the old rolling statistics.
  """

  graph: Graph
  dtype: Any = None
  precision: Any = None
  bn_axis: str | None = None
  bn_momentum: float = 0.99

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, layers: Literal["heads", "all"] | Sequence[str] = "heads"
  ) -> dict[str, jax.Array]:
    """Runs the network.

    Args:
      x: (n, height, width, channels), RGB in [0, 1].
      train: batch statistics and dropout (needs an rng called "dropout").
      layers: "heads", "all", or names.

    Returns:
      Layer name -> output, NHWC, activated as Darknet stores it, in cfg order (`jax.jit` sorts it by name).
    """
    ctx = Context(train, self.dtype, self.precision, self.bn_axis, self.bn_momentum, x.shape[0])
    wanted = wanted_layers(self.graph, layers)
    outputs = {INPUT: x}
    scopes: dict[str, LayerScope] = {}
    for layer in self.graph:
      owner = layer.shared_with or layer.name
      if owner not in scopes:
        scopes[owner] = LayerScope(name=owner)
      outputs[layer.name] = scopes[owner](layer, [outputs[i] for i in layer.inputs], ctx)
    return {name: outputs[name] for name in wanted}


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
