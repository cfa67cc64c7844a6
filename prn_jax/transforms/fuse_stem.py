"""Rewrites a 3x3 convolution and the 2x2 max-pool behind it as one strided convolution, for inference on CPU.

Every cell of the pooled map is the maximum of the convolution at four neighbouring places. A 4x4 convolution
with stride 2 computes all four at once: its kernel holds the 3x3 kernel shifted to each of the four phases, with
four times the filters; then the maximum runs over the four groups of channels (Darknet's maxpool_depth). The
activation must be monotonic, so that it commutes with the maximum. Exact: each product is the same. On CPU the
first two layers of yolov3-tiny-prn at 416 take half the time (docs/speed.md); elsewhere it only adds zeros.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prn_jax.graph.graph import Graph, Layer
from prn_jax.kinds.activation import ACTIVATIONS
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.maxpool import MaxPool

Variables = dict[str, Any]
MOST_INPUT_CHANNELS = 4  # beyond the image itself, 16/9 of the products cost more than the map's traffic saves


def fuse_stem(graph: Graph, variables: Variables) -> tuple[Graph, Variables]:
  """Rewrites every conv + max-pool pair on few channels. Run `fold_batchnorm` first: batch norm is not touched.

  The pooled layer keeps its name; the convolution's own output no longer exists under the old shape.
  """
  consumers = _consumers(graph)
  layers: list[Layer] = []
  params = dict(variables["params"])
  for layer in graph:
    previous = layers[-1] if layers else None
    if (
      isinstance(previous, Conv)
      and isinstance(layer, MaxPool)
      and layer.inputs == (previous.name,)
      and consumers[previous.name] == 1
      and _fits(graph, previous, layer)
    ):
      layers[-1] = dataclasses.replace(previous, filters=4 * previous.filters, size=4, stride=2)
      params[previous.name] = {"conv": _four_phases(params[previous.name]["conv"])}
      layer = MaxPool(name=layer.name, inputs=layer.inputs, depth_out=previous.filters)
    layers.append(layer)
  return dataclasses.replace(graph, layers=tuple(layers)), {**variables, "params": params}


def _consumers(graph: Graph) -> dict[str, int]:
  counts = {layer.name: 0 for layer in graph}
  for layer in graph:
    for name in (*layer.inputs, *filter(None, [layer.shared_with])):
      counts[name] = counts.get(name, 0) + 1
  for head in graph.heads:
    counts[head.name] += 1
  return counts


def _fits(graph: Graph, conv: Conv, pool: MaxPool) -> bool:
  (x,) = graph.input_shapes(conv)
  return (
    x.channels <= MOST_INPUT_CHANNELS
    and (conv.size, conv.strides, conv.padding, conv.groups, conv.dilation) == (3, (1, 1), 1, 1, 1)
    and not (conv.batch_normalize or conv.antialiasing or conv.share)
    and ACTIVATIONS[conv.activation].is_monotonic
    and conv.leaky_slope >= 0
    and (pool.size, pool.strides, pool.total_padding, pool.antialiasing, pool.depth_out) == (2, (2, 2), 1, 0, 0)
    and x.height % 2 == 0 == x.width % 2
  )


def _four_phases(conv: Variables) -> Variables:
  kernel, bias = np.asarray(conv["kernel"]), np.asarray(conv["bias"])
  _, _, c, f = kernel.shape
  wide = np.zeros((4, 4, c, 4, f), np.float32)
  for phase in range(4):
    dy, dx = divmod(phase, 2)
    wide[dy : dy + 3, dx : dx + 3, :, phase] = kernel
  return {"kernel": wide.reshape(4, 4, c, 4 * f), "bias": np.tile(bias, 4)}
