"""Batch normalisation inside the kernel in front of it, while training: what is rounded is what will run.

Rounding gamma W / sigma with the batch's sigma would shake the grid at every step. So the kernel is folded with the rolling
sigma, and the result is taken back to the statistics of the batch (Krishnamoorthi 2018, section 3.2.2, "batch normalization
with correction"; Jacob et al. 2018, section 3.2):

  y = conv(x, Q(gamma W / sigma_r)) sigma_r / sigma_b + beta - gamma mu_b / sigma_b

With the statistics of the batch, b, from conv(x, W), and the rolling ones, r. Without rounding this is batch norm. After some
steps the statistics freeze: the factor is 1, mu_b and sigma_b are the rolling ones, and a training step computes what an
evaluation does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from prn_jax.ops.batch_norm import batch_statistics, wide


class FoldedBatchNorm(nn.Module):
  """As `ops.batch_norm.BatchNorm`, of the same variables and one more: the training steps so far.

  Attributes:
    train, momentum, epsilon, dtype, axis: see there.
    freeze_after: training steps after which the statistics stay; 0: never.
  """

  train: bool
  momentum: float
  epsilon: float
  dtype: Any
  axis: str | None = None
  freeze_after: int = 0

  @nn.compact
  def __call__(
    self, kernel: jax.Array, convolve: Callable[[jax.Array], jax.Array], rounded: Callable[[jax.Array], jax.Array]
  ) -> jax.Array:
    """The normalised convolution.

    Args:
      kernel: (..., channels) float32.
      convolve: kernel -> map (..., channels), the bare convolution of the layer's input.
      rounded: a folded kernel -> the same on its grid.
    """
    shape = kernel.shape[-1:]
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    steps = self.variable("batch_stats", "steps", jnp.zeros, (1,))
    scale = self.param("scale", nn.initializers.ones, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    factor = scale * lax.rsqrt(var.value + self.epsilon)
    y = convolve(rounded(kernel * wide(factor, kernel))).astype(jnp.float32)
    if not self.train or self.is_initializing():
      return (y + wide(bias - mean.value * factor, y)).astype(self.dtype)
    of_batch, spread = batch_statistics(convolve(kernel), self.axis)
    frozen = jnp.asarray(self.freeze_after > 0) & (steps.value[0] >= self.freeze_after)
    root = lax.rsqrt(spread + self.epsilon)
    correction = jnp.where(frozen, 1.0, jnp.sqrt(var.value + self.epsilon) * root)
    shift = bias - jnp.where(frozen, mean.value * factor, of_batch * scale * root)
    for rolling, value in ((mean, of_batch), (var, spread)):
      moved = self.momentum * rolling.value + (1 - self.momentum) * lax.stop_gradient(value)
      rolling.value = jnp.where(frozen, rolling.value, moved)
    steps.value = steps.value + 1
    return (y * wide(correction, y) + wide(shift, y)).astype(self.dtype)
