"""[Gaussian_yolo]: a head that predicts each coordinate's mean and deviation (docs/darknet.md a15, c6).

Entries: mu_x, sigma_x, mu_y, sigma_y, mu_w, sigma_w, mu_h, sigma_h, objectness, class 0, ... All but mu_w and
mu_h pass a sigmoid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.graph.head import Cells, Layout, Scores
from prn_jax.graph.section import Section, Wires
from prn_jax.kinds.yolo import AnchorHead, activate_entries
from prn_jax.lazy import jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

POINTS = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}  # from the centre, in sizes of the box


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianYolo(AnchorHead):
  """Gaussian YOLOv3 head; fields as `AnchorHead`, and:

  Attributes:
    yolo_point: the point that x, y predict: "center", "left_top" or "right_bottom" of the box.
  """

  kind = "gaussian_yolo"
  sections = ("Gaussian_yolo",)
  has_uncertainty = True

  yolo_point: str = "center"

  @property
  def layout(self) -> Layout:
    return Layout(box=slice(0, 8, 2), sigma=slice(1, 8, 2), objectness=8, first_class=9)

  @property
  def point_shift(self) -> float:
    return POINTS[self.yolo_point]

  def decode(self, x: Array, cells: Cells) -> Array:
    point, wh = jnp.split(super().decode(x, cells), 2, -1)
    return jnp.concatenate([point - self.point_shift * wh, wh], -1)

  def encode(self, boxes: Array, cells: Cells) -> Array:
    xy, wh = jnp.split(boxes, 2, -1)
    return super().encode(jnp.concatenate([xy + self.point_shift * wh, wh], -1), cells)

  def scores(self, x: Array) -> Scores:
    uncertainty = x[..., self.layout.sigma]
    objectness, certainty = x[..., self.layout.objectness], 1 - jnp.mean(uncertainty, -1, keepdims=True)
    return Scores(objectness, objectness[..., None] * (x[..., self.layout.first_class :] * certainty), uncertainty)

  def onnx_scores(self, x: str, o: OnnxBuilder) -> tuple[str, str]:
    sigma, first = self.layout.sigma, self.layout.first_class
    deviation = o.op("ReduceMean", [o.slice(x, sigma.start, sigma.stop, axis=2, step=sigma.step)], axes=[2], keepdims=1)
    objectness = o.slice(x, self.layout.objectness, first, axis=2)
    certain = o.op("Mul", [o.slice(x, first, self.entries, axis=2), o.op("Sub", [o.const(1), deviation])])
    return objectness, o.op("Mul", [objectness, certain])

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
