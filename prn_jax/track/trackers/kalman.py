"""Kalman filters of many tracks at once, with constant velocity.

The state is what is measured (four values) and, from the fifth on, how fast the first of these change in a frame.
Source: Kalman, A New Approach to Linear Filtering and Prediction Problems, 1960.
"""

from __future__ import annotations

import numpy as np

MEASURED = 4


def predict(mean: np.ndarray, cov: np.ndarray, noise: np.ndarray, steps: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
  """Where the tracks will be.

  Args:
    mean: (n, d) float64, d from 5 to 8.
    cov: (n, d, d) float64, covariance of `mean`.
    noise: (d,) or (n, d) float64, variance that a step adds to each value.
    steps: how many steps ahead; need not be whole.

  Returns:
    mean and cov of then.
  """
  size = mean.shape[1]
  motion = np.eye(size) + steps * np.eye(size, k=MEASURED)
  return mean @ motion.T, motion @ cov @ motion.T + steps * diagonal(noise)


def correct(
  mean: np.ndarray, cov: np.ndarray, measured: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The tracks after each was measured once.

  Args:
    mean, cov: as `predict` takes them.
    measured: (n, 4) float64.
    noise: (4,) or (n, 4) float64, variance of the measurement.
  """
  spread = cov[:, :MEASURED, :MEASURED] + diagonal(noise)
  gain_t = np.linalg.solve(spread, cov[:, :MEASURED, :])  # (n, 4, d): the gain, transposed
  off = measured - mean[:, :MEASURED]
  cov = cov - np.swapaxes(gain_t, 1, 2) @ cov[:, :MEASURED, :]
  cov = (cov + np.swapaxes(cov, 1, 2)) / 2  # rounding would make it lopsided over thousands of frames
  return mean + np.einsum("nid,ni->nd", gain_t, off), cov


def diagonal(values: np.ndarray) -> np.ndarray:
  """Square matrices with the given values, (..., d), on their diagonals."""
  return values[..., :, None] * np.eye(values.shape[-1])
