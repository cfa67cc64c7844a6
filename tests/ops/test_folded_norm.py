"""Batch norm folded into the kernel while training: without rounding it is batch norm, and in the end what inference computes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.ops.batch_norm import BatchNorm
from prn_jax.ops.folded_norm import FoldedBatchNorm

RNG = np.random.default_rng(0)
X, KERNEL = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 5, 5, 3), (3, 4)))
PARAMS = {"scale": np.float32([1, -2, 0.5, 0]), "bias": np.float32([0, 1, -1, 2])}
ROLLING = {"mean": np.float32([0.5, -0.5, 0, 1]), "var": np.float32([4, 0.25, 1, 2])}


def apply(variables: Any, rounded: Any = lambda k: k, *, train: bool = True, freeze_after: int = 0) -> Any:
  module = FoldedBatchNorm(train, 0.9, 1e-5, jnp.float32, freeze_after=freeze_after)
  state = {key: variables[key] for key in ("params", "batch_stats")}
  return module.apply(state, variables["kernel"], lambda k: variables["x"] @ k, rounded, mutable=["batch_stats"])


def variables(steps: float = 0) -> dict[str, Any]:
  return {"params": PARAMS, "batch_stats": ROLLING | {"steps": np.float32([steps])}, "x": X, "kernel": KERNEL}


@pytest.mark.parametrize("train", [True, False])
def test_without_rounding_it_is_batch_norm(train: bool) -> None:
  """Outputs, rolling statistics, and gradients to input, kernel, scale and bias."""

  def folded(params: Any, x: Any, kernel: Any) -> Any:
    y, new = apply(variables() | {"params": params, "x": x, "kernel": kernel}, train=train)
    return jnp.sum(y**3), new["batch_stats"]

  def plain(params: Any, x: Any, kernel: Any) -> Any:
    norm = BatchNorm(train, 0.9, 1e-5, jnp.float32)
    y, new = norm.apply({"params": params, "batch_stats": ROLLING}, x @ kernel, mutable=["batch_stats"])
    return jnp.sum(y**3), new["batch_stats"]

  (found, moved), gradients = jax.value_and_grad(folded, (0, 1, 2), has_aux=True)(PARAMS, X, KERNEL)
  (wanted, expected), wanted_gradients = jax.value_and_grad(plain, (0, 1, 2), has_aux=True)(PARAMS, X, KERNEL)
  assert float(found) == pytest.approx(float(wanted), rel=1e-5)
  steps = moved.pop("steps")
  assert float(steps[0]) == train
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), moved, expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), gradients, wanted_gradients)


def test_a_rounded_kernel_by_hand() -> None:
  """One value per image, -1 and 3, kernel 1: mean 1 and variance 4 of the batch; rolling 0 and 1, scale 0.7 on a grid of whole
  numbers is 1: y = 1 x (1 / 2) + 0.5 - 0.7 (1 / 2)."""
  x = np.float32([-1, 3]).reshape(2, 1, 1, 1)
  norm = FoldedBatchNorm(True, 0.9, 1e-12, jnp.float32)
  rolling = {"mean": np.zeros(1, np.float32), "var": np.ones(1, np.float32), "steps": np.zeros(1, np.float32)}
  given = {"params": {"scale": np.float32([0.7]), "bias": np.float32([0.5])}, "batch_stats": rolling}
  y, moved = norm.apply(given, jnp.ones((1, 1)), lambda k: x @ k, jnp.round, mutable=["batch_stats"])
  assert y.ravel().tolist() == pytest.approx([-0.5 + 0.15, 1.5 + 0.15], abs=1e-6)
  assert moved["batch_stats"]["mean"].tolist() == pytest.approx([0.1])
  assert moved["batch_stats"]["var"].tolist() == pytest.approx([0.9 + 0.4])


def test_frozen_statistics_make_a_step_what_an_evaluation_is() -> None:
  y, moved = apply(variables(3), jnp.round, freeze_after=3)
  evaluated, still = apply(variables(3), jnp.round, train=False, freeze_after=3)
  np.testing.assert_allclose(y, evaluated, rtol=1e-6, atol=1e-6)
  for name, value in ROLLING.items():
    np.testing.assert_array_equal(moved["batch_stats"][name], value)
    np.testing.assert_array_equal(still["batch_stats"][name], value)
  assert (float(moved["batch_stats"]["steps"][0]), float(still["batch_stats"]["steps"][0])) == (4, 3)
  before, last = apply(variables(2), jnp.round, freeze_after=3)
  assert not np.allclose(before, evaluated, atol=1e-3)  # the step before still has the statistics of its batch
  assert not np.array_equal(last["batch_stats"]["mean"], ROLLING["mean"])
