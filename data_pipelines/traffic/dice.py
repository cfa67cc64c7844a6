"""Random numbers that are the same on every platform and with every version of NumPy.

NumPy guarantees the raw stream of a bit generator, but not how `Generator.integers` or `normal` use it (NEP 19).
So the raw 64-bit words are drawn here, and turned into numbers with integer or exact float arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK_WORDS = 512


class Dice:
  """The random numbers of one scene.

  Args:
    key: non-negative integers; equal keys give equal sequences, others independent ones.
  """

  def __init__(self, *key: int) -> None:
    self._bits = np.random.PCG64(np.random.SeedSequence(key))
    self._words: list[int] = []

  def _word(self) -> int:
    if not self._words:
      self._words = self._bits.random_raw(_BLOCK_WORDS).tolist()
    return self._words.pop()

  def uniform(self, low: float, high: float) -> float:
    """A float in [low, high)."""
    return low + (high - low) * ((self._word() >> 11) * 2.0**-53)

  def between(self, low: int, high: int) -> int:
    """An integer in [low, high], both included."""
    return low + ((self._word() >> 32) * (high - low + 1) >> 32)

  def chance(self, share: float) -> bool:
    """True with probability `share`."""
    return self.uniform(0.0, 1.0) < share

  def pick(self, items: Sequence[T]) -> T:
    """One of the items, each with the same probability."""
    return items[self.between(0, len(items) - 1)]

  def weighted(self, weights: Sequence[float]) -> int:
    """An index, with probability proportional to its weight."""
    ball = self.uniform(0.0, sum(weights))
    for i, weight in enumerate(weights):
      ball -= weight
      if ball < 0:
        return i
    return len(weights) - 1

  def bytes(self, count: int) -> np.ndarray:
    """`count` random bytes as uint8, the same on little- and big-endian machines."""
    words = self._bits.random_raw(-(-count // 8)).astype("<u8")
    return words.view(np.uint8)[:count]
