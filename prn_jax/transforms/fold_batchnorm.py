"""Folds batch normalisation into the convolution or matrix product before it, for inference.

W *= scale / sqrt(var + epsilon); b = bias - mean * scale / sqrt(var + epsilon), in float64 as Darknet's
`network.c:fuse_conv_batchnorm`. Outputs agree to about 1e-6 relative.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prn_jax.graph.graph import Graph, Layer
from prn_jax.kinds.batchnorm import EPSILON
from prn_jax.nested import flattened

Variables = dict[str, Any]


def fold_batchnorm(graph: Graph, variables: Variables) -> tuple[Graph, Variables]:
  """The same network without batch norm in conv and connected layers.

  Layers that share weights share the folded ones. A [batchnorm] layer of its own stays.
  """
  stats = variables.get("batch_stats", {})
  params: Variables = {}
  kept: Variables = {}
  layers = []
  for layer in graph:
    folds = layer.has_batchnorm
    form = dataclasses.replace(layer.fixed_form(), batch_normalize=False) if folds else layer  # type: ignore[call-arg]
    layers.append(form)
    if layer.name in variables["params"]:
      own = variables["params"][layer.name]
      params[layer.name], steps = folded(layer, own, stats[layer.name]) if folds else (own, {})
      kept |= {layer.name: steps} if steps else {}
    if layer.name in stats and not folds:
      kept[layer.name] = stats[layer.name]
  return dataclasses.replace(graph, layers=tuple(layers)), {"params": params} | ({"batch_stats": kept} if kept else {})


def folded(layer: Layer, params: Variables, stats: Variables) -> tuple[Variables, Variables]:
  """Kernel and bias of one layer; and where its kernel lies on a grid, the steps of the grid."""
  module = layer.kernel
  fixed = layer.fixed_arrays(flattened(params) | flattened(stats))
  kernel = np.asarray(fixed.get(f"{module}/kernel", params[module]["kernel"]), np.float64)
  scale, bias, mean, var = (
    np.asarray(source["bn"][key], np.float64)
    for source, key in ((params, "scale"), (params, "bias"), (stats, "mean"), (stats, "var"))
  )
  factor = scale / np.sqrt(var + (layer.bn_epsilon or EPSILON))  # type: ignore[attr-defined]
  steps = {key: (value * np.abs(factor)).astype(np.float32) for key, value in fixed.items() if key == "kernel_scale"}
  arrays = {"kernel": (kernel * factor).astype(np.float32), "bias": (bias - mean * factor).astype(np.float32)}
  return {module: arrays}, steps
