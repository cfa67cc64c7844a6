"""Scales of kernels, what rounding them moves, and sums that fit into 16 bits.

Many processors (x86 without VNNI or AMX) multiply unsigned bytes of a map with signed bytes of a kernel, add two neighbouring
products in 16 bits, and cut off what is larger, without a word. No such sum is cut off if neighbours of one sign are together at most 128:
255 x 128 < 2^15. Neighbours are two weights of a filter in the order rows, columns, channels (onnxruntime), and two
channels of one place (OpenVINO). Depthwise kernels are not multiplied so (measured, docs/compression.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from prn_jax.graph.graph import Graph
from prn_jax.kinds.quantized_conv import QuantizedConv
from prn_jax.nested import flattened, nested
from prn_jax.network import Variables
from prn_jax.ops.quantizers import QSpec, scale_and_zero, to_integers
from prn_jax.quantize.calibrate import outputs_of
from prn_jax.quantize.rewrite import WIDE, convolutions_of

PARTS = np.linspace(1, 0.4, 31, dtype=np.float32)  # of the largest weight, that a search tries
WIDER = np.linspace(2, 1, 30, endpoint=False, dtype=np.float32)  # the same where weights must leave room for neighbours
MOST_OF_PAIR = 128  # of two neighbouring weights in bytes, together
MOST_INT32 = 2**31 - 1


def kernel_scales(kernel: np.ndarray, spec: QSpec, observer: str, *, in_pairs: bool = False) -> np.ndarray:
  """Scales of a kernel (h, w, in, out).

  Args:
    kernel: the weights.
    spec: their grid.
    observer: "minmax", or "mse": of parts of the largest weight the one with the least squared error.
    in_pairs: the integers will be `within_pairs`; the scale is then that with the least squared error.

  Returns:
    (out,) or (1,) float32.
  """
  axes = (0, 1, 2) if spec.per_channel else (0, 1, 2, 3)
  top = np.abs(kernel).max(axes, keepdims=True)
  if observer != "mse" and not in_pairs:
    return np.asarray(scale_and_zero(-top, top, spec, np)[0]).reshape(-1)
  best, least = np.zeros_like(top), np.full(top.shape, np.inf)
  tried = PARTS if spec.pow2 == "none" else np.array([2, 1, 0.5, 0.25], np.float32)
  for part in np.concatenate([WIDER, tried]) if in_pairs else tried:
    scale = scale_and_zero(-part * top, part * top, spec, np)[0]
    integers = to_integers(kernel, scale, 0, spec, np)
    rounded = (within_pairs(integers) if in_pairs else integers) * scale
    error = ((rounded - kernel) ** 2).sum(axes, keepdims=True)
    best, least = np.where(error < least, scale, best), np.minimum(error, least)
  return best.reshape(-1).astype(np.float32)


def within_pairs(integers: np.ndarray) -> np.ndarray:
  """A kernel (h, w, in, out) of integers with neighbours of one sign made smaller until they are at most `MOST_OF_PAIR`
  together, each by half of what is too much; the others are as they were."""
  filters, channels = integers.shape[3], integers.shape[2]
  flat = integers.reshape(-1, filters).copy()
  _limit(flat[: len(flat) // 2 * 2].reshape(-1, 2, filters))
  found = flat.reshape(integers.shape)
  if channels % 2 and channels > 1:  # runtimes that begin anew at every place have other neighbours
    inside = found[:, :, : channels - 1].reshape(-1, 2, filters)
    _limit(inside)
    found[:, :, : channels - 1] = inside.reshape(*integers.shape[:2], channels - 1, filters)
  return found


def _limit(pairs: np.ndarray) -> None:
  """Makes pairs (n, 2, filters) smaller, in place."""
  sums = pairs.sum(1)
  over = np.where(pairs[:, 0] * pairs[:, 1] > 0, np.maximum(np.abs(sums) - MOST_OF_PAIR, 0), 0)
  is_first_larger = np.abs(pairs[:, 0]) >= np.abs(pairs[:, 1])
  halves = np.where(is_first_larger, np.ceil(over / 2), np.floor(over / 2))
  pairs -= (np.sign(sums)[:, None] * np.stack([halves, over - halves], 1)).astype(pairs.dtype)


def paired(graph: Graph) -> dict[str, QuantizedConv]:
  """The convolutions whose neighbours must be so: those of 8 bits that are not depthwise."""
  return {
    name: layer
    for name, layer in convolutions_of(graph).items()
    if layer.bits == WIDE and not layer.is_depthwise(graph.input_shapes(layer)[0].channels)
  }


def with_scales(graph: Graph, variables: Variables, observer: str, in_pairs: Collection[str] = ()) -> Variables:
  """The variables of a quantised graph with the scales of its kernels; learned ones start there. `in_pairs` names the layers
  that are `paired`, if that is wanted."""
  flat = dict(flattened(variables))
  for name, layer in convolutions_of(graph).items():
    for array in graph.arrays(layer):
      if array.path == "kernel_scale":
        kernel = flat[f"params/{name}/conv/kernel"]
        scale = kernel_scales(kernel, layer.spec(), observer, in_pairs=name in in_pairs)
        if layer.method == "tqt":
          scale = np.log2(scale * (layer.spec().qmax + 1))
        flat[array.key(name)] = scale.astype(np.float32)
  return nested(flat)


def with_pairs(graph: Graph, variables: Variables, in_pairs: Collection[str]) -> Variables:
  """The variables with the kernels of these layers on their grid and `within_pairs`."""
  flat, layers = dict(flattened(variables)), convolutions_of(graph)
  for name in in_pairs:
    integers, scale = layers[name].integers(own_arrays(flat, name))
    flat[f"params/{name}/conv/kernel"] = within_pairs(integers.astype(np.int32)) * scale
  return nested(flat)


def own_arrays(flat: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
  """The arrays of a layer by their path, from the flat variables."""
  return {key.split("/", 2)[2]: np.asarray(value) for key, value in flat.items() if key.split("/", 2)[1] == name}


def on_grid(graph: Graph, variables: Variables) -> Variables:
  """The variables with every stored kernel on its grid and every bias on that of the sums it is added to, so that the
  integers that are written compute the same to the last bit where floats can hold the sums. Doing it again changes
  nothing. Layers whose input is not rounded keep their bias."""
  flat = dict(flattened(variables))
  for name, layer in convolutions_of(graph).items():
    if layer.batch_normalize:
      continue
    integers, scale = layer.integers(own_arrays(flat, name))
    flat[f"params/{name}/conv/kernel"] = integers * scale
    grid = input_grid(graph, flat, layer)
    if grid:
      steps = bias_integers(flat[f"params/{name}/conv/bias"], scale, grid[0])
      flat[f"params/{name}/conv/bias"] = (steps * bias_step(scale, grid[0])).astype(np.float32)
  return nested(flat)


def bias_step(scale: np.ndarray, input_scale: float) -> np.ndarray:
  """The step of the sums of a convolution: (out,) float32."""
  return scale.astype(np.float32) * np.float32(input_scale)


def bias_integers(bias: np.ndarray, scale: np.ndarray, input_scale: float) -> np.ndarray:
  """The bias in steps of the sums, int32."""
  return np.clip(np.rint(bias / bias_step(scale, input_scale)), -MOST_INT32, MOST_INT32).astype(np.int32)


def input_grid(graph: Graph, flat: Mapping[str, Any], layer: QuantizedConv) -> tuple[float, int] | None:
  """Scale and zero point of what a convolution reads; None if that is not rounded."""
  source = graph[layer.inputs[0]] if layer.inputs[0] != "input" else None
  while source is not None and source.copies and len(source.inputs) == 1 and source.inputs[0] != "input":
    source = graph[source.inputs[0]]
  find = getattr(source, "grid", None)
  if source is None or find is None:
    return None
  own = own_arrays(flat, source.shared_with or source.name)
  return find(lambda path: own[path])


def corrected_biases(
  graph: Graph, variables: Variables, kernels: Mapping[str, np.ndarray], batches: Sequence[np.ndarray]
) -> Variables:
  """The variables with biases that take back what rounding a kernel moves on average (Nagel et al. 2019, section 4.2): the
  convolution of the mean input with the rounded minus the float kernel, mean over the map.

  Args:
    graph: a quantised graph.
    variables: its variables, with ranges and scales.
    kernels: the float kernel of each convolution.
    batches: images, for the mean inputs; they come through the quantised network.
  """
  flat, layers = dict(flattened(variables)), convolutions_of(graph)
  run = outputs_of(graph, [layer.inputs[0] for layer in layers.values()])
  means: dict[str, np.ndarray] = {}
  for images in batches:
    for name, values in run(variables, images).items():
      means[name] = means.get(name, 0) + np.asarray(values).sum(0) / sum(map(len, batches))
  for name, layer in layers.items():
    integers, scale = layer.integers(own_arrays(flat, name))
    moved = mean_output(layer, means[layer.inputs[0]], integers * scale - kernels[name])
    flat[f"params/{name}/conv/bias"] = flat[f"params/{name}/conv/bias"] - moved
  return nested(flat)


def mean_output(layer: QuantizedConv, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  """The mean over all places of a bare convolution with the geometry of a layer: (out,), from a map (h, w, in)."""
  (above, below), (left, right) = layer.zeros_around(*x.shape[:2])
  height, width = x.shape[0] + above + below, x.shape[1] + left + right
  padded = np.zeros((height, width, x.shape[2]), np.float32)
  padded[above : above + x.shape[0], left : left + x.shape[1]] = x
  down, across = (1, 1) if layer.antialiasing else layer.strides
  reach = (layer.size - 1) * layer.dilation
  total = np.zeros(layer.filters, np.float32)
  per_group = kernel.shape[2]
  for i in range(layer.size):
    for j in range(layer.size):
      at_y, at_x = i * layer.dilation, j * layer.dilation
      taken = padded[at_y : height - reach + at_y : down, at_x : width - reach + at_x : across]
      means = taken.mean((0, 1)).reshape(layer.groups, per_group)
      total += np.einsum("gi,igo->go", means, kernel[i, j].reshape(per_group, layer.groups, -1)).ravel()
  return total
