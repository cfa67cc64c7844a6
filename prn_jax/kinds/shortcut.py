"""[shortcut]: the partial residual (Wang et al., ICCVW 2019, eq. 1; docs/darknet.md a8).

x_l = [H(x)[0:c] + x_{l-k}[0:c], H(x)[c:]]: the output keeps the shape of the previous layer, and each source
adds its first min(c_source, c) channels. c = 0 is a plain network, c = all is ResNet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.graph.channels import Reads, cut
from prn_jax.graph.graph import (
  Context,
  Layer,
  Shape,
  WeightArray,
  Wiring,
  non_default_fields,
  register_kind,
)
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.kinds.activation import (
  LEAKY_SLOPE,
  activate,
  activated,
  check_activation,
  onnx_activate,
  read_activation,
  write_activation,
)
from prn_jax.lazy import jnp, lax, nn

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

WEIGHTS_TYPES = {"none": "none", "per_feature": "per_feature", "per_layer": "per_feature", "per_channel": "per_channel"}
NORMALIZATIONS = {"none": "none", "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}


def add_partial(y: Array, x: Array) -> Array:
  """Adds the channels that `x` and `y` have in common; the others of `y` stay.

  Defined as `y.at[..., :c].add(x[..., :c])` with c = min(channels). Written as pad-and-add because XLA then
  fuses it into the convolution before it: by TPU v5e's compiler one fusion and 12 MB of traffic instead of three
  and 26 MB, on CPU in bfloat16 1.2x faster (benchmarks/partial_residual.py, docs/speed.md). A negative pad is the
  slice. All forms are equal to the bit.

  Args:
    y: (n, h, w, c_y), decides the shape of the result.
    x: (n, h, w, c_x) of the same dtype.

  Returns:
    (n, h, w, c_y).
  """
  missing = y.shape[-1] - x.shape[-1]
  if not missing:
    return y + x
  nothing = jnp.asarray(-0.0, x.dtype)  # y + -0.0 is y for every y; y + 0.0 turns -0.0 into 0.0
  return y + lax.pad(x, nothing, ((0, 0, 0),) * 3 + ((0, missing, 0),))


def match_size(x: Array, height: int, width: int) -> Array:
  """Brings a source to the size of the target: every k-th cell, or cells k apart with zeros between
  (pjreddie's `shortcut_cpu`; AlexeyAB's Darknet refuses unequal sizes)."""
  if x.shape[1] > height:
    return x[:, :: x.shape[1] // height, :: x.shape[2] // width]
  if x.shape[1] < height:
    k = height // x.shape[1]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, k - 1, k - 1), (0, k - 1, k - 1), (0, 0, 0)))
  return x


def onnx_match_size(o: OnnxBuilder, x: str, channels: int, source_height: int, height: int) -> str:
  """As `match_size`, with operations that every runtime has: a pool of one cell, or a transposed 1x1 convolution."""
  if source_height > height:
    return o.op("MaxPool", [x], kernel_shape=[1, 1], strides=[source_height // height] * 2)
  if source_height < height:
    k = height // source_height
    ones = o.const(np.ones((channels, 1, 1, 1)))
    attributes = {"kernel_shape": [1, 1], "strides": [k, k], "output_padding": [k - 1, k - 1], "group": channels}
    return o.op("ConvTranspose", [x, ones], **attributes)
  return x


def normalized(weights: Array, how: str) -> Array:
  """Normalises fusion weights (n + 1, ...) over the first axis. Darknet's GPU and test commands use
  max(w, 0.001) for "relu"; we use max(w, 0), as its training on CPU does."""
  if how == "softmax":
    e = jnp.exp(weights - weights.max(0, keepdims=True))
    return e / (1e-4 + e.sum(0, keepdims=True))
  positive = jnp.maximum(weights, 0.0)
  return positive / (1e-4 + positive.sum(0, keepdims=True))


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shortcut(Layer):
  """Adds the common channels of the sources to the previous layer, then activates.

  Attributes:
    activation: one of `kinds.activation.NAMES`.
    leaky_slope: slope of "leaky" below zero.
    weights_type: "none", or learned weights "per_feature" (one per input) or "per_channel".
    weights_normalization: "relu" or "softmax", required with weights.
  """

  kind = "shortcut"
  sections = ("shortcut",)
  wiring = Wiring.PREVIOUS_AND_SOURCES
  same_size = True
  adds_sources = True

  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE
  weights_type: str = "none"
  weights_normalization: str = "none"

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    previous, *sources = inputs
    check_activation(self.activation)
    if not sources:
      raise ValueError("needs at least one source (cfg key 'from').")
    self._check_weights()
    for name, source in zip(self.inputs[1:], sources, strict=True):
      if not _integer_ratio(source, previous):
        raise ValueError(
          f"'{name}' is {source} but the input '{self.inputs[0]}' is {previous}. "
          "Width and height must match, or one must be the same integer multiple of the other in both."
        )
    return previous

  def _check_weights(self) -> None:
    for value, known in ((self.weights_type, WEIGHTS_TYPES), (self.weights_normalization, NORMALIZATIONS)):
      if value not in known.values():
        raise ValueError(f"unknown option '{value}'; expected one of {sorted(set(known.values()))}.")
    if self.weights_type != "none" and self.weights_normalization == "none":
      raise ValueError(
        f"weights_type={self.weights_type} needs weights_normalization=relu or softmax; Darknet refuses none."
      )

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return activated(self.activation, output, *(cut(0, min(x.channels, output.channels)) for x in inputs))  # eq. 1

  def keeps_constants(self, inputs: Sequence[Shape]) -> bool:
    return all(x.height >= inputs[0].height for x in inputs)  # cells of a smaller source have zeros between them

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    return output.size * (len(inputs) - 1) * (1 if self.weights_type == "none" else 2)

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    if self.weights_type == "none":
      return ()
    makes = 1 if self.weights_type == "per_channel" else None
    return (WeightArray("weights", "params", self._weights_shape(inputs[0].channels), makes=makes),)

  def detail(self, places: Sequence[str]) -> str:
    return f"+ {', '.join(places[1:])} {self.activation}"

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    sources = section.integers("from")
    if not sources:
      raise section.error("has no key 'from'; expected the indices of the layers to add.")
    options = {}
    for key, known in (("weights_type", WEIGHTS_TYPES), ("weights_normalization", NORMALIZATIONS)):
      value = section.text(key, "none")
      if value not in known:
        raise section.error(f"has {key}={value}; expected one of {', '.join(known)}.", key)
      options[key] = known[value]
    return cls.wired(
      wires,
      tuple(wires.source(i, "from") for i in sources),
      activation=read_activation(section),
      leaky_slope=section.number("leaky_slope", LEAKY_SLOPE),
      **options,
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys: dict[str, Value] = {"from": [wires.reference(name) for name in self.inputs[1:]]}
    keys |= write_activation(self.activation, self.leaky_slope, "")
    return keys | non_default_fields(self, skip=("activation", "leaky_slope"))

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    y, *sources = xs
    sources = [match_size(x, *y.shape[1:3]) for x in sources]
    if self.weights_type != "none":
      learned = ctx.module.param("weights", nn.initializers.ones, self._weights_shape(y.shape[-1]))
      weights = normalized(learned, self.weights_normalization).astype(y.dtype)
      first, *rows = weights.reshape(len(xs), 1, 1, 1, -1)
      y = y * first
      sources = [x[..., : y.shape[-1]] * w[..., : x.shape[-1]] for w, x in zip(rows, sources, strict=True)]
    for x in sources:
      y = add_partial(y, x)
    return activate(y, self.activation, self.leaky_slope)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    y, *sources = xs
    (c, height, _), shapes = o.shape, o.input_shapes[1:]
    factors = self._onnx_factors(o) if self.weights_type != "none" else None
    if factors is not None:
      y = o.op("Mul", [y, o.const(factors[0])])
    for i, (source, (source_c, source_h, _)) in enumerate(zip(sources, shapes, strict=True), 1):
      x = source
      if source_c > c:
        x = o.slice(x, 0, c, axis=1)
      x = onnx_match_size(o, x, min(c, source_c), source_h, height)
      if factors is not None:
        x = o.op("Mul", [x, o.const(factors[i][:, : min(c, source_c)])])
      if source_c < c:
        x = o.op("Pad", [x, o.ints([0, 0, 0, 0, 0, c - source_c, 0, 0])])
      y = o.op("Add", [y, x if x == source or factors is not None else o.as_before(x, source)])
    return onnx_activate(o, y, self.activation, self.leaky_slope)

  def _onnx_factors(self, o: OnnxBuilder) -> np.ndarray:
    """Normalised fusion weights, (n + 1, 1, c, 1, 1)."""
    weights = np.asarray(normalized(jnp.asarray(o.variable("weights")), self.weights_normalization))
    rows = np.broadcast_to(weights.reshape(len(weights), -1), (len(weights), o.shape[0]))
    return rows[:, None, :, None, None]

  def _weights_shape(self, channels: int) -> tuple[int, ...]:
    rows = len(self.inputs)  # row 0 is the previous layer
    return (rows,) if self.weights_type == "per_feature" else (rows, channels)


def _integer_ratio(source: Shape, target: Shape) -> bool:
  (h1, w1, _), (h2, w2, _) = source, target
  if h1 >= h2:
    return h1 % h2 == 0 and w1 % w2 == 0 and h1 // h2 == w1 // w2
  return h2 % h1 == 0 and w2 % w1 == 0 and h2 // h1 == w2 // w1
