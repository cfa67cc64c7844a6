"""A function over a range in threads, results in order: for work that Pillow and the disk do without Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
AHEAD = 4  # results per thread that may wait for the consumer


def in_order(make: Callable[[int], T], indices: Iterable[int], num_threads: int) -> Iterator[T]:
  """`make(index)` for every index, in order, a few ahead of the consumer.

  An exception comes out at its place; whoever stops early waits for what has been started, not for the rest.
  """
  waiting: deque[Future[T]] = deque()
  pool = ThreadPoolExecutor(num_threads)
  try:
    for index in indices:
      waiting.append(pool.submit(make, index))
      if len(waiting) >= AHEAD * num_threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
