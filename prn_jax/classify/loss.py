"""The loss of classifiers (docs/darknet.md e8)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prn_jax.errors import PrnError


def softmax_cross_entropy(
  logits: jax.Array, labels: jax.Array, smoothing: float = 0.0, mask: jax.Array | None = None
) -> jax.Array:
  """Cross-entropy of the softmax with the labels. Its gradient is Darknet's: p - t for every class.

  A network that ends in [softmax] gives probabilities: pass the output of the layer below.

  Args:
    logits: (n, k), any float type; computed in float32.
    labels: (n,) int, classes in [0, k).
    smoothing: share of the target that the other classes get in equal parts.
    mask: (n,) bool, False for rows that only pad the batch; their loss is 0.

  Returns:
    (n,) float32, the loss of each image. Divide its sum by the number of True in `mask`, not by n.

  Raises:
    PrnError: shapes or `smoothing` do not fit.

  Source: Darknet `blas.c:softmax_x_ent_cpu`, `data.c:fill_truth_smooth`; differs: this is the loss whose gradient
  Darknet uses; what Darknet prints as loss is `darknet_cost`.
  """
  _check(logits, labels, smoothing)
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  losses = -jnp.sum(smooth_targets(labels, logits.shape[1], smoothing) * log_p, axis=1)
  return losses if mask is None else jnp.where(mask, losses, 0.0)


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
  """(n, num_classes) float32: 1 - smoothing for the label, smoothing / (num_classes - 1) for the others."""
  others = smoothing / max(num_classes - 1, 1)
  one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
  return one_hot * (1 - smoothing - others) + others


def darknet_cost(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
  """What Darknet prints as the loss of each image: the sum of -ln p over all classes whose target is not 0, whatever
  the target is. With smoothing these are all classes, equally.

  Args:
    logits, labels, smoothing: see `softmax_cross_entropy`.

  Returns:
    (n,) float32.
  """
  _check(logits, labels, smoothing)
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  counts = smooth_targets(labels, logits.shape[1], smoothing) != 0
  return -jnp.sum(jnp.where(counts, log_p, 0.0), axis=1)


def _check(logits: jax.Array, labels: jax.Array, smoothing: float) -> None:
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise PrnError(f"logits are {logits.shape} and labels {labels.shape}; expected (n, k) and (n,).")
  if not 0 <= smoothing < 1:
    raise PrnError(f"label smoothing is {smoothing}; expected at least 0 and below 1.")
