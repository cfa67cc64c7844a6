"""Graph -> one flax.linen module. All arithmetic lives in the kinds; this file only walks the graph.

The variables that it takes, and which need no Flax, are those of `prn_jax.variables`; their functions are named here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
from flax import linen as nn

from prn_jax.graph.graph import INPUT, Context, Graph, Layer
from prn_jax.variables import (
  Variables,
  expected_variables,
  flatten_variables,
  init_variables,
  unflatten_variables,
  wanted_layers,
  why_not_finite,
)

__all__ = [
  "LayerScope",
  "Network",
  "Variables",
  "expected_variables",
  "flatten_variables",
  "init_variables",
  "unflatten_variables",
  "wanted_layers",
  "why_not_finite",
]


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
