"""[avgpool]: mean over the whole map (docs/darknet.md a6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, register_kind

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class AvgPool(Layer):
  """Global average: 1x1 with the channels of the input."""

  kind = "avgpool"
  sections = ("avgpool", "avg")

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    return Shape(1, 1, inputs[0].channels)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def window(self, inputs: Sequence[Shape], output: Shape) -> None:
    return None

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return xs[0].mean((1, 2), keepdims=True)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return o.op("GlobalAveragePool", xs)
