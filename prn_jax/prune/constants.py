"""What silent channels come to: their constants, from layer to layer, and what these add to the convolutions behind them.

A silent channel is the activation of its bias. Routes, pools and sums hand it on; a convolution that reads it gets an
offset, sum over its taps of weight times constant. Where a channel is scaled by a gate that depends on all channels (squeeze
and excite), or read by shared weights, it has no constant: such units are set to 0 altogether.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import GraphError
from prn_jax.graph.channels import How
from prn_jax.graph.graph import INPUT, Context, Graph, Layer
from prn_jax.kinds.activation import LEAKY_SLOPE, activate
from prn_jax.nested import flattened
from prn_jax.network import LayerScope
from prn_jax.prune.units import Unit, channels_of
from prn_jax.transforms.prune import constants_end

Variables = dict[str, Any]


def without_constants(graph: Graph, units: Collection[Unit]) -> list[Unit]:
  """Units of which a constant would not stay one, or not serve all who read it (`transforms.prune.constants_end`)."""
  ends = constants_end(graph)
  return [unit for unit in units if any(name in ends for name, _ in unit.channels)]


def offsets_of(graph: Graph, quiet: Variables, units: Collection[Unit]) -> dict[str, NDArray[np.float64]]:
  """Layer with weights -> (filters,) float64, what each of its sums no longer gets when the units go.

  Args:
    graph: the network.
    quiet: its variables with these units silent (`cut.silenced`).
    units: what goes.

  Raises:
    GraphError: layers that share weights would need different offsets.
  """
  gone = channels_of(units)
  flat = {key: np.asarray(value, np.float64) for key, value in flattened(quiet).items()}
  maps = {INPUT: np.zeros(graph.channels)}
  offsets: dict[str, NDArray[np.float64]] = {}
  for layer in graph:
    silent = np.array([(layer.name, i) in gone for i in range(graph.shapes[layer.name].channels)])
    value = np.zeros(len(silent))
    if layer.kernel and layer.width_field:
      offset = np.where(silent, 0.0, _offset(graph, layer, flat, maps))
      if offset.any():
        offsets[layer.name] = offset
      if silent.any():
        value = _activated_bias(layer, flat)
    elif silent.any():
      value = _handed_on(graph, layer, quiet, maps)
    maps[layer.name] = np.where(silent, value, 0.0)
  if shared := [
    layer.name for layer in graph if layer.shared_with and {layer.name, layer.shared_with} & offsets.keys()
  ]:
    raise GraphError(
      f"layer '{shared[0]}' shares its weights: constants of what it reads cannot be carried on through them."
    )
  return offsets


def _offset(graph: Graph, layer: Layer, flat: dict[str, Any], maps: dict[str, Any]) -> NDArray[np.float64]:
  """What the constants that a layer with a kernel reads add to each of its sums, where it sees all of its taps."""
  filters, constant = graph.shapes[layer.name].channels, maps[layer.inputs[0]]
  reads = graph.reads(layer)[0]
  if not constant.any() or any(span.how is How.KEEP for span in reads.spans):
    return np.zeros(filters)  # a channel with a kernel of its own goes with its input
  owner = layer.shared_with or layer.name
  kernel = flat[next(a for a in graph.arrays(graph[owner]) if a.path.endswith("kernel")).key(owner)]
  if kernel.ndim == 2:  # a matrix product reads all cells of the map, one after another
    return np.asarray(constant @ kernel.reshape(-1, len(constant), filters).sum(0))
  taps = kernel.sum((0, 1))
  offset = np.zeros(filters)
  for span in reads.spans:
    offset[span.out_start : span.out_end] += constant[span.start : span.end] @ taps[:, span.out_start : span.out_end]
  return offset


def _activated_bias(layer: Layer, flat: dict[str, Any]) -> NDArray[np.float64]:
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
