"""Batch normalisation (docs/darknet.md c1, e4), as a layer and as a part of conv and connected.

y = scale * (x - mean) / sqrt(var + 1e-5) + bias. Rolling statistics keep 0.99 of the old value. The variance
is the biased one, in training and in the rolling average; cuDNN stores the unbiased one (factor n/(n-1)).
A fresh Darknet layer has rolling variance 0; ours has 1, so that an untrained network gives finite outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, WeightArray, register_kind
from prn_jax.lazy import jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

EPSILON = 1e-5


def batch_norm_arrays(channels: int) -> dict[str, WeightArray]:
  """The four arrays by their role; the order in the file differs by kind."""
  one = (channels,)
  return {
    "bias": WeightArray("bn/bias", "params", one, makes=0),
    "scale": WeightArray("bn/scale", "params", one, makes=0),
    "mean": WeightArray("bn/mean", "batch_stats", one, makes=0),
    "var": WeightArray("bn/var", "batch_stats", one, makes=0),
  }


def batch_norm(x: Array, ctx: Context, epsilon: float = 0.0) -> Array:
  """Normalises `x` (..., channels) with a module called "bn"; epsilon 0 is Darknet's."""
  from prn_jax.ops import batch_norm as ops

  dtype = ctx.dtype or jnp.float32
  return ops.BatchNorm(ctx.train, ctx.bn_momentum, epsilon or EPSILON, dtype, ctx.bn_axis, name="bn")(x)


def darknets_if_equal(epsilon: float) -> float:
  """The one form of the field `bn_epsilon`: 0 for Darknet's."""
  return 0.0 if epsilon == EPSILON else epsilon


def check_epsilon(epsilon: float) -> None:
  """Raises ValueError for an epsilon that is none."""
  if not 0 <= epsilon < 1:
    raise ValueError(f"bn_epsilon={epsilon:g}; expected a number from 0 (Darknet's 0.00001) to below 1.")


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm(Layer):
  """Batch normalisation as a layer of its own.

  Attributes:
    bn_epsilon: what is added to the variance; 0: Darknet's 0.00001.
  """

  kind = "batchnorm"
  sections = ("batchnorm",)

  bn_epsilon: float = 0.0

  def __post_init__(self) -> None:
    self._set(bn_epsilon=darknets_if_equal(self.bn_epsilon))

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    check_epsilon(self.bn_epsilon)
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    return tuple(batch_norm_arrays(inputs[0].channels).values())

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return batch_norm(xs[0], ctx, self.bn_epsilon)

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    arrays = [o.const(o.variable(f"bn/{leaf}")) for leaf in ("scale", "bias", "mean", "var")]
    return o.op("BatchNormalization", [xs[0], *arrays], epsilon=self.bn_epsilon or EPSILON)
