"""[cost]: the loss of Darknet's older classifiers; passes its input on (docs/darknet.md a13, e8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, register_kind

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

TYPES = ("sse", "masked", "smooth", "L1", "seg", "wgan")


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost(Layer):
  """Marks the loss; the network's result is the layer before it.

  Attributes:
    type: "sse", "masked" or "smooth" (others exist in pjreddie's Darknet).
    scale: factor on the gradient.
  """

  kind = "cost"
  sections = ("cost",)
  is_result = False
  copies = True

  type: str = "sse"
  scale: float = 1.0

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if self.type not in TYPES:
      raise ValueError(f"type={self.type}; expected one of {', '.join(TYPES)}.")
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return xs[0]

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return xs[0]
