"""[scale_channels]: squeeze-and-excitation's product (docs/darknet.md a11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep, mix
from prn_jax.graph.graph import Context, Layer, Shape, Wiring, non_default_fields, register_kind
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.kinds.activation import (
  LEAKY_SLOPE,
  activate,
  activated,
  check_activation,
  onnx_activate,
  read_activation,
)

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleChannels(Layer):
  """Multiplies the source by the previous layer, which is broadcast.

  Attributes:
    scale_wh: False: the previous layer is 1x1 with the source's channels; True: it has one channel and the
      source's size.
    activation: one of `kinds.activation.NAMES`.
    leaky_slope: slope of "leaky" below zero.
  """

  kind = "scale_channels"
  sections = ("scale_channels",)
  wiring = Wiring.PREVIOUS_AND_SOURCES

  scale_wh: bool = False
  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    check_activation(self.activation)
    if len(inputs) != 2:
      raise ValueError(f"needs exactly one source (cfg key 'from'), not {len(inputs) - 1}.")
    scale, x = inputs
    expected = x._replace(channels=1) if self.scale_wh else Shape(1, 1, x.channels)
    if scale != expected:
      raise ValueError(f"the input is {scale}; to scale '{self.inputs[1]}' ({x}) it must be {expected}.")
    return x

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    scale = mix(1, output.channels) if self.scale_wh else keep(output.channels)
    return activated(self.activation, output, scale, keep(output.channels))

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(
      wires,
      tuple(wires.source(i, "from") for i in section.integers("from")),
      scale_wh=bool(section.integer("scale_wh")),
      activation=read_activation(section),
      leaky_slope=section.number("leaky_slope", LEAKY_SLOPE),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"from": wires.reference(self.inputs[1])} | non_default_fields(self)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    scale, x = xs
    return activate(x * scale, self.activation, self.leaky_slope)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return onnx_activate(o, o.op("Mul", [xs[1], xs[0]]), self.activation, self.leaky_slope)
