"""The sum of taps against XLA's grouped convolution, and what its gradient costs to compile."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prn_jax.ops.depthwise import depthwise_by_taps, depthwise_for_training

CASES = {  # (h, w), channels, kernel (h, w), strides, padding
  "3x3": ((12, 10), 8, (3, 3), (1, 1), ((1, 1), (1, 1))),
  "stride 2, odd height": ((13, 12), 8, (3, 3), (2, 2), ((1, 1), (1, 1))),
  "5x5, stride 2": ((12, 9), 4, (5, 5), (2, 2), ((2, 2), (2, 2))),
  "kernel above map": ((3, 3), 4, (5, 5), (1, 1), ((2, 2), (2, 2))),
  "even kernel, row left over": ((11, 12), 4, (2, 2), (2, 2), ((0, 0), (0, 0))),
  "stride above kernel": ((9, 8), 3, (3, 3), (4, 4), ((1, 1), (1, 1))),
  "padding above kernel": ((6, 6), 2, (2, 2), (1, 1), ((3, 3), (3, 3))),
  "all sides differ": ((9, 11), 3, (3, 5), (2, 1), ((1, 0), (2, 1))),
}


def grouped(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: tuple[tuple[int, int], ...]
) -> jax.Array:
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1],
    precision=lax.Precision.HIGHEST,
  )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_both_gradients_are_those_of_the_grouped_convolution(case: tuple) -> None:
  size, channels, taps, strides, padding = case
  random = np.random.default_rng(0)
  x = jnp.asarray(random.normal(size=(2, *size, channels)), jnp.float32)
  kernel = jnp.asarray(random.normal(size=(*taps, 1, channels)), jnp.float32)
  expected, pull = jax.vjp(lambda x, k: grouped(x, k, strides, padding), x, kernel)
  found, ours = jax.vjp(lambda x, k: depthwise_for_training(x, k, strides, padding), x, kernel)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  dy = jnp.asarray(random.normal(size=expected.shape), jnp.float32)
  for mine, theirs in zip(ours(dy), pull(dy), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-5)


def test_half_precision_sums_the_kernel_gradient_in_full_precision() -> None:
  """65,536 products of 1: bfloat16 would stop at 256."""
  x, kernel = jnp.ones((4, 128, 128, 2), jnp.bfloat16), jnp.ones((1, 1, 1, 2), jnp.bfloat16)
  y, pull = jax.vjp(lambda x, k: depthwise_for_training(x, k, (1, 1), ((0, 0), (0, 0))), x, kernel)
  dx, dk = pull(jnp.ones_like(y))
  assert y.dtype == dx.dtype == dk.dtype == jnp.bfloat16
  np.testing.assert_array_equal(dk.astype(jnp.float32), np.full((1, 1, 1, 2), 65536.0))


def test_the_gradient_has_as_many_loops_for_25_taps_as_for_9() -> None:
  """Each fusion is compiled by itself; differentiated automatically, every tap has its own."""

  def fusions(size: int) -> int:
    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
      return jnp.sum(jnp.square(depthwise_for_training(x, kernel, (1, 1), ((size // 2,) * 2,) * 2)))

    arrays = jnp.ones((2, 40, 40, 8)), jnp.ones((size, size, 1, 8))
    return len(re.findall(r" fusion\(", jax.jit(jax.grad(loss, (0, 1))).lower(*arrays).compile().as_text()))

  assert fusions(5) == fusions(3) < 16


def test_inference_keeps_the_forward_mode_and_a_training_does_not_need_it() -> None:
  x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 1, 2))
  padding = ((1, 1), (1, 1))
  y, slope = jax.jvp(lambda x: depthwise_by_taps(x, kernel, (1, 1), padding), (x,), (x,))
  np.testing.assert_array_equal(slope, y)  # linear
  np.testing.assert_array_equal(y, depthwise_for_training(x, kernel, (1, 1), padding))
