"""Cost of a network from its graph alone: parameters, BFLOPs, multiply-adds, memory."""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax.graph.graph import INPUT, Graph, Layer, Shape

FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class LayerCost:
  """Cost of one layer at batch 1; `flops` as Darknet prints them, a multiply-add counting two."""

  layer: Layer
  inputs: tuple[Shape, ...]
  output: Shape
  params: int
  weight_file_floats: int
  flops: int
  macs: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """Totals of a network at batch 1.

  Attributes:
    layers: the cost of each layer.
    params: learnable values (kernels, biases, BN scales, fusion weights).
    weight_file_floats: values in a weights file: `params` and the rolling statistics.
    bflops: Darknet's figure: billions of operations, summed in float32 as Darknet sums them.
    macs: multiply-adds of convolutions and matrix products.
    peak_activation_bytes: see `peak_activation_bytes`.
  """

  layers: tuple[LayerCost, ...]
  params: int
  weight_file_floats: int
  bflops: float
  macs: int
  peak_activation_bytes: int


def cost(graph: Graph) -> Cost:
  """Computes the cost of `graph` at its input size."""
  rows = tuple(layer_cost(graph, layer) for layer in graph)
  bflops = np.float32(0)
  for row in rows:
    bflops += np.float32(row.flops / 1e9)
  return Cost(
    layers=rows,
    params=sum(row.params for row in rows),
    weight_file_floats=sum(row.weight_file_floats for row in rows),
    bflops=float(bflops),
    macs=sum(row.macs for row in rows),
    peak_activation_bytes=peak_activation_bytes(graph),
  )


def layer_cost(graph: Graph, layer: Layer) -> LayerCost:
  inputs, output = tuple(graph.input_shapes(layer)), graph.shapes[layer.name]
  arrays = graph.arrays(layer)
  return LayerCost(
    layer=layer,
    inputs=inputs,
    output=output,
    params=sum(a.size for a in arrays if a.collection == "params"),
    weight_file_floats=sum(a.size for a in arrays),
    flops=layer.flops(inputs, output),
    macs=layer.macs(inputs, output),
  )


def peak_activation_bytes(graph: Graph) -> int:
  """Most bytes of feature maps alive at once: float32, batch 1, layers run in order, nothing recomputed.

  While a layer runs, its inputs and its output are alive, and every earlier map that a later layer or the
  result still needs. Layers that only pass a map on (single-source routes without groups, dropout, ...) share
  its memory.
  """
  storage = _storage(graph)
  last_use = {INPUT: -1}
  for i, layer in enumerate(graph):
    last_use.setdefault(storage[layer.name], i)
    for name in layer.inputs:
      last_use[storage[name]] = i
  for head in graph.heads:
    last_use[storage[head.name]] = len(graph)
  sizes = {name: graph.shapes[name].size for name in last_use}
  alive, peak = {INPUT}, sizes[INPUT]
  for i, layer in enumerate(graph):
    alive.add(storage[layer.name])
    peak = max(peak, sum(sizes[name] for name in alive))
    alive = {name for name in alive if last_use[name] > i}
  return peak * FLOAT_BYTES


def _storage(graph: Graph) -> dict[str, str]:
  """Layer -> the layer whose memory its output occupies."""
  storage = {INPUT: INPUT}
  for layer in graph:
    is_whole = graph.is_view(layer) and graph.shapes[layer.name] == graph.shapes[layer.inputs[0]]
    storage[layer.name] = storage[layer.inputs[0]] if is_whole else layer.name
  return storage
