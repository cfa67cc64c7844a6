"""[region]: YOLOv2's detection head (docs/darknet.md a16), as AlexeyAB's Darknet stores it.

The channel of anchor a and entry e is a*(coords+1+classes)+e. The stored output has a sigmoid on the
objectness and a softmax over the classes; x, y, w, h stay raw: the box decoder applies
x = (i + sigmoid(x)) / w and w = exp(w) * anchor / w, with anchors in cells.

Hierarchical classes (yolo9000, `tree=`) are out of scope: such a network builds and runs, but its class
entries stay raw scores, and decoding them to boxes is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.channels import How, Reads, Span, keep
from prn_jax.graph.graph import Context, Layer, Shape, non_default_fields, register_kind
from prn_jax.graph.head import Cells, DetectionHead, Layout
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.kinds.yolo import Anchors, check_anchors, read_anchors, write_anchors
from prn_jax.lazy import jax, jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Region(DetectionHead):
  """YOLOv2 head; fields as `DetectionHead`, and:

  Attributes:
    anchors: (width, height) in cells of the output map.
    coords: values per box (4).
    softmax: softmax over the classes; without it they stay raw.
    tree: file of a class hierarchy (out of scope, see above).
  """

  kind = "region"
  sections = ("region",)

  anchors: Anchors = ()
  coords: int = 4
  softmax: bool = False
  tree: str = ""

  def __post_init__(self) -> None:
    self._set(anchors=tuple(map(tuple, self.anchors)))

  @property
  def layout(self) -> Layout:
    return Layout(box=slice(0, 4), objectness=self.coords, first_class=self.coords + 1)

  def check_boxes(self) -> None:
    if self.tree:
      raise OutOfScopeError(
        f"layer '{self.name}' (region) has a class hierarchy (tree={self.tree}); decoding its boxes is not supported."
      )

  def own_anchors_px(self, grid: tuple[int, int], net_size: tuple[int, int]) -> np.ndarray:
    return np.asarray(self.anchors, np.float64) * np.array(net_size, np.float64) / grid

  def decode(self, x: Array, cells: Cells) -> Array:
    grid = cells.pairs(cells.grid)
    xy = (cells.xy + jax.nn.sigmoid(x[..., :2])) / grid
    return jnp.concatenate([xy, jnp.exp(x[..., 2:4]) * cells.pairs(*self.anchors) / grid], -1)

  def onnx_decode(self, x: str, cells: Cells, o: OnnxBuilder) -> str:
    grid, repeats = o.const(cells.grid), cells.xy.shape[1] // len(self.anchors)
    xy = o.op("Div", [o.op("Add", [o.op("Sigmoid", [o.slice(x, 0, 2, axis=2)]), o.const(cells.xy)]), grid])
    anchors = o.const(np.tile(np.asarray(self.anchors, np.float32), (repeats, 1))[None])
    size = o.op("Div", [o.op("Mul", [o.op("Exp", [o.slice(x, 2, 4, axis=2)]), anchors]), grid])
    return o.op("Concat", [xy, size], axis=2)

  def encode(self, boxes: Array, cells: Cells) -> Array:
    offsets, wh = jnp.split(self.offsets(boxes, cells, cells.pairs(*self.anchors)), 2, -1)
    return jnp.concatenate([jnp.log(offsets) - jnp.log1p(-offsets), wh], -1)

  def offsets(self, boxes: Array, cells: Cells, anchors: np.ndarray | Array) -> Array:
    """As `encode`, with sigmoid(x) and sigmoid(y) in place of x and y, which are infinite on the border of a cell.

    Args:
      boxes, cells: see there.
      anchors: those of the last axis but one, (..., a, 2) in cells.
    """
    grid = cells.pairs(cells.grid)
    xy, wh = boxes[..., :2] * grid - cells.xy, jnp.log(boxes[..., 2:] * grid / anchors)
    return jnp.concatenate([jnp.broadcast_to(xy, wh.shape), wh], -1)

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    check_anchors(self.anchors)
    expected = len(self.anchors) * self.entries
    if inputs[0].channels != expected:
      raise ValueError(
        f"the input has {inputs[0].channels} channels; {len(self.anchors)} anchors with {self.entries} values "
        f"each ({self.classes} classes) need {expected}. Set filters={expected} in the convolution before it."
      )
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    if not self.softmax or self.tree or not self.classes:
      return (keep(output.channels),)
    spans = []
    for end in range(self.entries, output.channels + 1, self.entries):
      first, classes = end - self.entries, end - self.classes
      spans += [Span(first, classes, first, classes, How.KEEP), Span(classes, end, classes, end, How.MIX)]
    return (Reads(tuple(spans)),)

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(
      wires,
      (),
      classes=section.at_least("classes", 0, 20),
      anchors=read_anchors(section),
      coords=section.at_least("coords", 4, 4),
      softmax=bool(section.integer("softmax")),
      tree=section.text("tree"),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys: dict[str, Value] = {"classes": self.classes} | write_anchors(self.anchors)
    return keys | non_default_fields(self, skip=("classes", "anchors"))

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    x = xs[0].astype(jnp.float32).reshape(*xs[0].shape[:-1], -1, self.entries)
    boxes, objectness, classes = jnp.split(x, [self.coords, self.coords + 1], axis=-1)
    if self.softmax and not self.tree:
      classes = jax.nn.softmax(classes)
    return jnp.concatenate([boxes, jax.nn.sigmoid(objectness), classes], -1).reshape(xs[0].shape)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    parts = o.split(xs[0], [self.coords, 1, self.classes] * len(self.anchors), axis=1)
    parts[1::3] = [o.op("Sigmoid", [objectness]) for objectness in parts[1::3]]
    if self.softmax and not self.tree:
      parts[2::3] = [o.op("Softmax", [classes], axis=1) for classes in parts[2::3]]
    return o.op("Concat", parts, axis=1)
