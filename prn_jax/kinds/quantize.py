"""[quantize]: a feature map rounded to a grid, for networks that run in integers (docs/compression.md). Not one of Darknet's
sections.

The ends of the grid are rolling statistics, as those of batch norm: a training step moves them and nothing else does, they
are saved with the weights, and an averaged copy is kept where the weights have one. Or they are learned (LSQ, TQT).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, WeightArray, non_default_fields, read_fields, register_kind
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.lazy import jnp, lax

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder
  from prn_jax.ops.quantizers import QSpec

METHODS = ("range", "lsq", "tqt", "dorefa")
RANGE = ("low", "high", "steps")


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize(Layer):
  """Rounds its input to a grid of 2^bits values. With an empty range (before anything was seen) it lets all pass.

  Attributes:
    bits, signed, symmetric, pow2: the grid, see `ops.quantizers.QSpec`.
    method: how the ends come about: "range" (of the values: a training step moves them), "lsq" or "tqt" (learned), or
      "dorefa" (0 to 1, always).
    momentum: share of the old range in a training step; the first step takes the range of its batch. 1: never moves.
    freeze_after: training steps after which the range stays; 0: never.
    share: name of the quantize layer whose range this one uses, so that both have one scale.
  """

  kind = "quantize"
  sections = ("quantize",)

  bits: int = 8
  signed: bool = False
  symmetric: bool = False
  pow2: str = "none"
  method: str = "range"
  momentum: float = 0.9
  freeze_after: int = 0
  share: str = ""

  @property
  def shared_with(self) -> str | None:
    return self.share or None

  def spec(self) -> QSpec:
    from prn_jax.ops.quantizers import QSpec

    return QSpec(bits=self.bits, signed=self.signed, symmetric=self.symmetric, pow2=self.pow2)

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    self.spec()
    if self.method not in METHODS:
      raise ValueError(f"method={self.method}; expected one of {', '.join(METHODS)}.")
    if self.method != "range" and not self.symmetric:
      raise ValueError(f"method={self.method} needs symmetric=1.")
    if not 0 <= self.momentum <= 1 or self.freeze_after < 0:
      raise ValueError(
        f"momentum={self.momentum:g}, freeze_after={self.freeze_after}; expected 0 to 1, and at least 0."
      )
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def detail(self, places: Sequence[str]) -> str:
    sign = "" if self.signed else "unsigned "
    return f"{self.bits} bits {sign}{self.method}" + (f" as {self.share}" if self.share else "")

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    if self.method == "dorefa":
      return ()
    if self.method != "range":
      return (WeightArray("step", "params", (1,)),)
    return tuple(WeightArray(leaf, "batch_stats", (1,)) for leaf in RANGE)

  def initial(self, array: WeightArray, rng: np.random.Generator) -> np.ndarray:
    return np.full(array.array_shape, array.path == "step", np.float32)

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    share = wires.source(section.integer("share_index"), "share_index") if section.has("share_index") else ""
    return cls.wired(wires, (), **read_fields(cls, section, skip=("share",)), share=share)

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    keys = non_default_fields(self, skip=("share",))
    return keys | {"share_index": wires.reference(self.share)} if self.share else keys

  # -- Flax ----------------------------------------------------------------------------------------
  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    from prn_jax.ops import quantizers

    x = xs[0].astype(jnp.float32)
    spec = self.spec()
    if self.method == "dorefa":
      y = quantizers.dorefa_activations(x, self.bits)
    elif self.method == "range":
      low, high = self._range(x, ctx)
      y = jnp.where(high > low, quantizers.fake_quant(x, *quantizers.scale_and_zero(low, high, spec), spec), x)
    else:
      step = ctx.module.param("step", lambda key, shape: jnp.ones(shape), (1,)).reshape(())
      y = quantizers.tqt(x, step, spec) if self.method == "tqt" else quantizers.lsq(x, step, spec, x.shape[-1])
    return y.astype(xs[0].dtype)

  def _range(self, x: Array, ctx: Context) -> tuple[Array, Array]:
    """The ends of the grid; in training after the values of `x`, which must not carry a gradient there."""
    low, high, steps = (ctx.module.variable("batch_stats", leaf, jnp.zeros, (1,)) for leaf in RANGE)
    if ctx.train and not ctx.module.is_initializing() and self.momentum < 1:
      seen = lax.stop_gradient(x)
      ends = jnp.stack([jnp.min(seen), jnp.max(seen)])
      if ctx.bn_axis is not None:
        ends = lax.pmean(ends, ctx.bn_axis)
      is_first, moves = high.value <= low.value, True if not self.freeze_after else steps.value < self.freeze_after
      for end, of_batch in zip((low, high), ends, strict=True):
        moved = jnp.where(is_first, of_batch, self.momentum * end.value + (1 - self.momentum) * of_batch)
        end.value = jnp.where(moves, moved, end.value)
      steps.value = steps.value + 1
    return low.value[0], high.value[0]

  # -- ONNX ----------------------------------------------------------------------------------------
  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    from prn_jax.graph.onnx_builder import Grid

    found = self.grid(o.variable)
    if found is None:
      return xs[0]
    scale, zero = found
    spec, x = self.spec(), xs[0]
    if (spec.qmin, spec.qmax) not in ((-128, 127), (0, 255)):  # ONNX's own ends are those of 8 bits
      x = o.op("Clip", [x, o.const((spec.qmin - zero) * scale), o.const((spec.qmax - zero) * scale)])
    return o.quantized(x, Grid(scale, np.asarray(zero, np.int8 if self.signed else np.uint8)))

  def grid(self, variable: Callable[[str], np.ndarray]) -> tuple[float, int] | None:
    """Scale and zero point, from what gives an array of the layer by its path; None while the range is empty."""
    from prn_jax.ops.quantizers import scale_and_zero

    if self.method == "dorefa":
      return 1 / (2**self.bits - 1), 0
    if self.method != "range":
      step = float(variable("step").reshape(()))
      return (2.0 ** np.ceil(step) / (self.spec().qmax + 1) if self.method == "tqt" else abs(step)), 0
    low, high = (variable(leaf).reshape(()) for leaf in ("low", "high"))
    if high <= low:
      return None
    scale, zero = scale_and_zero(low, high, self.spec(), np)
    return float(scale), int(zero)
