"""[Gaussian_yolo]: a head that predicts each coordinate's mean and deviation (darknet.md a15, c6).

Entries: mu_x, sigma_x, mu_y, sigma_y, mu_w, sigma_w, mu_h, sigma_h, objectness, class 0, ... All but mu_w and
mu_h pass a sigmoid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.graph.section import Section, Wires
from prn_jax.kinds.yolo import AnchorHead, activate_entries

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

POINTS = ("center", "left_top", "right_bottom")


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianYolo(AnchorHead):
  """Gaussian YOLOv3 head; fields as `AnchorHead`, and:

  Attributes:
    yolo_point: the point that x, y predict: "center", "left_top" or "right_bottom" of the box.
  """

  kind = "gaussian_yolo"
  sections = ("Gaussian_yolo",)

  yolo_point: str = "center"

  @property
  def entries(self) -> int:
    return 9 + self.classes

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if self.yolo_point not in POINTS:
      raise ValueError(f"yolo_point={self.yolo_point}; expected one of {', '.join(POINTS)}.")
    return super().shape(inputs)

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    point = section.text("yolo_point", "center")
    return cls.wired(wires, (), **cls._head_fields(section), yolo_point=point)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    x = self.per_anchor(xs[0])
    return activate_entries(x, (4, 6), (0, 2), self.scale_x_y).reshape(xs[0].shape)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return self.onnx_entries(xs[0], o, (4, 6), (0, 2))
