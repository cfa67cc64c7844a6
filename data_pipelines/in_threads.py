"""A function over a range in threads, results in order: for work that Pillow and the disk do without Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
AHEAD = 4  # results per thread that may wait for the consumer


@contextmanager
def in_order(make: Callable[[int], T], indices: Iterable[int], num_threads: int) -> Iterator[Iterator[T]]:
  """In the `with` block: `make(index)` for every index, in order, a few ahead of the consumer.

  An exception of `make` comes out at its place. Leaving the block waits for what has been started, not for the rest.
  (It is no plain generator: one that is dropped halfway would end its threads whenever it is collected, perhaps in one
  of them, which cannot wait for itself.)
  """
  pool = ThreadPoolExecutor(num_threads)
  try:
    yield _results(pool, make, indices, AHEAD * num_threads)
  finally:
    pool.shutdown(cancel_futures=True)


def _results(pool: ThreadPoolExecutor, make: Callable[[int], T], indices: Iterable[int], ahead: int) -> Iterator[T]:
  waiting: deque[Future[T]] = deque()
  for index in indices:
    waiting.append(pool.submit(make, index))
    if len(waiting) >= ahead:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()
