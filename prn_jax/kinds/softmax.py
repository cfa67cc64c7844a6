"""[softmax] (docs/darknet.md a13)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.channels import How, Reads, Span
from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.graph.section import Section, Wires
from prn_jax.lazy import jax, jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
  """Softmax of x / temperature within each of `groups` equal blocks of the flattened (CHW) input."""

  kind = "softmax"
  sections = ("softmax", "soft")
  is_probability = True

  groups: int = 1
  temperature: float = 1.0

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if self.groups < 1 or inputs[0].size % self.groups:
      raise ValueError(f"groups={self.groups} must divide the {inputs[0].size} inputs.")
    if self.temperature <= 0:
      raise ValueError(f"temperature={self.temperature}; expected more than 0.")
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    cells, block = output.height * output.width, output.size // self.groups
    ends = (cell for first in range(0, output.size, cells) for cell in (first, first + cells - 1))  # of each channel
    spans = {
      (number * block // cells, -(-(number + 1) * block // cells)) for number in {cell // block for cell in ends}
    }
    return (Reads(tuple(Span(*span, *span, How.MIX) for span in sorted(spans))),)

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    for key in ("tree", "spatial"):
      if section.text(key, "0") != "0":
        raise OutOfScopeError(
          f"{section.where(key)} has {key}={section.text(key)}: hierarchical and spatial softmax are out of scope."
        )
    return super().from_cfg(section, wires)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    n, h, w, c = xs[0].shape
    flat = xs[0].transpose(0, 3, 1, 2).reshape(n, self.groups, -1).astype(jnp.float32)
    return jax.nn.softmax(flat / self.temperature).reshape(n, c, h, w).transpose(0, 2, 3, 1)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    x = o.op("Div", [o.reshape(xs[0], self.groups, -1), o.const(self.temperature)])
    return o.reshape(o.op("Softmax", [x], axis=-1), o.shape[0], *o.extents(xs[0]))
