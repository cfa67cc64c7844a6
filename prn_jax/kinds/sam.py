"""[sam]: spatial attention, the product of two equal maps (docs/darknet.md a11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
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
class Sam(Layer):
  """Multiplies the source by the previous layer, cell by cell.

  Attributes:
    activation: one of `kinds.activation.NAMES`.
    leaky_slope: slope of "leaky" below zero.
  """

  kind = "sam"
  sections = ("sam",)
  wiring = Wiring.PREVIOUS_AND_SOURCES
  same_size = True

  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    check_activation(self.activation)
    if len(inputs) != 2:
      raise ValueError(f"needs exactly one source (cfg key 'from'), not {len(inputs) - 1}.")
    if inputs[0] != inputs[1]:
      raise ValueError(
        f"'{self.inputs[1]}' is {inputs[1]} but the input '{self.inputs[0]}' is {inputs[0]}. They must be equal."
      )
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return activated(self.activation, output, keep(output.channels), keep(output.channels))

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(
      wires,
      tuple(wires.source(i, "from") for i in section.integers("from")),
      activation=read_activation(section),
      leaky_slope=section.number("leaky_slope", LEAKY_SLOPE),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"from": wires.reference(self.inputs[1])} | non_default_fields(self)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return activate(xs[1] * xs[0], self.activation, self.leaky_slope)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return onnx_activate(o, o.op("Mul", [xs[1], xs[0]]), self.activation, self.leaky_slope)
