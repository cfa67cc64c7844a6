"""[maxpool]: over windows, or over channels (docs/darknet.md a5).

Total padding is size-1 by default, of which padding//2 lies left and above: size 2 stride 1 pads right and
below only, so the map keeps its size. Quirk not copied: the AVX build is wrong near the left border.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.channels import Reads, fold, keep
from prn_jax.graph.graph import Context, Layer, Shape, Window, non_default_fields, register_kind
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.kinds.blur import BLURS, blur, blur_shape, check_blur, onnx_blur
from prn_jax.lazy import jax, jnp, lax

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool(Layer):
  """Geometry that maxpool and local_avgpool share.

  Attributes:
    size: height and width of the window.
    stride: stride in both directions.
    padding: cells added to each axis in total; None means size-1.
    stride_x, stride_y: horizontal and vertical stride if they differ from `stride` (0: they do not).
    antialiasing: 1 or 2 blurs instead of striding (`kinds.blur`).
  """

  size: int = 1
  stride: int = 1
  padding: int | None = None
  stride_x: int = 0
  stride_y: int = 0
  antialiasing: int = 0

  def __post_init__(self) -> None:
    self._set(
      padding=None if self.padding == self.size - 1 else self.padding,
      stride_x=0 if self.stride_x == self.stride else self.stride_x,
      stride_y=0 if self.stride_y == self.stride else self.stride_y,
    )

  @property
  def strides(self) -> tuple[int, int]:
    """(vertical, horizontal)."""
    return self.stride_y or self.stride, self.stride_x or self.stride

  @property
  def total_padding(self) -> int:
    return self.size - 1 if self.padding is None else self.padding

  @property
  def steps(self) -> tuple[int, int]:
    """Strides of the pooling itself: 1 where a blur does the striding."""
    return (1, 1) if self.antialiasing else self.strides

  def _pooled_shape(self, x: Shape) -> Shape:
    height, width = (
      (extent + self.total_padding - self.size) // stride + 1 for extent, stride in zip(x[:2], self.steps, strict=True)
    )
    return Shape(height, width, x.channels)

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    check_blur(self.antialiasing)
    if min(self.size, *self.strides) < 1 or self.total_padding < 0:
      vertical, horizontal = self.strides
      raise ValueError(
        f"size={self.size}, stride={horizontal}x{vertical}, padding={self.total_padding}; expected at least 1 each, "
        "and padding at least 0."
      )
    shape = self._pooled_shape(x)
    self._check_windows(x, shape)
    return blur_shape(shape, self.antialiasing, self.strides) if self.antialiasing else shape

  def _check_windows(self, x: Shape, pooled: Shape) -> None:
    """Every window must see a cell of the map: Darknet gives -FLT_MAX (or 0/0) for one that does not."""
    before = self.total_padding // 2
    last = [(count - 1) * stride - before for count, stride in zip(pooled[:2], self.steps, strict=True)]
    if before >= self.size or last[0] >= x.height or last[1] >= x.width:
      raise ValueError(
        f"padding={self.total_padding} is too large for size={self.size}: a window would lie outside the map {x}."
      )

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    return self.size**2 * self._pooled_shape(inputs[0]).size

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window:
    extent = self.size + (len(BLURS[self.antialiasing][0]) - 1 if self.antialiasing else 0)
    return Window((extent, extent), self.strides)

  def pads(self, x: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """Cells to add (before, after) on the vertical and the horizontal axis."""
    before = self.total_padding // 2
    pooled = self._pooled_shape(x)
    vertical, horizontal = (
      (before, max(0, (count - 1) * stride + self.size - extent - before))
      for extent, count, stride in zip(x[:2], pooled[:2], self.steps, strict=True)
    )
    return vertical, horizontal

  def reduce_window(self, x: Array, init: float, combine: object) -> Array:
    """`lax.reduce_window` over the spatial axes of `x` (n, h, w, c) with this geometry."""
    pads = self.pads(Shape(*x.shape[1:]))
    return lax.reduce_window(
      x,
      init,
      combine,  # type: ignore[arg-type]
      (1, self.size, self.size, 1),
      (1, *self.steps, 1),
      ((0, 0), *pads, (0, 0)),
    )

  def onnx_pool(self, x: str, o: OnnxBuilder, kind: str, **attributes: int) -> str:
    """Adds ONNX's pooling `kind` with this geometry, and the blur."""
    channels, height, width = o.shape
    if o.any_size:  # padding that no window reaches does no harm, but must be smaller than the window
      before, after = self.total_padding // 2, self.total_padding - self.total_padding // 2
      if after >= self.size:
        raise OutOfScopeError(
          f"layer '{self.name}' ({self.kind}): padding={self.total_padding} with size={self.size} depends on the size "
          "of the map; write ONNX for one image size."
        )
      (top, bottom), (left, right) = ((before, after),) * 2
    else:
      (top, bottom), (left, right) = self.pads(Shape(height, width, channels))
    pooled = o.op(
      kind,
      [x],
      kernel_shape=[self.size] * 2,
      strides=list(self.steps),
      pads=[top, left, bottom, right],
      **attributes,
    )
    return onnx_blur(o, pooled, self.antialiasing, self.strides, channels) if self.antialiasing else pooled

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def detail(self, places: Sequence[str]) -> str:
    return f"{self.size}x{self.size}/{self.stride}"

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    return cls.wired(wires, (), **cls._geometry(section))

  @staticmethod
  def _geometry(section: Section) -> dict[str, int | None]:
    stride = section.at_least("stride", 1, 1)
    size = section.at_least("size", 1, stride)
    return {
      "size": size,
      "stride": stride,
      "padding": section.integer("padding", size - 1),
      "stride_x": section.at_least("stride_x", 1, stride),
      "stride_y": section.at_least("stride_y", 1, stride),
      "antialiasing": section.integer("antialiasing"),
    }

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"size": self.size, "stride": self.stride} | non_default_fields(self, skip=("size", "stride"))


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxPool(Pool):
  """Maximum over windows; with `depth_out > 0` over every depth_out-th channel instead.

  Attributes:
    depth_out: output channels of Darknet's maxpool_depth; output g is the maximum of the input channels
      g, g + depth_out, g + 2 depth_out, ... The map keeps its size and `size`, `stride` only count as cost.
  """

  kind = "maxpool"
  sections = ("maxpool", "max")

  depth_out: int = 0

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if not self.depth_out:
      return super().shape(inputs)
    if not 0 < self.depth_out <= inputs[0].channels:
      raise ValueError(
        f"depth_out={self.depth_out} (cfg key out_channels); expected 1 to {inputs[0].channels}, the input channels."
      )
    return inputs[0]._replace(channels=self.depth_out)

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    if not self.depth_out:
      return super().flops(inputs, output)
    return self.size**2 * inputs[0].size

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    if not self.depth_out:
      return super().reads(inputs, output)
    return (fold(inputs[0].channels, self.depth_out),)

  def narrowed(self, before: Sequence[Shape], inputs: Sequence[Sequence[int]], kept: Sequence[int]) -> Layer:
    return dataclasses.replace(self, depth_out=self.depth_out and len(kept))

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window:
    return Window() if self.depth_out else super().window(inputs, output)

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    depth = section.integer("maxpool_depth")
    channels = section.at_least("out_channels", 1, 1)
    return cls.wired(wires, (), **cls._geometry(section), depth_out=channels if depth else 0)

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys = super().to_cfg(wires)
    if keys.pop("depth_out", 0):
      keys |= {"maxpool_depth": 1, "out_channels": self.depth_out}
    return keys

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    (x,) = xs
    if self.depth_out:
      return self._over_channels(x)
    if self._tiles(Shape(*x.shape[1:])) and jax.default_backend() == "cpu":
      x = self._over_tiles(x)
    else:
      x = self.reduce_window(x, -jnp.inf, lax.max)
    return blur(x, self.antialiasing, self.strides) if self.antialiasing else x

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    if not self.depth_out:
      return self.onnx_pool(xs[0], o, "MaxPool")
    channels, _, _ = o.shape
    starts = range(0, channels - self.depth_out + 1, self.depth_out)
    y = functools.reduce(lambda a, b: o.op("Max", [a, b]), (o.slice(xs[0], i, i + self.depth_out, 1) for i in starts))
    if not (rest := channels % self.depth_out):
      return y
    first = o.op("Max", [o.slice(y, 0, rest, axis=1), o.slice(xs[0], channels - rest, channels, axis=1)])
    return o.op("Concat", [first, o.slice(y, rest, self.depth_out, axis=1)], axis=1)

  def _tiles(self, x: Shape) -> bool:
    """True if the windows tile the map without overlap, padding or rest."""
    fits = all(extent % self.size == 0 for extent in x[:2])
    return fits and self.steps == (self.size, self.size) and self.pads(x) == ((0, 0), (0, 0))

  def _over_tiles(self, x: Array) -> Array:
    """Maximum as a tree of elementwise maxima: 1.4x faster than reduce_window on CPU (docs/speed.md),
    1.5x more memory traffic on TPU. Tied maxima share the gradient instead of the first taking it."""
    n, h, w, c = x.shape
    k = self.size
    x = x.reshape(n, h // k, k, w // k, k, c)
    taps = [x[:, :, i, :, j] for i in range(k) for j in range(k)]
    return maximum_of(taps)

  def _over_channels(self, x: Array) -> Array:
    pad = -x.shape[-1] % self.depth_out
    x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), ((0, 0, 0),) * 3 + ((0, pad, 0),))
    parts = jnp.split(x, x.shape[-1] // self.depth_out, axis=-1)
    return maximum_of(parts)


def maximum_of(parts: list[Array]) -> Array:
  """Elementwise maximum, as a tree of pairs."""
  while len(parts) > 1:
    pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
    parts = [jnp.maximum(*pair) if len(pair) > 1 else pair[0] for pair in pairs]
  return parts[0]
