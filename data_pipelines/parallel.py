"""A pure function of an integer over a range, ahead of its consumer, results in order.

`OrderedMap` is for a training: threads or worker processes (grain). `in_order` is for one walk over a data set: threads,
without JAX, for what Pillow and the disk do without Python's lock.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar, cast

from prn_jax.errors import RUN_AGAIN, PrnError

T = TypeVar("T")
MAX_THREADS = 16
SHARED_MEMORY = "/dev/shm"
_OF_THE_GROUP = (signal.SIGINT, signal.SIGTERM)  # what a terminal or a scheduler sends to workers as well
_AHEAD = 4  # results per thread of `in_order` that may wait for the consumer


class WorkerError(PrnError):
  """Worker processes that cannot work here."""


class WorkerLostError(WorkerError):
  """A worker process that ended by itself; another start may fare better."""

  exit_code = RUN_AGAIN


def default_threads() -> int:
  """One per core that this process may use, at most 16: decoding and resizing release Python's lock."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return min(cores, MAX_THREADS)


@contextmanager
def in_order(make: Callable[[int], T], indices: Iterable[int], num_threads: int) -> Iterator[Iterator[T]]:
  """In the `with` block: `make(index)` for every index, in order, a few ahead of the consumer.

  An exception of `make` comes out at its place. Leaving the block waits for what has been started, not for the rest.
  (It is no plain generator: one that is dropped halfway would end its threads whenever it is collected, perhaps in one
  of them, which cannot wait for itself.)
  """
  pool = ThreadPoolExecutor(num_threads)
  try:
    yield _results(pool, make, indices, _AHEAD * num_threads)
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


class OrderedMap(Generic[T]):
  """`make(start)`, `make(start + 1)`, ... `make(stop - 1)` in this order, computed ahead.

  What comes out does not depend on threads, workers or buffer. Close it, or use it in a `with` statement; any thread
  may close it.

  Args:
    make: a pure function; with workers it must be picklable, and returns trees of arrays (they come by shared memory).
    start, stop: the range.
    num_threads: per process; 0 computes in the caller's thread when asked.
    buffer: results kept ready (per worker, with workers).
    num_workers: processes; 0 uses threads of this process alone. They are spawned: a script needs its
      `if __name__ == "__main__"`.
  """

  def __init__(
    self, make: Callable[[int], T], start: int, stop: int, *, num_threads: int, buffer: int, num_workers: int = 0
  ) -> None:
    import grain  # imports JAX (without starting it): not before it is needed

    # A buffer below the number of threads would leave some idle; grain's default of 500 would fill the memory.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(buffer, num_threads))
    results = grain.MapDataset.range(start, stop).map(make).to_iter_dataset(options)
    if num_workers:
      _allow_unparsed_flags()
      results = results.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=max(buffer, 1)),
        worker_init_fn=_start_worker,
      )
    self._starts_processes = num_workers > 0
    self._iterator: Any = iter(results)

  def __iter__(self) -> Iterator[T]:
    return self

  def __next__(self) -> T:
    if self._iterator is None:
      raise StopIteration
    try:
      with _held_back() if self._starts_processes else nullcontext():
        self._starts_processes = False
        return cast(T, next(self._iterator))
    except Exception as error:
      if self._iterator is None:  # another thread closed it meanwhile: what was waited for is cancelled
        raise StopIteration from None
      if found := re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error)):
        raise _lost(int(found[1])) from None
      raise

  def close(self) -> None:
    """Stops threads and processes; nothing more comes."""
    iterator, self._iterator = self._iterator, None
    close = getattr(iterator, "close", None)
    if close is not None:
      close()

  def __enter__(self) -> OrderedMap[T]:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()


@contextmanager
def _held_back() -> Iterator[None]:
  """Processes that are started here, or by threads that are, hear of no signal before `_start_worker` ignores it: Ctrl-C
  while they import would kill them with a traceback each. This process gets what comes meanwhile in another thread, as `prn`
  has one, or at the end."""
  if not hasattr(signal, "pthread_sigmask"):  # Windows
    yield
    return
  resource_tracker.ensure_running()  # its start would let them through again
  before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lost(code: int) -> WorkerLostError:
  how = f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"
  cause = ", as the system does when it is out of memory" if code == -signal.SIGKILL else ""
  return WorkerLostError(
    f"a worker process that makes batches {how}{cause}. Fewer workers, batches ahead or decoded images need less memory "
    "(config.data.workers, prefetch, cache_mb)."
  )


def _start_worker(number: int, count: int) -> None:
  """In a new worker: signals to the whole group are for its parent to act on, and it ends with its parent.

  A scheduler's SIGTERM, or Ctrl-C, reaches workers too; they would die while the parent still wants a batch. It stops
  them itself. A parent that is killed cannot, so that they watch it.
  """
  for one in _OF_THE_GROUP:
    signal.signal(one, signal.SIG_IGN)
  if hasattr(signal, "pthread_sigmask"):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)  # see `_held_back`; what waited is ignored, too
  parent = multiprocessing.parent_process()
  if parent is not None:
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
  parent.join()
  os._exit(1)


def _allow_unparsed_flags() -> None:
  """Grain's workers read an absl flag, which fails in programs that do not parse their command line with absl."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


def check_shared_memory(num_bytes: int, folder: str = SHARED_MEMORY) -> None:
  """Raises WorkerError where worker processes would be killed for lack of shared memory, without a word of why.

  Args:
    num_bytes: what all of them hold at once.
    folder: the place where the system keeps shared memory; without it (outside Linux) nothing is checked.
  """
  if not os.path.isdir(folder):
    return
  free = shutil.disk_usage(folder).free
  if free < num_bytes:
    raise WorkerError(
      f"worker processes hand over batches in shared memory and need {num_bytes / 2**20:,.0f} MiB of it; {folder} has "
      f"{free / 2**20:,.0f} MiB. Enlarge it (docker run --shm-size=8g), use fewer workers or a smaller prefetch, or "
      "threads alone (workers=0)."
    )
