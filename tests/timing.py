"""Limits of time that hold on a machine where other work takes turns, and in a process with a large heap."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIES = 4


def least_seconds(
  call: Callable[[], object], enough: float, clock: Callable[[], float] = time.process_time, tries: int = TRIES
) -> float:
  """The shortest time that `call` took in up to `tries` runs; the first that takes less than `enough` is the last.

  What is slow is slow each time; other work, a full cache or a collection of the garbage of other tests is not there
  each time. `clock` returns seconds: of this process by default, `time.perf_counter` where another process works.
  """
  least = float("inf")
  for _ in range(tries):
    start = clock()
    call()
    least = min(least, clock() - start)
    if least < enough:
      break
  return least
