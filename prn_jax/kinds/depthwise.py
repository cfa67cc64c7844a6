"""[depthwise]: a convolution in which every input channel has kernels of its own (docs/darknet.md a18).

Not one of Darknet's sections, which writes groups=C into [convolutional]; cfg files of MobileNetV3 have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, WeightArray, Window, non_default_fields, register_kind
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.kinds.activation import LEAKY_SLOPE, activated, read_activation, write_activation
from prn_jax.kinds.batchnorm import darknets_if_equal
from prn_jax.kinds.conv import DEFAULT_ACTIVATION, Conv

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Depthwise(Layer):
  """As `Conv` with as many groups as the input has channels, whatever their number.

  Attributes:
    filters: output channels, a multiple of the input's.
    size, stride, padding, batch_normalize, activation, leaky_slope, same, bn_epsilon: as in `Conv`.
  """

  kind = "depthwise"
  sections = ("depthwise",)
  kernel = "conv"
  width_field = "filters"

  filters: int = 1
  size: int = 1
  stride: int = 1
  padding: int = 0
  batch_normalize: bool = False
  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE
  same: bool = False
  bn_epsilon: float = 0.0

  def __post_init__(self) -> None:
    self._set(bn_epsilon=darknets_if_equal(self.bn_epsilon))

  @property
  def has_batchnorm(self) -> bool:
    return self.batch_normalize

  def conv(self, channels: int) -> Conv:
    """The convolution that computes this layer on an input of `channels` channels."""
    return Conv(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, groups=channels)

  def detail(self, places: Sequence[str]) -> str:
    return f"{self.filters} {self.size}x{self.size}/{self.stride} {self.activation}"

  # -- shape and cost ------------------------------------------------------------------------------
  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    if self.filters % x.channels:
      raise ValueError(f"filters={self.filters}; expected a multiple of the {x.channels} input channels.")
    return self.conv(x.channels).shape(inputs)

  def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
    return self.conv(inputs[0].channels).macs(inputs, output)

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    return self.conv(inputs[0].channels).flops(inputs, output)

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window:
    return self.conv(inputs[0].channels).window(inputs, output)

  # -- channels ------------------------------------------------------------------------------------
  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    channels = inputs[0].channels
    if self.filters == channels:
      return activated(self.activation, output, keep(channels))
    return self.conv(channels).reads(inputs, output)

  def follow(self, before: Sequence[Shape], after: Sequence[Shape]) -> Layer:
    return dataclasses.replace(self, filters=self.filters // before[0].channels * after[0].channels)

  # -- weights -------------------------------------------------------------------------------------
  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    return self.conv(inputs[0].channels).arrays(inputs)

  # -- cfg -----------------------------------------------------------------------------------------
  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    size, padding = section.at_least("size", 1, 1), section.integer("padding")
    return cls.wired(
      wires,
      (),
      filters=section.at_least("filters", 1, 1),
      size=size,
      stride=section.at_least("stride", 1, 1),
      padding=size // 2 if section.integer("pad") else padding,
      batch_normalize=bool(section.integer("batch_normalize")),
      activation=read_activation(section, DEFAULT_ACTIVATION),
      leaky_slope=section.number("leaky_slope", LEAKY_SLOPE),
      same=bool(section.integer("same")),
      bn_epsilon=section.number("bn_epsilon"),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys = non_default_fields(self, skip=("padding", "activation", "leaky_slope"))
    keys |= {"filters": self.filters, "size": self.size, "stride": self.stride}
    if self.padding == self.size // 2 and not self.same:
      keys["pad"] = 1
    elif self.padding:
      keys["padding"] = self.padding
    return keys | write_activation(self.activation, self.leaky_slope, DEFAULT_ACTIVATION)

  # -- Flax ----------------------------------------------------------------------------------------
  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return self.conv(xs[0].shape[-1]).lower(xs, ctx)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return self.conv(o.shape[0]).onnx(xs, o)
