"""What silent channels come to: their constants, from layer to layer, and what these add to the convolutions behind them.

A silent channel is the activation of its bias. Routes, pools and sums hand it on; a convolution that reads it gets an
offset, sum over its taps of weight times constant. Where a channel is scaled by a gate that depends on all channels (squeeze
and excite), or read by shared weights, it has no constant: such units are set to 0 altogether.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from prn_jax.graph.channels import How
from prn_jax.graph.coupling import Channel
from prn_jax.graph.graph import INPUT, Context, Graph, Layer
from prn_jax.kinds.activation import LEAKY_SLOPE, activate
from prn_jax.nested import flattened
from prn_jax.network import LayerScope
from prn_jax.prune.units import Unit, channels_of

Variables = dict[str, Any]


class Constants(NamedTuple):
  """Constants of silent units.

  Attributes:
    zero: channels of units that are 0 altogether, since a constant of theirs could not be carried on.
    maps: layer -> (channels,) float64, the constant of each silent channel, 0 elsewhere.
    offsets: layer with weights -> (filters,) float64, what it no longer gets from the channels that go.
  """

  zero: frozenset[Channel]
  maps: dict[str, NDArray[np.float64]]
  offsets: dict[str, NDArray[np.float64]]


def constants_of(graph: Graph, variables: Variables, units: Collection[Unit]) -> Constants:
  """Follows the constants of silent units through the network."""
  gone = channels_of(units)
  blocked = _without_constants(graph)
  zero = frozenset(
    channel for unit in units if any(name in blocked for name, _ in unit.channels) for channel in unit.channels
  )
  flat = {key: np.asarray(value, np.float64) for key, value in flattened(variables).items()}
  maps = {INPUT: np.zeros(graph.channels)}
  offsets: dict[str, NDArray[np.float64]] = {}
  for layer in graph:
    silent = np.array(
      [(layer.name, i) in gone and (layer.name, i) not in zero for i in range(graph.shapes[layer.name].channels)]
    )
    if layer.kernel and layer.width_field:
      offset = _offset(graph, layer, flat, maps)
      if offset.any():
        offsets[layer.name] = np.where([(layer.name, i) in gone for i in range(len(offset))], 0.0, offset)
      value = _activated_bias(graph, layer, flat) if silent.any() else np.zeros(len(silent))
    elif silent.any():
      value = _handed_on(graph, layer, variables, maps)
    else:
      value = np.zeros(len(silent))
    maps[layer.name] = np.where(silent, value, 0.0)
  return Constants(zero, maps, offsets)


def _without_constants(graph: Graph) -> set[str]:
  """Layers through which a constant does not stay one, and what shared weights read."""
  found = set[str]()
  for layer in graph:
    gates = any({How.KEEP, How.WEIGH} <= {span.how for span in reads.spans} for reads in graph.reads(layer))
    if gates:
      found.add(layer.name)
    if layer.shared_with:
      found |= {layer.name, layer.shared_with, *layer.inputs, *graph[layer.shared_with].inputs}
  return found - {INPUT}


def _offset(graph: Graph, layer: Layer, flat: dict[str, Any], maps: dict[str, Any]) -> NDArray[np.float64]:
  """What the constants that a layer with a kernel reads add to each of its sums, where it sees all of its taps."""
  filters, constant = graph.shapes[layer.name].channels, maps[layer.inputs[0]]
  reads = graph.reads(layer)[0]
  if not constant.any() or layer.shared_with or any(span.how is How.KEEP for span in reads.spans):
    return np.zeros(filters)  # a channel with a kernel of its own goes with its input
  kernel = flat[next(a for a in graph.arrays(layer) if a.path.endswith("kernel")).key(layer.name)]
  if kernel.ndim == 2:  # a matrix product reads all cells of the map, one after another
    return np.asarray(constant @ kernel.reshape(-1, len(constant), filters).sum(0))
  taps = kernel.sum((0, 1))
  offset = np.zeros(filters)
  for span in reads.spans:
    offset[span.out_start : span.out_end] += constant[span.start : span.end] @ taps[:, span.out_start : span.out_end]
  return offset


def _activated_bias(graph: Graph, layer: Layer, flat: dict[str, Any]) -> NDArray[np.float64]:
  owner = layer.shared_with or layer.name
  path = "bn/bias" if layer.has_batchnorm else f"{layer.kernel}/bias"
  bias = jnp.asarray(flat[f"params/{owner}/{path}"], jnp.float32).reshape(1, 1, 1, -1)
  slope = getattr(layer, "leaky_slope", LEAKY_SLOPE)
  return np.asarray(activate(bias, layer.activation, slope), np.float64).reshape(-1)  # type: ignore[attr-defined]


def _handed_on(graph: Graph, layer: Layer, variables: Variables, maps: dict[str, Any]) -> NDArray[np.float64]:
  """The middle of the layer's output where its inputs are constant maps."""
  own = {key: value[layer.name] for key, value in variables.items() if layer.name in value}
  shapes = graph.input_shapes(layer)
  xs = [
    np.broadcast_to(maps[name].astype(np.float32), (1, *shape))
    for name, shape in zip(layer.inputs, shapes, strict=True)
  ]
  output = np.asarray(LayerScope().apply(own, layer, xs, Context()))
  return np.asarray(output[0, output.shape[1] // 2, output.shape[2] // 2], np.float64)
