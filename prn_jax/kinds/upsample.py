"""[upsample]: nearest neighbour, or sums over blocks for a negative stride (docs/darknet.md a10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, Window, register_kind
from prn_jax.graph.section import Value, Wires
from prn_jax.lazy import jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Upsample(Layer):
  """Repeats each cell `stride` x `stride` times; stride -k sums each k x k block (not the mean).

  Attributes:
    stride: factor; negative shrinks.
    scale: factor on the values.
  """

  kind = "upsample"
  sections = ("upsample",)

  stride: int = 2
  scale: float = 1.0

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    h, w, c = inputs[0]
    k = abs(self.stride)
    if k < 1:
      raise ValueError("stride=0; expected a positive factor, or a negative one to shrink.")
    if self.stride < 0 and (h % k or w % k):
      raise ValueError(f"stride={self.stride} needs a map whose sides are multiples of {k}, not {inputs[0]}.")
    return Shape(h * k, w * k, c) if self.stride > 0 else Shape(h // k, w // k, c)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window:
    k = abs(self.stride)
    return Window(stride=(1 / k, 1 / k)) if self.stride > 0 else Window((k, k), (k, k))

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"stride": self.stride} | super().to_cfg(wires)  # other readers have other defaults

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    n, h, w, c = xs[0].shape
    k = abs(self.stride)
    if self.stride < 0:
      x = xs[0].reshape(n, h // k, k, w // k, k, c).sum((2, 4))
    else:
      x = jnp.broadcast_to(xs[0][:, :, None, :, None], (n, h, k, w, k, c)).reshape(n, h * k, w * k, c)
    return x if self.scale == 1 else x * self.scale

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    k = abs(self.stride)
    if self.stride > 0:
      x = o.op(
        "Resize",
        [xs[0], "", o.const([1, 1, k, k])],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
      )
    else:  # a sum is k * k means
      mean = o.op("AveragePool", [xs[0]], kernel_shape=[k, k], strides=[k, k])
      x = o.op("Mul", [mean, o.const(k * k)])
    return x if self.scale == 1 else o.op("Mul", [x, o.const(self.scale)])
