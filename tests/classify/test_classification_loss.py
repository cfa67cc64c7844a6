"""The loss of classifiers, against sums written out (docs/darknet.md e8)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.classify.loss import darknet_cost, smooth_targets, softmax_cross_entropy
from prn_jax.errors import PrnError

LOGITS = np.random.default_rng(0).normal(0, 3, (4, 5)).astype(np.float32)
LABELS = np.array([0, 4, 2, 2], np.int32)
LOG_P = np.log(np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum(1, keepdims=True))


def test_hand_arithmetic() -> None:
  # p = (3/4, 1/4): -ln of the label's
  loss = softmax_cross_entropy(jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0]])), jnp.array([0, 1]))
  np.testing.assert_allclose(loss, [np.log(4 / 3), np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_is_darknets(smoothing: float) -> None:
  targets = np.full((4, 5), smoothing / 4)
  targets[np.arange(4), LABELS] = 1 - smoothing
  np.testing.assert_allclose(smooth_targets(LABELS, 5, smoothing), targets, atol=1e-7)
  value, gradient = jax.value_and_grad(lambda x: softmax_cross_entropy(x, LABELS, smoothing).sum())(LOGITS)
  np.testing.assert_allclose(value, -(targets * LOG_P).sum(), rtol=1e-6)
  np.testing.assert_allclose(gradient, np.exp(LOG_P) - targets, atol=1e-6)


def test_darknets_cost_does_not_weight() -> None:
  np.testing.assert_allclose(darknet_cost(LOGITS, LABELS), -LOG_P[np.arange(4), LABELS], rtol=1e-5)
  np.testing.assert_allclose(darknet_cost(LOGITS, LABELS, 0.1), -LOG_P.sum(1), rtol=1e-6)


def test_masked_rows_have_neither_loss_nor_gradient() -> None:
  mask = np.array([True, False, True, False])
  loss = softmax_cross_entropy(LOGITS, LABELS, mask=mask)
  np.testing.assert_array_equal(loss, np.where(mask, softmax_cross_entropy(LOGITS, LABELS), 0))
  gradient = jax.grad(lambda x: softmax_cross_entropy(x, LABELS, mask=mask).sum())(LOGITS)
  assert not np.any(gradient[~mask])


def test_float32_for_bfloat16() -> None:
  assert softmax_cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), LABELS).dtype == jnp.float32


def test_messages() -> None:
  with pytest.raises(PrnError, match=r"logits are \(4, 5\) and labels \(3,\); expected \(n, k\) and \(n,\)"):
    softmax_cross_entropy(LOGITS, LABELS[:3])
  with pytest.raises(PrnError, match=r"label smoothing is 1\.0; expected at least 0 and below 1"):
    darknet_cost(LOGITS, LABELS, 1.0)
