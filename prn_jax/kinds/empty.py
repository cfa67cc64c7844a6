"""[empty], [silence]: the previous output under another name (docs/darknet.md a13)."""

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
class Empty(Layer):
  """The identity."""

  kind = "empty"
  sections = ("empty", "silence")
  is_result = False
  copies = True

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return xs[0]

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return xs[0]
