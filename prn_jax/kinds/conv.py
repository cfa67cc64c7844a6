"""[convolutional]: cross-correlation, batch normalisation or bias, activation, optional blur (docs/darknet.md a3).

Quirks that we do not copy: Darknet ignores the padding of a 1x1 stride-1 convolution while announcing a
larger output; with dilation it announces an output that fits only padding (size-1)/2, so we ask for that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.channels import Reads, keep, weigh
from prn_jax.graph.graph import (
  Context,
  Layer,
  Shape,
  WeightArray,
  Window,
  non_default_fields,
  register_kind,
)
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.kinds.activation import (
  LEAKY_SLOPE,
  activate,
  activated,
  check_activation,
  onnx_activate,
  read_activation,
  write_activation,
)
from prn_jax.kinds.batchnorm import batch_norm, batch_norm_arrays, check_epsilon, darknets_if_equal
from prn_jax.kinds.blur import BLURS, blur, blur_shape, check_blur, onnx_blur
from prn_jax.lazy import jax, jnp, lax, nn

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

DEFAULT_ACTIVATION = "logistic"  # of the cfg key, in Darknet
# Darknet computes something else when one of these is set; nothing in the public zoo sets them.
REFUSED = (
  "binary", "xnor", "bin_output", "sway", "rotate", "stretch", "stretch_sway", "coordconv", "dot",
  "assisted_excitation", "reverse", "cbn",
)  # fmt: skip


def darknet_uniform(key: Array, shape: Sequence[int], dtype: Any = None) -> Array:
  """Darknet's initial kernels: U(-1, 1) * sqrt(2 / fan_in), fan_in = inputs of one output."""
  fan_in = math.prod(shape[:-1])
  return jax.random.uniform(key, shape, dtype or jnp.float32, -1.0, 1.0) * (2.0 / fan_in) ** 0.5


