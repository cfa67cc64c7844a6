"""[local_avgpool]: mean over windows, counting only the cells inside the map (docs/darknet.md a5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.graph import Context, register_kind
from prn_jax.kinds.blur import blur
from prn_jax.kinds.maxpool import Pool
from prn_jax.lazy import jnp, lax

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalAvgPool(Pool):
  """Mean over windows; geometry and fields as `MaxPool`. Quirk not copied: Darknet's gradient divides
  by the full window also at the border."""

  kind = "local_avgpool"
  sections = ("local_avgpool", "local_avg")

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    (x,) = xs
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    x = self.reduce_window(x, 0.0, lax.add) / self.reduce_window(ones, 0.0, lax.add)
    return blur(x, self.antialiasing, self.strides) if self.antialiasing else x

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return self.onnx_pool(xs[0], o, "AveragePool", count_include_pad=0)
