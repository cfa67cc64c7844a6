"""[reorg], YOLOv2's passthrough, and [reorg3d], true space-to-depth (docs/darknet.md a12).

They are different layers. The old reorg announces (C s s, H/s, W/s), but fills it as if the input had been
(C/(s s), H s, W s): Darknet's historical index mix-up, on which published weights depend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.channels import How, Reads, Span, fold, keep, merged, pick
from prn_jax.graph.graph import Context, Layer, Shape, Window, register_kind
from prn_jax.graph.section import Section, Value, Wires

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


def _check_stride(stride: int, x: Shape) -> None:
  if stride < 1:
    raise ValueError(f"stride={stride}; expected at least 1.")
  if x.height % stride or x.width % stride:
    raise ValueError(f"stride={stride} must divide the sides of the map {x}.")


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Reorg(Layer):
  """YOLOv2's passthrough layer.

  Attributes:
    stride: factor s.
    reverse: depth-to-space instead.
  """

  kind = "reorg"
  sections = ("reorg",)

  stride: int = 1
  reverse: bool = False

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    s = self.stride
    if not self.reverse:
      _check_stride(s, x)
    if s < 1 or x.channels % (s * s):
      raise ValueError(f"stride={s} needs a multiple of {s * s} channels, not {x.channels}.")
    if self.reverse:
      return Shape(x.height * s, x.width * s, x.channels // (s * s))
    return Shape(x.height // s, x.width // s, x.channels * s * s)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    (h, w, c), s = inputs[0], self.stride
    q = c // (s * s)
    if s == 1:
      return (keep(c),)
    if self.reverse:
      return (fold(c, q),)
    origin = np.repeat(np.arange(c), h * w).reshape(q, h, s, w, s)  # the input channel of every cell, as `lower` has it
    rows = origin.transpose(2, 4, 0, 1, 3).reshape(output.channels, -1)
    read = (merged((i, i + 1) for i in set(row.tolist())) for row in rows)
    return (Reads(tuple(Span(*span, o, o + 1, How.MIX) for o, spans in enumerate(read) for span in spans)),)

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window | None:
    s = self.stride
    return Window(stride=(1 / s, 1 / s)) if self.reverse else Window((s, s), (s, s))

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"stride": self.stride} | super().to_cfg(wires)  # other readers have other defaults

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    n, h, w, c = xs[0].shape
    s = self.stride
    x = xs[0].transpose(0, 3, 1, 2)  # the flat index runs over CHW
    q = c // (s * s)
    if self.reverse:
      x = x.reshape(n, s, s, q, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, q, h * s, w * s)
    else:
      x = x.reshape(n, q, h, s, w, s).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * s * s, h // s, w // s)
    return x.transpose(0, 2, 3, 1)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    c, s = o.shape[0], self.stride
    q = c // (s * s)
    h, w = o.extents(xs[0])
    if self.reverse:
      x = o.op("Transpose", [o.reshape(xs[0], s, s, q, h, w)], perm=[0, 3, 4, 1, 5, 2])
      return o.reshape(x, q, o.times(h, s), o.times(w, s))
    # the flat map is cut anew into q maps of (h * s) x (w * s), and these into blocks of s x s
    x = o.op("Transpose", [o.reshape(xs[0], q, h, s, w, s)], perm=[0, 3, 5, 1, 2, 4])
    return o.reshape(x, c * s * s, *(o.over(extent, s) for extent in (h, w)))


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Reorg3d(Layer):
  """Space-to-depth: out[y, x, o*C + c] = in[y*s + o//s, x*s + o%s, c].

  Attributes:
    stride: factor s.
  """

  kind = "reorg3d"
  sections = ("reorg3d",)

  stride: int = 1

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    s = self.stride
    _check_stride(s, x)
    return Shape(x.height // s, x.width // s, x.channels * s * s)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (pick([*range(inputs[0].channels)] * self.stride**2),)

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window:
    return Window((self.stride, self.stride), (self.stride, self.stride))

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    if section.integer("reverse"):
      raise OutOfScopeError(
        f"{section.where('reverse')} has reverse=1, which is broken in Darknet (it divides by zero). Use [reorg]."
      )
    return super().from_cfg(section, wires)

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"stride": self.stride} | super().to_cfg(wires)  # other readers have other defaults

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    n, h, w, c = xs[0].shape
    s = self.stride
    x = xs[0].reshape(n, h // s, s, w // s, s, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // s, w // s, s * s * c)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return o.op("SpaceToDepth", [xs[0]], blocksize=self.stride)
