"""[dropout]: the identity at inference (docs/darknet.md a6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.lazy import nn

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
  """In training sets each value to 0 with `probability` and divides the others by 1 - probability."""

  kind = "dropout"
  sections = ("dropout",)
  is_result = False
  copies = True

  probability: float = 0.2

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if not 0 <= self.probability <= 1:
      raise ValueError(f"probability={self.probability}; expected 0 to 1.")
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return nn.Dropout(self.probability, deterministic=not ctx.train, name="dropout")(xs[0])

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return xs[0]
