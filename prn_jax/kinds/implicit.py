"""[implicit]: a learned vector as a feature map (docs/darknet.md a13)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.graph.channels import Reads
from prn_jax.graph.graph import INPUT, Context, Layer, Shape, WeightArray, Wiring, register_kind
from prn_jax.graph.section import Value, Wires
from prn_jax.lazy import jnp, nn

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Implicit(Layer):
  """The same learned map for every image: height `atoms`, width 1, `filters` channels.

  Attributes:
    filters, atoms: size.
    mean, std: initial values are mean + U(-std, std).
  """

  kind = "implicit"
  sections = ("implicit",)
  wiring = Wiring.NONE
  width_field = "filters"

  filters: int = 128
  atoms: int = 1
  mean: float = 0.0
  std: float = 0.2

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if min(self.filters, self.atoms) < 1:
      raise ValueError(f"filters={self.filters}, atoms={self.atoms}; expected at least 1.")
    return Shape(self.atoms, 1, self.filters)

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return ()

  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    return (WeightArray("vector", "params", (self.filters, self.atoms, 1), (1, 2, 0), makes=2),)

  def initial(self, array: WeightArray, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(self.mean - self.std, self.mean + self.std, array.array_shape).astype(np.float32)

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"filters": self.filters} | super().to_cfg(wires)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    uniform = nn.initializers.uniform(2 * self.std)  # 0 to 2 std

    def initial(key: Array, shape: Sequence[int]) -> Array:
      return uniform(key, shape) + (self.mean - self.std)

    vector = ctx.module.param("vector", initial, (self.atoms, 1, self.filters))
    return jnp.broadcast_to(vector.astype(ctx.dtype or jnp.float32), (ctx.batch_size, *vector.shape))

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    # The batch size comes from the image: one of its values, times 0. (OpenCV has no Expand of a constant.)
    value = INPUT
    for axis in (1, 2, 3):
      value = o.slice(value, 0, 1, axis)
    nothing = o.op("Mul", [value, o.const(0)])
    return o.op("Add", [nothing, o.const(o.variable("vector").reshape(1, self.filters, self.atoms, 1))])
