"""[yolo]: YOLOv3's detection head, as Darknet stores it (docs/darknet.md a14, c6).

The channel of anchor a and entry e is a*(5+classes)+e, with entries x, y, w, h, objectness, class 0, ...
The output is activated: sigmoid on all but w and h; then x, y -> scale_x_y*v - (scale_x_y-1)/2. With
new_coords=1 there is no sigmoid here (the convolution before has activation=logistic).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, non_default_fields, register_kind
from prn_jax.graph.head import NMS_KINDS, Cells, DetectionHead, Layout, Nms
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.lazy import jax, jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


Anchors = tuple[tuple[float, float], ...]
MAX_ANCHORS = 1000  # far beyond any network; keeps a damaged `num` from filling the memory
FIND_ANCHORS = "'prn data anchors SPEC --num N --size WxH' finds them for your data."


def read_anchors(section: Section, mask: Sequence[int] = ()) -> Anchors:
  """`num` pairs (width, height); none where the key is absent. Darknet fills missing values with 0.5 and ignores those beyond `num`; where
  the mask needs them (cspx-p7-mish.cfg) Darknet reads past its array and we take them."""
  count, values = section.at_least("num", 1, 1), section.numbers("anchors")
  if not values:
    return ()  # refused by the shape rule
  needed = max(count, *(i + 1 for i in (0, *mask)))
  if 2 * needed <= len(values):
    count = needed
  if count > max(MAX_ANCHORS, len(values)):
    raise section.error(f"has num={count}; expected at most {MAX_ANCHORS} anchors.", "num")
  if len(values) != 2 * count:
    logging.getLogger(__name__).warning(
      "%s has %d anchor values, but %d anchors need %d; as Darknet does, %s.",
      section.where("anchors"),
      len(values),
      count,
      2 * count,
      "missing ones become 0.5" if len(values) < 2 * count else "the rest is ignored",
    )
  values = (*values, *[0.5] * (2 * count))
  return tuple((values[2 * i], values[2 * i + 1]) for i in range(count))


def check_anchors(anchors: Anchors) -> None:
  if not anchors:
    raise ValueError(f"has no anchors; expected anchors=WIDTH,HEIGHT, ... {FIND_ANCHORS}")
  if not any(side for anchor in anchors for side in anchor):
    raise ValueError(f"all {len(anchors)} anchors are 0, a placeholder. {FIND_ANCHORS}")
  for i, anchor in enumerate(anchors):
    if len(anchor) != 2 or not all(0 < side < math.inf for side in anchor):
      raise ValueError(f"anchor {i} is {anchor}; expected a positive width and height.")


def write_anchors(anchors: Anchors) -> dict[str, Value]:
  return {"num": len(anchors), "anchors": [v for pair in anchors for v in pair]}


def read_nms(section: Section) -> dict[str, str | float]:
  """The non-maximum suppression that the cfg asks for; an unknown kind is the default one, as in Darknet."""
  kind = section.text("nms_kind", "default")
  return {
    "nms_kind": kind if kind in NMS_KINDS else "default",
    "beta_nms": section.number("beta_nms", 0.6),
  }


def activate_entries(x: Array, raw: Sequence[int], xy: Sequence[int], scale_x_y: float) -> Array:
  """Sigmoid on the last axis of `x` except at the entries `raw`; then scale_x_y at the entries `xy`."""
  entries = x.shape[-1]
  row = (1,) * (x.ndim - 1) + (entries,)  # explicit: rank promotion may be forbidden
  x = jnp.where(np.isin(np.arange(entries), raw).reshape(row), x, jax.nn.sigmoid(x))
  if scale_x_y == 1:
    return x
  scale, shift = np.ones(entries, np.float32), np.zeros(entries, np.float32)
  scale[list(xy)], shift[list(xy)] = scale_x_y, -0.5 * (scale_x_y - 1)
  return x * scale.reshape(row) + shift.reshape(row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorHead(DetectionHead):
  """What [yolo] and [Gaussian_yolo] share; fields as `DetectionHead`, and:

  Attributes:
    anchors: all anchors as (width, height) in pixels of the network input.
    mask: indices of the anchors of this head; None means all.
    scale_x_y: grid sensitivity: factor of the x, y range around the cell.
    nms_kind, beta_nms: suppression; the last head of the network decides.
  """

  anchors: Anchors = ()
  mask: tuple[int, ...] | None = None
  scale_x_y: float = 1.0
  nms_kind: str = "default"
  beta_nms: float = 0.6

  def __post_init__(self) -> None:
    anchors = tuple(map(tuple, self.anchors))
    mask = None if self.mask is None or tuple(self.mask) == tuple(range(len(anchors))) else tuple(self.mask)
    self._set(anchors=anchors, mask=mask)

  @property
  def anchor_indices(self) -> tuple[int, ...]:
    return tuple(range(len(self.anchors))) if self.mask is None else self.mask

  @property
  def layout(self) -> Layout:
    return Layout(box=slice(0, 4), objectness=4, first_class=5)

  @property
  def nms(self) -> Nms:
    return Nms(self.nms_kind, self.beta_nms)

  @property
  def has_new_coords(self) -> bool:
    """True for the boxes of Scaled-YOLOv4: the input of the head is probabilities, and sizes are squares."""
    return False

  @property
  def point_shift(self) -> float:
    """From the centre of a box to the point that the head predicts, in sizes of the box."""
    return 0.0

  def anchors_rel(self, net_size: tuple[int, int]) -> np.ndarray:
    """(all anchors, 2) float32 width and height relative to the network input."""
    return np.asarray(self.anchors, np.float32) / np.asarray(net_size, np.float32)

  def own_anchors_px(self, grid: tuple[int, int], net_size: tuple[int, int]) -> np.ndarray:
    return np.asarray(self.anchors, np.float64)[list(self.anchor_indices)]

  def decode(self, x: Array, cells: Cells) -> Array:
    values = x[..., self.layout.box]
    size = 4 * values[..., 2:] ** 2 if self.has_new_coords else jnp.exp(values[..., 2:])
    return jnp.concatenate(
      [(cells.xy + values[..., :2]) / cells.pairs(cells.grid), size * self._own_anchors(cells)], -1
    )

  def onnx_decode(self, x: str, cells: Cells, o: OnnxBuilder) -> str:
    box = self.layout.box
    values = o.slice(x, box.start, box.stop, axis=2, step=box.step or 1)
    xy, size = o.slice(values, 0, 2, axis=2), o.slice(values, 2, 4, axis=2)
    size = o.op("Mul", [o.op("Mul", [size, size]), o.const(4)]) if self.has_new_coords else o.op("Exp", [size])
    xy = o.op("Div", [o.op("Add", [xy, o.const(cells.xy)]), o.const(cells.grid)])
    anchors = self.anchors_rel(cells.net_size)[list(self.anchor_indices)]
    repeats = cells.xy.shape[1] // len(anchors)
    size = o.op("Mul", [size, o.const(np.tile(anchors, (repeats, 1))[None])])
    if self.point_shift:
      xy = o.op("Sub", [xy, o.op("Mul", [size, o.const(self.point_shift)])])
    return o.op("Concat", [xy, size], axis=2)

  def encode(self, boxes: Array, cells: Cells) -> Array:
    xy = boxes[..., :2] * cells.pairs(cells.grid) - cells.xy
    ratio = boxes[..., 2:] / self._own_anchors(cells)
    size = jnp.sqrt(ratio / 4) if self.has_new_coords else jnp.log(ratio)
    return jnp.concatenate([jnp.broadcast_to(xy, size.shape), size], -1)

  def _own_anchors(self, cells: Cells) -> np.ndarray:
    """(1, ..., a, 2) the anchors of the mask, relative to the network input."""
    return cells.pairs(*self.anchors_rel(cells.net_size)[list(self.anchor_indices)])

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    check_anchors(self.anchors)
    if self.nms_kind not in NMS_KINDS:
      raise ValueError(f"nms_kind={self.nms_kind}; expected one of {', '.join(NMS_KINDS)}.")
    if bad := [i for i in self.anchor_indices if not 0 <= i < len(self.anchors)]:
      raise ValueError(
        f"mask has {bad}, but there are only {len(self.anchors)} anchors (0 to {len(self.anchors) - 1})."
      )
    expected = len(self.anchor_indices) * self.entries
    if x.channels != expected:
      raise ValueError(
        f"the input has {x.channels} channels; {len(self.anchor_indices)} anchors with {self.entries} values "
        f"each ({self.classes} classes) need {expected}. Set filters={expected} in the convolution before it."
      )
    return x

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  @classmethod
  def _head_fields(cls, section: Section) -> dict[str, object]:
    mask = section.integers("mask")
    anchors = read_anchors(section, mask)
    return {
      "classes": section.at_least("classes", 0, 20),
      "anchors": anchors,
      "mask": mask or None,
      "scale_x_y": section.number("scale_x_y", 1.0),
      **read_nms(section),
    }

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(wires, (), **cls._head_fields(section))

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys: dict[str, Value] = {"classes": self.classes} | write_anchors(self.anchors)
    keys["mask"] = self.anchor_indices  # other readers have no default for it
    return keys | non_default_fields(self, skip=("classes", "anchors", "mask"))

  def per_anchor(self, x: Array) -> Array:
    """(n, h, w, anchors * entries) -> float32 (n, h, w, anchors, entries)."""
    return x.astype(jnp.float32).reshape(*x.shape[:-1], -1, self.entries)

  def onnx_entries(self, x: str, o: OnnxBuilder, raw: Sequence[int], xy: Sequence[int]) -> str:
    """As `activate_entries`, with one factor for each channel: no reshape, so that any size and batch will do."""
    anchors = o.shape[0] // self.entries

    def by_channel(by_entry: np.ndarray) -> str:
      return o.const(np.tile(by_entry, anchors).reshape(1, -1, 1, 1))

    if len(raw) < self.entries:
      keep = np.isin(np.arange(self.entries), raw).astype(np.float32)
      # logits and sigmoids are blended by 0/1 factors: no gathers, and no branch
      kept = o.op("Mul", [x, by_channel(keep)])
      x = o.op("Add", [kept, o.op("Mul", [o.op("Sigmoid", [x]), by_channel(1 - keep)])])
    if self.scale_x_y != 1:
      scale, shift = np.ones(self.entries, np.float32), np.zeros(self.entries, np.float32)
      scale[list(xy)], shift[list(xy)] = self.scale_x_y, -0.5 * (self.scale_x_y - 1)
      x = o.op("Add", [o.op("Mul", [x, by_channel(scale)]), by_channel(shift)])
    return x


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Yolo(AnchorHead):
  """YOLOv3 to v4 head; fields as `AnchorHead`, and:

  Attributes:
    new_coords: boxes as in Scaled-YOLOv4: w, h = (2v)^2 * anchor, and no sigmoid here.
  """

  kind = "yolo"
  sections = ("yolo",)

  new_coords: bool = False

  @property
  def has_new_coords(self) -> bool:
    return self.new_coords

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    new_coords = bool(section.integer("new_coords"))
    return cls.wired(wires, (), **cls._head_fields(section), new_coords=new_coords)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    x = self.per_anchor(xs[0])
    raw = range(self.entries) if self.new_coords else (2, 3)
    return activate_entries(x, raw, (0, 1), self.scale_x_y).reshape(xs[0].shape)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    raw = range(self.entries) if self.new_coords else (2, 3)
    return self.onnx_entries(xs[0], o, raw, (0, 1))
