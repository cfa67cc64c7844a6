"""[se]: squeeze and excitation as one layer (Hu et al. 2018; docs/darknet.md a18).

y = x * gate(V f(W mean(x) + a) + b). Not one of Darknet's sections, which spells it as [avgpool], two convolutions and
[scale_channels]; cfg files of MobileNetV3 have it, without the biases a and b.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, gate, mix
from prn_jax.graph.graph import Context, Layer, Shape, WeightArray, register_kind
from prn_jax.graph.section import Section, Wires
from prn_jax.kinds.activation import (
  ACTIVATIONS,
  LEAKY_SLOPE,
  activate,
  check_activation,
  onnx_activate,
  read_activation,
)
from prn_jax.kinds.conv import kernel_initializer
from prn_jax.lazy import jnp, nn

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeExcite(Layer):
  """Scales every channel by a weight that two matrix products compute from the means of all channels.

  Attributes:
    reduction: the hidden width is channels // reduction.
    filters: channels of the input, for cfg files that say it; 0: not said.
    squeezed: the hidden width itself, where it is not channels // reduction; 0: it is.
    biased: the matrix products have biases.
    activation: behind the first product, one of `kinds.activation.NAMES`.
    gate: behind the second.
  """

  kind = "se"
  sections = ("se",)

  reduction: int = 4
  filters: int = 0
  squeezed: int = 0
  biased: bool = False
  activation: str = "relu"
  gate: str = "hard_sigmoid"

  def hidden(self, channels: int) -> int:
    """Width between the two products."""
    return self.squeezed or channels // self.reduction

  def detail(self, places: Sequence[str]) -> str:
    width = f"to {self.squeezed}" if self.squeezed else f"1/{self.reduction}"
    return f"{width} {self.activation} {self.gate}"

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    check_activation(self.activation)
    check_activation(self.gate)
    if self.reduction < 1 or self.squeezed < 0:
      raise ValueError(f"reduction={self.reduction}, squeezed={self.squeezed}; expected at least 1, and at least 0.")
    if self.filters not in (0, x.channels):
      raise ValueError(f"filters={self.filters}, but the input has {x.channels} channels. They must be equal.")
    if not self.hidden(x.channels):
      raise ValueError(f"reduction={self.reduction} leaves none of the {x.channels} input channels.")
    return x

  def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * output.channels * self.hidden(output.channels)

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * self.macs(inputs, output)  # as if the products were 1x1 convolutions, as Darknet spells them

  def window(self, inputs: Sequence[Shape], output: Shape) -> None:
    return None

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    if ACTIVATIONS[self.gate].mixes_channels:
      return (mix(output.channels, output.channels),)
    return (gate(output.channels),)

  def follow(self, before: Sequence[Shape], after: Sequence[Shape]) -> Layer:
    """With fewer channels the hidden width stays, so that weights of the channels that are left fit."""
    old, new = before[0].channels, after[0].channels
    if old == new:
      return self
    return dataclasses.replace(self, filters=self.filters and new, squeezed=self.hidden(old))

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    channels = inputs[0].channels
    hidden = self.hidden(channels)
    down = WeightArray("reduce/kernel", "params", (hidden, channels), (1, 0), reads=0)
    up = WeightArray("expand/kernel", "params", (channels, hidden), (1, 0), makes=1)
    if not self.biased:
      return down, up
    return (
      WeightArray("reduce/bias", "params", (hidden,)),
      down,
      WeightArray("expand/bias", "params", (channels,), makes=0),
      up,
    )

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(
      wires,
      (),
      reduction=section.at_least("reduction", 1, 4),
      filters=section.at_least("filters", 0, 0),
      squeezed=section.at_least("squeezed", 0, 0),
      biased=bool(section.integer("biased")),
      activation=read_activation(section, "relu"),
      gate=read_activation(section, "hard_sigmoid", "gate"),
    )

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    (x,) = xs
    channels = x.shape[-1]
    y = x.mean((1, 2), keepdims=True)
    for name, width, function in (
      ("reduce", self.hidden(channels), self.activation),
      ("expand", channels, self.gate),
    ):
      dense = nn.Dense(
        width,
        use_bias=self.biased,
        dtype=ctx.dtype or jnp.float32,
        precision=ctx.precision,
        kernel_init=kernel_initializer(ctx),
        name=name,
      )
      y = activate(dense(y), function)
    return x * y

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    y = o.op("GlobalAveragePool", xs)
    for name, function in (("reduce", self.activation), ("expand", self.gate)):
      kernel = o.variable(f"{name}/kernel")
      bias = [o.const(o.variable(f"{name}/bias"))] if self.biased else []
      y = o.op("Conv", [y, o.const(kernel[:, :, None, None]), *bias], kernel_shape=[1, 1])
      y = onnx_activate(o, y, function, LEAKY_SLOPE)
    return o.op("Mul", [xs[0], y])
