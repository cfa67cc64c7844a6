"""[crop]: centre crop of the old classifiers, as at test time (docs/darknet.md a13).

Random crops, flips and colour changes of Darknet's crop layer belong to the data pipeline here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.graph.section import Section, Value, Wires

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop(Layer):
  """Cuts the centre and maps [0, 1] to [-1, 1].

  Attributes:
    height, width: size of the crop.
    rescale: False leaves the values as they are (Darknet's noadjust=1).
  """

  kind = "crop"
  sections = ("crop",)

  height: int = 1
  width: int = 1
  rescale: bool = True

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    if not (0 < self.height <= x.height and 0 < self.width <= x.width):
      raise ValueError(f"cannot cut {self.width}x{self.height} out of {x}; expected 1x1 to {x.width}x{x.height}.")
    return Shape(self.height, self.width, x.channels)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  @property
  def keeps_zero(self) -> bool:
    return not self.rescale

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(
      wires,
      (),
      height=section.at_least("crop_height", 1, 1),
      width=section.at_least("crop_width", 1, 1),
      rescale=not section.integer("noadjust"),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys: dict[str, Value] = {"crop_height": self.height, "crop_width": self.width}
    return keys if self.rescale else keys | {"noadjust": 1}

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    _, h, w, _ = xs[0].shape
    top, left = (h - self.height) // 2, (w - self.width) // 2
    x = xs[0][:, top : top + self.height, left : left + self.width]
    return x * 2 - 1 if self.rescale else x

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    if o.any_size:
      raise OutOfScopeError(
        f"layer '{self.name}' (crop) cuts {self.width}x{self.height} out of the middle of one image size; write ONNX for "
        "one size."
      )
    _, h, w = o.shape
    top, left = (h - self.height) // 2, (w - self.width) // 2
    x = o.slice(o.slice(xs[0], top, top + self.height, axis=2), left, left + self.width, axis=3)
    return o.op("Sub", [o.op("Mul", [x, o.const(2)]), o.const(1)]) if self.rescale else x