def kernel_initializer(ctx: Context) -> Callable[..., Array]:
  """`darknet_uniform` while variables are made. Flax traces the initialiser at every other use as well, to check a shape:
  zeros are traced sooner than random numbers.
  """
  return darknet_uniform if ctx.module.is_initializing() else nn.initializers.zeros


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv(Layer):
  """Convolution, then batch norm or bias, then activation.

  Attributes:
    filters: output channels.
    size: height and width of the kernel.
    stride: stride in both directions.
    padding: zeros on every side (times `dilation`).
    groups: channel groups; `groups == filters` is a depthwise convolution.
    batch_normalize: batch norm instead of a bias.
    activation: one of `kinds.activation.NAMES`.
    leaky_slope: slope of "leaky" below zero.
    dilation: distance between kernel taps.
    stride_x, stride_y: horizontal and vertical stride if they differ from `stride` (0: they do not).
    antialiasing: 1 or 2 blurs instead of striding (`kinds.blur`).
    share: name of the conv whose variables this one uses.
    flipped: the weights file holds the transposed kernel.
    same: zeros so that the output has ceil(side / stride) rows and columns, the odd one right and below (TensorFlow's
      "same"), instead of `padding`. Not Darknet's.
    bn_epsilon: what batch norm adds to the variance; 0: Darknet's 0.00001.
  """

  kind = "conv"
  sections: ClassVar[tuple[str, ...]] = ("convolutional", "conv")
  kernel = "conv"
  width_field = "filters"

  filters: int = 1
  size: int = 1
  stride: int = 1
  padding: int = 0
  groups: int = 1
  batch_normalize: bool = False
  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE
  dilation: int = 1
  stride_x: int = 0
  stride_y: int = 0
  antialiasing: int = 0
  share: str = ""
  flipped: bool = False
  same: bool = False
  bn_epsilon: float = 0.0

  def __post_init__(self) -> None:
    self._set(
      bn_epsilon=darknets_if_equal(self.bn_epsilon),
      stride_x=0 if self.stride_x == self.stride else self.stride_x,
      stride_y=0 if self.stride_y == self.stride else self.stride_y,
      dilation=1 if self.size == 1 else self.dilation,  # a single tap has no distance
    )

  @property
  def strides(self) -> tuple[int, int]:
    """(vertical, horizontal)."""
    return self.stride_y or self.stride, self.stride_x or self.stride

  @property
  def shared_with(self) -> str | None:
    return self.share or None

  @property
  def has_batchnorm(self) -> bool:
    return self.batch_normalize

  def detail(self, places: Sequence[str]) -> str:
    vertical, horizontal = self.strides
    stride = vertical if vertical == horizontal else f"{horizontal}x{vertical}"
    groups = f" /{self.groups}" if self.groups > 1 else ""
    return f"{self.filters} {self.size}x{self.size}/{stride}{groups} {self.activation}"

  # -- shape and cost ------------------------------------------------------------------------------
  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    self._check(x)
    shape = self._conv_shape(x)
    return blur_shape(shape, self.antialiasing, self.strides) if self.antialiasing else shape

  def _check(self, x: Shape) -> None:
    check_activation(self.activation)
    check_blur(self.antialiasing)
    check_epsilon(self.bn_epsilon)
    if self.same and (self.padding or self.antialiasing or self.dilation > 1):
      raise ValueError(
        f"same=1 with padding={self.padding}, dilation={self.dilation}, antialiasing={self.antialiasing}; it decides the "
        "padding by itself. Leave the others out."
      )
    if min(self.filters, self.size, self.groups, self.dilation, *self.strides) < 1 or self.padding < 0:
      vertical, horizontal = self.strides
      raise ValueError(
        f"filters={self.filters}, size={self.size}, stride={horizontal}x{vertical}, groups={self.groups}, "
        f"dilation={self.dilation}, padding={self.padding}; expected at least 1 each, and padding at least 0."
      )
    if x.channels % self.groups or self.filters % self.groups:
      raise ValueError(
        f"groups={self.groups} must divide the {x.channels} input channels and the {self.filters} filters."
      )
    if self.dilation > 1 and 2 * self.padding != self.size - 1:
      raise ValueError(
        f"dilation={self.dilation} needs an odd size with pad=1, not size={self.size} with padding={self.padding}: "
        "Darknet's output size is wrong otherwise."
      )

  def _conv_shape(self, x: Shape) -> Shape:
    strides = (1, 1) if self.antialiasing else self.strides
    padding = 2 * self.padding
    height, width = (
      -(-extent // stride) if self.same else (extent + padding - self.size) // stride + 1
      for extent, stride in zip(x[:2], strides, strict=True)
    )
    return Shape(height, width, self.filters)

  def zeros_around(self, height: int, width: int) -> list[tuple[int, int]]:
    """Rows of zeros above and below a map of this size, and columns left and right of it."""
    if not self.same:
      return [(self.padding * self.dilation,) * 2] * 2
    whole = [
      max((-(-extent // stride) - 1) * stride + self.size - extent, 0)
      for extent, stride in zip((height, width), self.strides, strict=True)
    ]
    return [(zeros // 2, zeros - zeros // 2) for zeros in whole]

  def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
    (x,) = inputs
    return x.channels // self.groups * self.size**2 * self._conv_shape(x).size

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * self.macs(inputs, output)

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window:
    extent = (self.size - 1) * self.dilation + 1
    if self.antialiasing:
      extent += len(BLURS[self.antialiasing][0]) - 1
    return Window((extent, extent), self.strides)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    channels = inputs[0].channels
    reads = keep(channels) if self.is_depthwise(channels) else weigh(channels, self.filters, self.groups)
    return activated(self.activation, output, reads)

  def follow(self, before: Sequence[Shape], after: Sequence[Shape]) -> Layer:
    channels = after[0].channels
    if self.is_depthwise(before[0].channels):
      return dataclasses.replace(self, filters=channels, groups=channels)
    return self

  def narrowed(self, before: Sequence[Shape], inputs: Sequence[Sequence[int]], kept: Sequence[int]) -> Layer:
    per_group = before[0].channels // self.groups  # whole groups go
    return dataclasses.replace(
      self, filters=len(kept), groups=len(inputs[0]) // per_group if self.groups > 1 else self.groups
    )

  def is_depthwise(self, channels: int) -> bool:
    """True if each of the `channels` input channels has a kernel of its own."""
    return 1 < self.groups == self.filters == channels

  # -- weights -------------------------------------------------------------------------------------
  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    per_group, k, n = inputs[0].channels // self.groups, self.size, self.filters
    if self.flipped:
      kernel = WeightArray("conv/kernel", "params", (per_group, k, k, n), (1, 2, 0, 3), reads=2, makes=3)
    else:
      kernel = WeightArray("conv/kernel", "params", (n, per_group, k, k), (2, 3, 1, 0), reads=2, makes=3)
    if not self.batch_normalize:
      return WeightArray("conv/bias", "params", (n,), makes=0), kernel
    return *batch_norm_arrays(n).values(), kernel

  # -- cfg -----------------------------------------------------------------------------------------
  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    for key in REFUSED:
      if section.integer(key):
        raise OutOfScopeError(f"{section.where(key)} has {key}={section.text(key)}, which is out of scope.")
    if section.integer("batch_normalize") > 1:
      raise OutOfScopeError(
        f"{section.where('batch_normalize')} has batch_normalize={section.text('batch_normalize')}: cross-iteration "
        "batch norm is out of scope."
      )
    size = section.at_least("size", 1, 1)
    padding = section.integer("padding")
    share = wires.source(section.integer("share_index"), "share_index") if section.has("share_index") else ""
    stride_x, stride_y = (max(section.integer(k), 0) for k in ("stride_x", "stride_y"))
    return cls.wired(
      wires,
      (),
      filters=section.at_least("filters", 1, 1),
      size=size,
      stride=section.at_least("stride", 1, 1),
      padding=size // 2 if section.integer("pad") else padding,
      groups=section.at_least("groups", 1, 1),
      batch_normalize=bool(section.integer("batch_normalize")),
      activation=read_activation(section, DEFAULT_ACTIVATION),
      leaky_slope=section.number("leaky_slope", LEAKY_SLOPE),
      dilation=section.integer("dilation", 1),
      stride_x=stride_x,
      stride_y=stride_y,
      antialiasing=section.integer("antialiasing"),
      share=share,
      flipped=bool(section.integer("flipped")),
      same=bool(section.integer("same")),
      bn_epsilon=section.number("bn_epsilon"),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys = non_default_fields(self, skip=("padding", "share", "activation", "leaky_slope"))
    keys |= {"filters": self.filters, "size": self.size, "stride": self.stride}
    if self.padding == self.size // 2 and not self.same:
      keys["pad"] = 1
    elif self.padding:
      keys["padding"] = self.padding
    if self.share:
      keys["share_index"] = wires.reference(self.share)
    return keys | write_activation(self.activation, self.leaky_slope, DEFAULT_ACTIVATION)

  # -- Flax ----------------------------------------------------------------------------------------
  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    x = nn.Conv(
      self.filters,
      (self.size, self.size),
      strides=(1, 1) if self.antialiasing else self.strides,
      padding=self.zeros_around(*xs[0].shape[1:3]),
      kernel_dilation=self.dilation,
      feature_group_count=self.groups,
      use_bias=not self.batch_normalize,
      dtype=ctx.dtype or jnp.float32,
      precision=ctx.precision,
      kernel_init=kernel_initializer(ctx),
      conv_general_dilated=self.product(xs[0], ctx),
      name="conv",
    )(xs[0])
    x = self.normalize(x, ctx)
    x = activate(x, self.activation, self.leaky_slope)
    return blur(x, self.antialiasing, self.strides) if self.antialiasing else x

  def normalize(self, x: Array, ctx: Context) -> Array:
    """Batch norm behind the products, if the layer has one."""
    return batch_norm(x, ctx, self.bn_epsilon) if self.batch_normalize else x

  def product(self, x: Array, ctx: Context) -> Callable[..., Array]:
    """What computes the products of the map `x` with the kernel, of the form of `lax.conv_general_dilated`."""
    from prn_jax.ops.depthwise import depthwise_by_taps, depthwise_for_training

    if not self._sums_taps(x):
      return lax.conv_general_dilated
    return depthwise_for_training if ctx.train else depthwise_by_taps

  def _sums_taps(self, x: Array) -> bool:
    """True for a depthwise convolution on CPU, where a sum of taps wins; other backends have kernels of their own."""
    return self.is_depthwise(x.shape[-1]) and self.dilation == 1 and jax.default_backend() == "cpu"

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    x = o.op(
      "Conv",
      [xs[0], *self.onnx_arrays(xs[0], o)],
      kernel_shape=[self.size] * 2,  # OpenCV demands it though the kernel says it
      strides=[1, 1] if self.antialiasing else list(self.strides),
      **self._onnx_padding(o),
      dilations=[self.dilation] * 2,
      group=self.groups,
    )
    x = onnx_activate(o, x, self.activation, self.leaky_slope)
    return onnx_blur(o, x, self.antialiasing, self.strides, self.filters) if self.antialiasing else x

  def onnx_arrays(self, x: str, o: OnnxBuilder) -> list[str]:
    """Kernel and bias, for a convolution of the tensor `x`."""
    return [o.const(o.variable(f"conv/{leaf}")) for leaf in ("kernel", "bias")]

  def _onnx_padding(self, o: OnnxBuilder) -> dict[str, Any]:
    if self.same and o.any_size:
      return {"auto_pad": "SAME_UPPER"}
    (top, bottom), (left, right) = self.zeros_around(*o.shape[1:])
    return {"pads": [top, left, bottom, right]}
