"""The blur behind a strided layer with antialiasing=1|2 (docs/darknet.md a3); not a kind, and without weights.

The layer itself runs with stride 1; then each channel is blurred with the original stride.
Quirk not copied: Darknet lets route and shortcut see the dimensions before the blur.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prn_jax.graph.graph import Shape
from prn_jax.lazy import jnp, lax

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

# mode -> (kernel, padding on every side)
BLURS: dict[int, tuple[np.ndarray, int]] = {
  1: (np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16, 1),
  2: (np.full((2, 2), 0.25, np.float32), 0),
}


def check_blur(mode: int) -> None:
  if mode not in (0, *BLURS):
    raise ValueError(f"antialiasing={mode}; expected 0 (off), 1 (3x3 binomial) or 2 (2x2 mean).")


def blur_shape(shape: Shape, mode: int, strides: tuple[int, int]) -> Shape:
  kernel, padding = BLURS[mode]
  height, width = (
    (extent + 2 * padding - len(kernel)) // stride + 1 for extent, stride in zip(shape[:2], strides, strict=True)
  )
  return Shape(height, width, shape.channels)


def blur(x: Array, mode: int, strides: tuple[int, int]) -> Array:
  """Depthwise blur of `x` (n, h, w, c) with zero padding."""
  kernel, padding = BLURS[mode]
  channels = x.shape[-1]
  weights = jnp.tile(jnp.asarray(kernel, x.dtype)[:, :, None, None], (1, 1, 1, channels))
  return lax.conv_general_dilated(
    x,
    weights,
    strides,
    [(padding, padding)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=channels,
    precision=lax.Precision.HIGHEST,
  )


def onnx_blur(o: OnnxBuilder, x: str, mode: int, strides: tuple[int, int], channels: int) -> str:
  kernel, padding = BLURS[mode]
  weights = o.const(np.broadcast_to(kernel, (channels, 1, *kernel.shape)))
  attributes = {"kernel_shape": list(kernel.shape), "pads": [padding] * 4, "strides": list(strides), "group": channels}
  return o.op("Conv", [x, weights], **attributes)
