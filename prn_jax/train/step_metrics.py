"""Metrics of the steps since the last log line, added up without holding the devices up."""

from __future__ import annotations

import jax
import numpy as np

from prn_jax.train.step import Metrics, mean

CHECK_STEPS = 50  # how many steps are added up at once; so many, and no more, a loss that is not finite goes unnoticed


class Totals:
  """Sums [sum, count] over steps.

  What a step gives is left on the device until it is asked for: reading it at once would wait for the step. But a long
  run must not collect millions of such values, so that those of finished steps are added up every `CHECK_STEPS`.
  """

  def __init__(self) -> None:
    self._waiting: list[Metrics] = []
    self._sums: dict[str, np.ndarray] = {}

  def __bool__(self) -> bool:
    """Whether there is any step since the last `take`."""
    return bool(self._waiting or self._sums)

  def add(self, metrics: Metrics) -> None:
    """Takes the metrics of one step, which need not be finished."""
    self._waiting.append(metrics)

  def add_up(self, num_running: int) -> bool:
    """Adds up finished steps, if they are `CHECK_STEPS`, and then says whether loss and gradient were finite in all.

    Args:
      num_running: how many of the last steps may not be finished; they are left for later.
    """
    if len(self._waiting) - num_running < CHECK_STEPS:
      return True
    self._fold(len(self._waiting) - num_running)
    return all(bool(np.isfinite(self._sums[key]).all()) for key in ("loss", "grad_norm"))

  def take(self) -> dict[str, float]:
    """The means over all steps since the last call; waits for those that run."""
    self._fold(len(self._waiting))
    means = mean(self._sums)
    self._sums = {}
    return means

  def _fold(self, count: int) -> None:
    done, self._waiting = jax.device_get(self._waiting[:count]), self._waiting[count:]
    for metrics in done:
      for key, value in metrics.items():
        self._sums[key] = self._sums.get(key, np.zeros(2)) + value  # float64: no step is lost to rounding
