"""Our batch normalisation against Flax's, whose gradient is automatic."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prn_jax.ops.batch_norm import BatchNorm

EPSILON, MOMENTUM, CHANNELS = 1e-5, 0.9, 5


def ours(train: bool = True, dtype: Any = jnp.float32, axis: str | None = None) -> nn.Module:
  return BatchNorm(train, MOMENTUM, EPSILON, dtype, axis)


def flax(train: bool = True, dtype: Any = jnp.float32, axis: str | None = None) -> nn.Module:
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=MOMENTUM,
    epsilon=EPSILON,
    dtype=dtype,
    axis_name=axis,
    use_fast_variance=False,
  )


def arrays(shape: tuple[int, ...]) -> tuple[dict[str, Any], jax.Array, jax.Array]:
  """Variables far from their defaults, an input with a mean of 30 standard deviations, and weights of a loss."""
  random = np.random.default_rng(1)
  a, b, c, d = (jnp.asarray(random.uniform(0.5, 2, CHANNELS), jnp.float32) for _ in range(4))
  variables = {"params": {"scale": a, "bias": b}, "batch_stats": {"mean": c, "var": d}}
  return (
    variables,
    jnp.asarray(random.normal(30, 1, shape), jnp.float32),
    jnp.asarray(random.normal(size=shape), jnp.float32),
  )


def results(module: nn.Module, variables: dict[str, Any], x: jax.Array, weight: jax.Array) -> Any:
  """The output, the new statistics and the gradients of a loss by parameters and input."""

  def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    y, new = module.apply(variables | {"params": params}, x, mutable=["batch_stats"])
    return jnp.sum(jnp.square(y.astype(jnp.float32)) * weight), (y, new)

  gradients, (y, new) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
  return y, new, gradients


def assert_equal(mine: Any, theirs: Any, tolerance: float = 2e-5) -> None:
  assert jax.tree.structure(mine) == jax.tree.structure(theirs)
  for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("shape", [(4, 6, 7, CHANNELS), (9, CHANNELS)])
def test_output_statistics_and_gradients_are_those_of_flax(shape: tuple[int, ...]) -> None:
  assert_equal(results(ours(), *arrays(shape)), results(flax(), *arrays(shape)))


def test_the_output_has_the_bits_of_flax() -> None:
  variables, x, _ = arrays((4, 6, 7, CHANNELS))
  for train in (True, False):
    mine, theirs = (module.apply(variables, x, mutable=["batch_stats"])[0] for module in (ours(train), flax(train)))
    np.testing.assert_array_equal(mine, theirs)


def test_rolling_statistics_serve_outside_the_training() -> None:
  assert_equal(results(ours(False), *arrays((4, 6, 7, CHANNELS))), results(flax(False), *arrays((4, 6, 7, CHANNELS))))


def test_half_precision() -> None:
  variables, x, weight = arrays((4, 6, 7, CHANNELS))
  half = variables, (x - 30).astype(jnp.bfloat16), weight
  assert_equal(results(ours(dtype=jnp.bfloat16), *half), results(flax(dtype=jnp.bfloat16), *half), 0.02)


def test_statistics_shared_among_devices_pass_their_gradient_to_all() -> None:
  """Two halves of a batch, as two devices see them, against the whole batch on one."""
  variables, x, weight = arrays((4, 6, 7, CHANNELS))
  x = x - 30  # halves of a batch round their means otherwise than the whole
  y, new, (params, dx) = results(ours(), variables, x, weight)
  halves = x.reshape(2, 2, *x.shape[1:]), weight.reshape(2, 2, *weight.shape[1:])
  shared = jax.vmap(lambda x, w: results(ours(axis="devices"), variables, x, w), axis_name="devices")(*halves)
  np.testing.assert_allclose(shared[0].reshape(y.shape), y, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(shared[2][1].reshape(dx.shape), dx, rtol=1e-4, atol=1e-4)
  assert_equal(jax.tree.map(lambda leaf: leaf[0], shared[1]), new)
  assert_equal(jax.tree.map(lambda leaf: leaf.sum(0), shared[2][0]), params)


def test_a_step_sums_over_the_map_four_times() -> None:
  """Mean and variance forward, two sums backward; the automatic gradient has six, and each is two loops on CPU."""

  def sums(module: nn.Module) -> int:
    text = jax.jit(results, static_argnums=0).lower(module, *arrays((4, 6, 7, CHANNELS))).as_text()
    return text.count("stablehlo.reduce(")

  assert sums(ours()) == 4 < sums(flax())
