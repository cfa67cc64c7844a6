"""Batch normalisation as a Flax module; semantics, names and order of operations of `flax.linen.BatchNorm`.

Its gradient is written out (Ioffe & Szegedy, 2015, section 3): two sums over the map, from which all three gradients follow.
Differentiated automatically, mean and variance ask for four; on CPU each is two loops to compile and one pass over the map
to run, and most of a training step's loops are those (docs/speed.md).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class BatchNorm(nn.Module):
  """Normalises the last axis of (..., channels).

  Attributes:
    train: by the statistics of the batch, which move the rolling ones; else by the rolling ones.
    momentum: share of the old rolling statistics.
    epsilon: added to the variance.
    dtype: the type of the result; statistics are float32.
    axis: mesh axis over which the statistics are averaged (inside `shard_map`), else None.
  """

  train: bool
  momentum: float
  epsilon: float
  dtype: Any
  axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    rolling_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    rolling_var = self.variable("batch_stats", "var", jnp.ones, shape)
    scale = self.param("scale", nn.initializers.ones, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    if not self.train:
      return _normalized(x, rolling_mean.value, rolling_var.value, scale, bias, self.epsilon).astype(self.dtype)
    axis = None if self.is_initializing() else self.axis
    y, mean, var = _batch_norm(x, scale, bias, self.epsilon, axis)
    if not self.is_initializing():
      for rolling, value in ((rolling_mean, mean), (rolling_var, var)):
        rolling.value = self.momentum * rolling.value + (1 - self.momentum) * value
    return y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The normalised map in float32, and the batch's mean and (biased) variance, which carry no gradient."""
  x = x.astype(jnp.float32)
  mean = _mean(x, axis)
  var = _mean(jnp.square(x - wide(mean, x)), axis)  # exact for mean >> std; see docs/numerics.md
  return _normalized(x, mean, var, scale, bias, epsilon), mean, var


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None) -> tuple[Any, Any]:
  y, mean, var = _batch_norm(x, scale, bias, epsilon, axis)
  return (y, mean, var), (x, mean, var, scale)


def _backward(
  epsilon: float, axis: str | None, kept: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
  x, mean, var, scale = kept
  dy = cotangents[0]
  root = lax.rsqrt(var + epsilon)
  standard = (x.astype(jnp.float32) - wide(mean, x)) * wide(root, x)
  d_bias = jnp.sum(dy, _all_but_last(x))
  d_scale = jnp.sum(dy * standard, _all_but_last(x))
  count = x.size // x.shape[-1]
  means = d_bias / count, d_scale / count
  by_mean, by_var = means if axis is None else lax.pmean(means, axis)  # what the shared statistics pass back to x
  dx = (dy - wide(by_mean, x) - standard * wide(by_var, x)) * wide(root * scale, x)
  return dx.astype(x.dtype), d_scale, d_bias


_batch_norm.defvjp(_forward, _backward)


def _normalized(
  x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
  factor = lax.rsqrt(wide(var, x) + epsilon) * wide(scale, x)
  return (x.astype(jnp.float32) - wide(mean, x)) * factor + wide(bias, x)


def batch_statistics(x: jax.Array, axis: str | None) -> tuple[jax.Array, jax.Array]:
  """Mean and (biased) variance of the last axis of (..., channels), (channels,) float32 each, with their gradients; over the
  mesh axis as well, if one is named."""
  x = x.astype(jnp.float32)
  mean = _mean(x, axis)
  return mean, _mean(jnp.square(x - wide(mean, x)), axis)


def _mean(x: jax.Array, axis: str | None) -> jax.Array:
  mean = jnp.mean(x, _all_but_last(x))
  return mean if axis is None else lax.pmean(mean, axis)


def wide(vector: jax.Array, like: jax.Array) -> jax.Array:
  """(channels,) with the rank of `like`."""
  return jnp.expand_dims(vector, _all_but_last(like))


def _all_but_last(x: jax.Array) -> tuple[int, ...]:
  return tuple(range(x.ndim - 1))
