"""[normalize]: (x - mean) / std of each channel, by fixed numbers (docs/darknet.md a18).

Darknet's networks take pixels in [0, 1] as they are. Networks that were trained on ImageNet elsewhere subtract its mean
and divide by its deviation first; this layer does it for them, so that they take the same images as all others. It is
no part of the first convolution, because the zeros around the image stand behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.lazy import jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalize(Layer):
  """Subtracts a number from every channel and divides by another; nothing is learned.

  Attributes:
    mean, std: one number for each channel of the input.
  """

  kind = "normalize"
  sections = ("normalize",)

  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    (x,) = inputs
    for key, values in (("mean", self.mean), ("std", self.std)):
      if len(values) != x.channels:
        raise ValueError(f"{key} has {len(values)} numbers; expected one for each of the {x.channels} input channels.")
    if min(self.std) <= 0:
      raise ValueError(f"std holds {min(self.std):g}; expected numbers above 0.")
    return x

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return (keep(output.channels),)

  def narrowed(self, before: Sequence[Shape], inputs: Sequence[Sequence[int]], kept: Sequence[int]) -> Layer:
    mean, std = (tuple(values[i] for i in kept) for values in (self.mean, self.std))
    return dataclasses.replace(self, mean=mean, std=std)

  @property
  def keeps_zero(self) -> bool:
    return not any(self.mean)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    mean, std = (jnp.asarray(values, xs[0].dtype)[None, None, None] for values in (self.mean, self.std))
    return (xs[0] - mean) / std

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    mean, std = (np.reshape(values, (1, -1, 1, 1)) for values in (self.mean, self.std))
    return o.op("Div", [o.op("Sub", [xs[0], o.const(mean)]), o.const(std)])
