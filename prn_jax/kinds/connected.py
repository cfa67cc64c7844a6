"""[connected]: a matrix product over the flattened input (docs/darknet.md a7).

Darknet flattens channels first; we flatten NHWC, and the weights codec reorders the kernel's input axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, weigh
from prn_jax.graph.graph import Context, Layer, Shape, WeightArray, register_kind
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
from prn_jax.kinds.batchnorm import batch_norm, batch_norm_arrays, check_epsilon, darknets_if_equal
from prn_jax.kinds.conv import DEFAULT_ACTIVATION, kernel_initializer
from prn_jax.lazy import jnp, nn

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Connected(Layer):
  """Fully connected layer, then batch norm or bias, then activation.

  Attributes:
    output: number of outputs, which become channels of a 1x1 map.
    batch_normalize: batch norm instead of a plain bias.
    activation: one of `kinds.activation.NAMES`.
    leaky_slope: slope of "leaky" below zero.
    bn_epsilon: what batch norm adds to the variance; 0: Darknet's 0.00001.
  """

  kind = "connected"
  sections = ("connected",)
  kernel = "dense"
  width_field = "output"

  output: int = 1
  batch_normalize: bool = False
  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE
  bn_epsilon: float = 0.0

  def __post_init__(self) -> None:
    self._set(bn_epsilon=darknets_if_equal(self.bn_epsilon))

  @property
  def has_batchnorm(self) -> bool:
    return self.batch_normalize

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    check_activation(self.activation)
    check_epsilon(self.bn_epsilon)
    return Shape(1, 1, self.output)

  def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
    return inputs[0].size * self.output  # Darknet prints no BFLOPs for it

  def window(self, inputs: Sequence[Shape], output: Shape) -> None:
    return None

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return activated(self.activation, output, weigh(inputs[0].channels, output.channels))

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    h, w, c = inputs[0]
    kernel = WeightArray("dense/kernel", "params", (self.output, c, h, w), (2, 3, 1, 0), (h * w * c, self.output), 0, 1)
    if not self.batch_normalize:
      return WeightArray("dense/bias", "params", (self.output,), makes=0), kernel
    bn = batch_norm_arrays(self.output)
    return bn["bias"], kernel, bn["scale"], bn["mean"], bn["var"]

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(
      wires,
      (),
      output=section.at_least("output", 1, 1),
      batch_normalize=bool(section.integer("batch_normalize")),
      activation=read_activation(section, DEFAULT_ACTIVATION),
      leaky_slope=section.number("leaky_slope", LEAKY_SLOPE),
      bn_epsilon=section.number("bn_epsilon"),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys: dict[str, Value] = {"output": self.output}
    if self.batch_normalize:
      keys["batch_normalize"] = 1
    if self.bn_epsilon:
      keys["bn_epsilon"] = self.bn_epsilon
    return keys | write_activation(self.activation, self.leaky_slope, DEFAULT_ACTIVATION)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    x = xs[0].reshape(xs[0].shape[0], -1)
    x = nn.Dense(
      self.output,
      use_bias=not self.batch_normalize,
      dtype=ctx.dtype or jnp.float32,
      precision=ctx.precision,
      kernel_init=kernel_initializer(ctx),
      name="dense",
    )(x)
    if self.batch_normalize:
      x = batch_norm(x, ctx, self.bn_epsilon)
    return activate(x[:, None, None, :], self.activation, self.leaky_slope)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    kernel = o.variable("dense/kernel").reshape(self.output, -1)  # [out][CHW], as in a weights file
    flat = o.reshape(xs[0], kernel.shape[1])
    y = o.op("Gemm", [flat, o.const(kernel), o.const(o.variable("dense/bias"))], transB=1)
    return onnx_activate(o, o.reshape(y, self.output, 1, 1), self.activation, self.leaky_slope)
