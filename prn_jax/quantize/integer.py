"""A network of power-of-two scales in integers alone: what an FPGA computes, and what the float simulation must agree with.

A map is integers q with f fraction bits, so that its values are q / 2^f. A convolution adds up q_x q_w with f_x + f_w fraction
bits; its bias has the same. A leaky slope m / 2^k multiplies negative sums by m and shifts positive ones k bits to the left, so
that nothing is lost. A quantize layer shifts right by the difference of fraction bits, rounds halves away from zero and cuts off at the ends of its grid. What
is added or joined must have the same fraction bits (`Preset.common`).

The float32 simulation agrees to the last bit while sums stay below 2^24; beyond, it may differ by one step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.kinds.maxpool import MaxPool
from prn_jax.kinds.quantize import Quantize
from prn_jax.kinds.quantized_conv import QuantizedConv
from prn_jax.kinds.route import Route
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.kinds.upsample import Upsample
from prn_jax.nested import flattened
from prn_jax.network import Variables
from prn_jax.quantize.kernels import own_arrays
from prn_jax.quantize.rewrite import SLOPE_BITS

Integers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Fixed:
  """A map in integers.

  Attributes:
    values: (n, h, w, c) int64.
    bits: fraction bits: a value is `values / 2**bits`.
  """

  values: Integers
  bits: int

  def floats(self) -> NDArray[np.float32]:
    return (self.values / 2.0**self.bits).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ConvIntegers:
  """A convolution in integers.

  Attributes:
    kernel: (h, w, in / groups, out) int8.
    bias: (out,) int32, with the fraction bits of the sums.
    kernel_bits, sum_bits: fraction bits of the kernel and of the sums.
    slope: m and k of a leaky slope m / 2^k.
  """

  kernel: NDArray[np.int8]
  bias: NDArray[np.int32]
  kernel_bits: int
  sum_bits: int
  slope: tuple[int, int]


def fraction_bits(scale: float, what: str) -> int:
  """f of a scale 2^-f; OutOfScopeError for a scale that is no power of two."""
  mantissa, exponent = np.frexp(scale)
  if mantissa != 0.5:
    raise OutOfScopeError(f"{what} has the scale {scale:g}, which is no power of two. Quantise with --preset ptq-pow2.")
  return 1 - int(exponent)


def conv_integers(layer: QuantizedConv, own: Mapping[str, np.ndarray], input_bits: int) -> ConvIntegers:
  """The integers of a convolution that reads a map with so many fraction bits.

  Raises:
    OutOfScopeError: batch norm is not folded, a scale is no power of two, or the activation has no integer form.
  """
  where = f"layer '{layer.name}'"
  if layer.batch_normalize:
    raise OutOfScopeError(f"{where} has batch norm; fold it first.")
  kernel, scale = layer.integers(own)
  if len(set(scale.tolist())) > 1:
    raise OutOfScopeError(f"{where} has a scale per filter; integers need one per kernel: --preset ptq-pow2.")
  kernel_bits = fraction_bits(float(scale[0]), where)
  sum_bits = kernel_bits + input_bits
  bias = np.rint(own["conv/bias"] * 2.0**sum_bits).clip(-(2**31) + 1, 2**31 - 1).astype(np.int32)
  return ConvIntegers(kernel, bias, kernel_bits, sum_bits, slope_integers(layer.activation, layer.leaky_slope, where))


def slope_integers(activation: str, slope: float, where: str) -> tuple[int, int]:
  """m and k of a leaky slope m / 2^k with k of at most 8; (1, 0) of activations without a slope.

  Raises:
    OutOfScopeError: there is no such slope or activation in integers.
  """
  if activation in ("linear", "relu"):
    return 1, 0
  if activation != "leaky":
    raise OutOfScopeError(f"{where} has activation={activation}; in integers there are linear, relu and leaky.")
  shift = next((k for k in range(SLOPE_BITS + 1) if (slope * 2**k).is_integer()), None)
  if shift is None or not 0 < slope < 1:
    raise OutOfScopeError(
      f"{where} has leaky_slope={slope:g}; expected a multiple of 1/{2**SLOPE_BITS} between 0 and 1. Quantise the float "
      "network with --preset ptq-pow2, which takes the nearest."
    )
  return int(slope * 2**shift), shift


def run(graph: Graph, variables: Variables, images: np.ndarray) -> dict[str, Fixed]:
  """Every map of a network that is made of integers, up to the heads.

  Args:
    graph: a quantised graph, as `ptq-pow2` makes it.
    variables: its variables.
    images: (n, h, w, c) float32 in [0, 1].

  Returns:
    Layer -> its output, of all layers but heads and those behind what is not in integers.

  Raises:
    OutOfScopeError: a layer has no integer form.
  """
  flat, maps = flattened(variables), dict[str, Fixed]()
  for layer in graph:
    if layer.is_head:
      continue
    own = own_arrays(flat, layer.shared_with or layer.name)
    if isinstance(layer, Quantize) and layer.inputs == (INPUT,):
      maps[layer.name] = _image(layer, own, images)
    else:
      maps[layer.name] = _output(graph, layer, own, [maps[name] for name in layer.inputs])
  return maps


def _image(layer: Quantize, own: Mapping[str, np.ndarray], images: np.ndarray) -> Fixed:
  bits = quantize_bits(layer, own)
  scaled = np.floor(np.asarray(images, np.float64) * 2.0**bits + 0.5)
  return Fixed(scaled.clip(layer.spec().qmin, layer.spec().qmax).astype(np.int64), bits)


def quantize_bits(layer: Quantize, own: Mapping[str, np.ndarray]) -> int:
  grid = layer.grid(lambda path: own[path])
  if grid is None or grid[1]:
    raise OutOfScopeError(f"layer '{layer.name}' has no range, or a zero point; quantise with --preset ptq-pow2.")
  return fraction_bits(grid[0], f"layer '{layer.name}'")


def _output(graph: Graph, layer: Layer, own: Mapping[str, np.ndarray], xs: list[Fixed]) -> Fixed:
  if isinstance(layer, Quantize):
    return requantized(xs[0], quantize_bits(layer, own), layer.spec().qmin, layer.spec().qmax)
  if isinstance(layer, QuantizedConv):
    return _convolution(layer, conv_integers(layer, own, xs[0].bits), xs[0])
  if isinstance(layer, Shortcut) and layer.weights_type == "none":
    return _sum(layer, xs)
  if len({x.bits for x in xs}) == 1 and chooses(layer):
    return Fixed(_same_values(layer, [x.values for x in xs]), xs[0].bits)
  if layer.copies and len(xs) == 1:
    return xs[0]
  raise OutOfScopeError(f"layer '{layer.name}' ({layer.kind}) has no integer form.")


def chooses(layer: Layer) -> bool:
  """True for layers that give nothing but values of their inputs."""
  if isinstance(layer, MaxPool):
    return not layer.antialiasing
  return isinstance(layer, Route) or (isinstance(layer, Upsample) and layer.stride > 0 and layer.scale == 1)


def requantized(x: Fixed, bits: int, low: int, high: int) -> Fixed:
  """A map with other fraction bits: a shift, halves away from zero, cut off at the ends."""
  shift = x.bits - bits
  if shift <= 0:
    return Fixed((x.values << -shift).clip(low, high), bits)
  half = np.int64(1) << (shift - 1)
  size = (np.abs(x.values) + half) >> shift
  return Fixed((np.sign(x.values) * size).clip(low, high), bits)


def _convolution(layer: QuantizedConv, made: ConvIntegers, x: Fixed) -> Fixed:
  kernel = made.kernel.astype(np.int64)
  (above, below), (left, right) = layer.zeros_around(*x.values.shape[1:3])
  padded = np.pad(x.values, ((0, 0), (above, below), (left, right), (0, 0)))
  down, across = layer.strides
  reach, per_group = (layer.size - 1) * layer.dilation, kernel.shape[2]
  total: Integers | None = None
  for i in range(layer.size):
    for j in range(layer.size):
      y, z = i * layer.dilation, j * layer.dilation
      part = padded[:, y : padded.shape[1] - reach + y : down, z : padded.shape[2] - reach + z : across]
      by_group = part.reshape(*part.shape[:3], layer.groups, per_group)
      product = np.einsum("nhwgi,igo->nhwgo", by_group, kernel[i, j].reshape(per_group, layer.groups, -1))
      total = product if total is None else total + product
  assert total is not None
  sums = total.reshape(*total.shape[:3], -1) + made.bias
  return _activated(layer.activation, sums, made.sum_bits, made.slope)


def _activated(activation: str, sums: Integers, bits: int, slope: tuple[int, int]) -> Fixed:
  if activation == "relu":
    return Fixed(np.maximum(sums, 0), bits)
  factor, shift = slope
  return Fixed(np.where(sums > 0, sums << shift, sums * factor), bits + shift) if shift else Fixed(sums, bits)


def _sum(layer: Shortcut, xs: list[Fixed]) -> Fixed:
  if len({x.bits for x in xs}) > 1:
    raise OutOfScopeError(
      f"layer '{layer.name}' adds maps with {sorted({x.bits for x in xs})} fraction bits; an adder needs one scale: ptq-pow2."
    )
  total = xs[0].values.copy()
  for x in xs[1:]:
    if x.values.shape[1:3] != total.shape[1:3]:
      raise OutOfScopeError(f"layer '{layer.name}' adds maps of different sizes, which has no integer form.")
    common = min(total.shape[3], x.values.shape[3])
    total[..., :common] += x.values[..., :common]
  where = f"layer '{layer.name}'"
  return _activated(layer.activation, total, xs[0].bits, slope_integers(layer.activation, layer.leaky_slope, where))


def _same_values(layer: Layer, xs: list[Integers]) -> Integers:
  """Layers that choose among values: the lowering computes them on floats, which hold such integers exactly."""
  lower: Callable[..., object] = layer.lower
  from prn_jax.graph.graph import Context

  return np.asarray(lower([x.astype(np.float32) for x in xs], Context())).astype(np.int64)
