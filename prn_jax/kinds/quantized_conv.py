"""[quantized_convolutional]: a convolution whose kernel lies on a grid (docs/compression.md). Not one of Darknet's sections.

The kernel stays float32 in memory and in files, so that a training moves it in small steps; where it is used, it is rounded.
Written as ONNX it is integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.graph.graph import Context, Layer, Shape, WeightArray, register_kind
from prn_jax.graph.section import Section, Wires
from prn_jax.kinds.batchnorm import EPSILON
from prn_jax.kinds.conv import Conv
from prn_jax.lazy import jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder
  from prn_jax.ops.quantizers import QSpec

METHODS = ("max", "stored", "lsq", "tqt", "dorefa", "bwn", "bnn", "ternary")
LEARNED = ("lsq", "tqt")
MOST_INT32 = 2**31 - 1


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedConv(Conv):
  """As `Conv`, with the kernel on a grid.

  Attributes:
    bits, per_channel, weights_pow2: the grid of the kernel, symmetric and without its lowest integer; see
      `ops.quantizers.QSpec`.
    method: where the scales come from: "max" (the largest weight of the filter, or of the kernel, at any time), "stored"
      (chosen once, and saved), "lsq" and "tqt" (learned); or one of the grids without a scale "dorefa", "bwn", "bnn" and
      "ternary".
    folds: batch norm is folded into the kernel before that is rounded, in training as well (`ops.folded_norm`), with method
      "max". Else the kernel is rounded in front of batch norm.
    bn_freeze_after: with `folds`, training steps after which the statistics of batch norm stay; 0: never.
  """

  kind = "quantized_conv"
  sections = ("quantized_convolutional",)

  bits: int = 8
  per_channel: bool = True
  weights_pow2: str = "none"
  method: str = "max"
  folds: bool = False
  bn_freeze_after: int = 0

  def spec(self) -> QSpec:
    from prn_jax.ops.quantizers import QSpec

    return QSpec(bits=self.bits, per_channel=self.per_channel, pow2=self.weights_pow2, narrow=True)

  def detail(self, places: Sequence[str]) -> str:
    return f"{super().detail(places)}, {self.bits} bits {self.method}"

  def _check(self, x: Shape) -> None:
    super()._check(x)
    if self.method not in METHODS:
      raise ValueError(f"method={self.method}; expected one of {', '.join(METHODS)}.")
    if (self.folds and self.method != "max") or self.bn_freeze_after < 0:
      raise ValueError(
        f"folds={self.folds:d} with method={self.method}, bn_freeze_after={self.bn_freeze_after}; expected method=max with "
        "folds=1, and at least 0."
      )
    if self.method in METHODS[:4]:
      self.spec()
    elif self.method == "dorefa" and self.bits not in (2, 4):
      raise ValueError(
        f"method=dorefa with bits={self.bits}; expected 2 or 4: its 256 values of 8 bits have no int8 form."
      )

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    arrays = super().arrays(inputs)
    if self._folds_now:
      return *arrays, WeightArray("bn/steps", "batch_stats", (1,), counts=True)
    if self.method not in ("stored", *LEARNED):
      return arrays
    collection = "params" if self.method in LEARNED else "batch_stats"
    makes = 0 if self.per_channel else None
    return *arrays, WeightArray("kernel_scale", collection, (self._num_scales,), makes=makes)

  @property
  def _folds_now(self) -> bool:
    return self.folds and self.batch_normalize

  @property
  def _num_scales(self) -> int:
    return self.filters if self.per_channel else 1

  def initial(self, array: WeightArray, rng: np.random.Generator) -> np.ndarray:
    if array.path == "kernel_scale":
      return np.full(array.array_shape, 2.0**-7 if self.method == "lsq" else 0, np.float32)
    return super().initial(array, rng)

  # -- cfg -----------------------------------------------------------------------------------------
  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    layer = super().from_cfg(section, wires)
    own = {name: section.read(name, getattr(layer, name)) for name in cls._own()}
    return dataclasses.replace(layer, **own)  # type: ignore[arg-type]

  @classmethod
  def _own(cls) -> list[str]:
    known = {field.name for field in dataclasses.fields(Conv)}
    return [field.name for field in dataclasses.fields(cls) if field.name not in known]

  # -- the grid ------------------------------------------------------------------------------------
  def on_grid(self, kernel: Array, scale: Array | None) -> Array:
    """The kernel (h, w, in, out), rounded; `scale` is the layer's "kernel_scale", if it has one. Where a stored scale is 0,
    nothing is rounded yet."""
    from prn_jax.ops import quantizers

    by_method: dict[str, Callable[[Array], Array]] = {
      "dorefa": lambda w: quantizers.dorefa_weights(w, self.bits),
      "bwn": quantizers.bwn_weights,
      "bnn": quantizers.signs,
      "ternary": quantizers.ternary_weights,
    }
    if self.method in by_method:
      return by_method[self.method](kernel)
    spec = self.spec()
    if scale is not None:
      scale = scale.reshape(1, 1, 1, -1)
    if self.method == "lsq":
      return quantizers.lsq(kernel, scale, spec, kernel.size // self._num_scales)  # type: ignore[arg-type]
    if self.method == "tqt":
      return quantizers.tqt(kernel, scale, spec)  # type: ignore[arg-type]
    if scale is None:
      axes = (0, 1, 2) if self.per_channel else None
      top = jnp.max(jnp.abs(kernel), axes, keepdims=self.per_channel)
      scale, _ = quantizers.scale_and_zero(-top, top, spec)
      return quantizers.fake_quant(kernel, scale, jnp.zeros_like(scale), spec)
    rounded = quantizers.fake_quant(kernel, jnp.where(scale > 0, scale, 1), jnp.zeros_like(scale), spec)
    return jnp.where(scale > 0, rounded, kernel)

  def integers(self, own: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The kernel as it is used: int8 (h, w, in, out) and float32 scales (out,), so that their product is it.

    Args:
      own: "conv/kernel"; "kernel_scale", if the layer has one; and the arrays of batch norm, if it folds them.
    """
    from prn_jax.ops.quantizers import scale_and_zero, to_integers

    kernel = np.asarray(own["conv/kernel"], np.float32)
    if self._folds_now:
      gamma, var = (own[f"bn/{leaf}"].astype(np.float64) for leaf in ("scale", "var"))  # as `transforms.fold_batchnorm`
      factor = np.asarray(gamma / np.sqrt(var + (self.bn_epsilon or EPSILON)))
      kernel = (kernel * factor).astype(np.float32)
    if self.method not in ("max", "stored", *LEARNED):
      rounded = np.asarray(self.on_grid(jnp.asarray(kernel), None))
      top = np.abs(rounded).max((0, 1, 2))
      scale = 1 / np.float32(2**self.bits - 1) if self.method == "dorefa" else np.where(top > 0, top, 1)
      scale = np.broadcast_to(scale, self.filters).astype(np.float32)
      return np.rint(rounded / scale).astype(np.int8), scale
    if self.method == "max":
      top = np.abs(kernel).max((0, 1, 2) if self.per_channel else None)
      scale = scale_and_zero(-top, top, self.spec(), np)[0]
    elif self.method == "tqt":
      scale = np.exp2(np.ceil(own["kernel_scale"])) / (self.spec().qmax + 1)
    else:
      scale = np.where(np.abs(own["kernel_scale"]) > 0, np.abs(own["kernel_scale"]), 1)
    scale = np.broadcast_to(scale, self.filters).astype(np.float32)
    return to_integers(kernel, scale, 0, self.spec(), np).astype(np.int8), scale

  def fixed_form(self) -> Layer:
    if self._folds_now:
      return dataclasses.replace(self, folds=False, bn_freeze_after=0)
    bits = self.bits if self.method in ("max", "stored", *LEARNED) else 8
    return dataclasses.replace(self, method="stored", per_channel=True, weights_pow2="none", bits=bits)

  def fixed_arrays(self, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if self._folds_now:
      return {}  # the folded kernel is what is rounded
    integers, scale = self.integers(own)
    return {"conv/kernel": (integers * scale).astype(np.float32), "kernel_scale": scale}

  # -- Flax and ONNX -------------------------------------------------------------------------------
  def normalize(self, x: Array, ctx: Context) -> Array:
    return x if self._folds_now else super().normalize(x, ctx)  # `product` has normalised it

  def product(self, x: Array, ctx: Context) -> Callable[..., Array]:
    if self._folds_now:
      return self._folded_product(x, ctx)
    multiply, scale = super().product(x, ctx), self._scale_variable(ctx)

    def quantized(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
      rounded = self.on_grid(kernel.astype(jnp.float32), scale).astype(kernel.dtype)
      return multiply(x, rounded, *args, **kwargs)

    return quantized

  def _folded_product(self, x: Array, ctx: Context) -> Callable[..., Array]:
    from prn_jax.ops.folded_norm import FoldedBatchNorm

    dtype, epsilon = ctx.dtype or jnp.float32, self.bn_epsilon or EPSILON
    norm = FoldedBatchNorm(ctx.train, ctx.bn_momentum, epsilon, dtype, ctx.bn_axis, self.bn_freeze_after, name="bn")
    multiply = super().product(x, ctx)

    def folded(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
      def convolve(k: Array) -> Array:
        return multiply(x, k.astype(x.dtype), *args, **kwargs)

      return norm(kernel.astype(jnp.float32), convolve, lambda k: self.on_grid(k, None))

    return folded

  def _scale_variable(self, ctx: Context) -> Array | None:
    shape = (self._num_scales,)
    if self.method in LEARNED:
      return ctx.module.param("kernel_scale", lambda key, shape: jnp.full(shape, 2.0**-7), shape)
    if self.method == "stored":
      return ctx.module.variable("batch_stats", "kernel_scale", jnp.zeros, shape).value
    return None

  def onnx_arrays(self, x: str, o: OnnxBuilder) -> list[str]:
    own = {"conv/kernel": o.variable("conv/kernel").transpose(2, 3, 1, 0)}
    if any(array.path == "kernel_scale" for array in self.arrays([Shape(1, 1, self.groups)])):
      own["kernel_scale"] = o.variable("kernel_scale")
    integers, scale = self.integers(own)
    names = [o.integers(integers.transpose(3, 2, 0, 1)), o.const(scale), o.integers(np.zeros(self.filters, np.int8))]
    kernel = o.op("DequantizeLinear", names, axis=0)
    bias = o.variable("conv/bias")
    if x not in o.grids:
      return [kernel, o.const(bias)]
    step = scale.astype(np.float32) * np.float32(o.grids[x].scale)
    integers = np.clip(np.rint(bias / step), -MOST_INT32, MOST_INT32).astype(np.int32)
    return [kernel, o.op("DequantizeLinear", [o.integers(integers), o.const(step)], axis=0)]
