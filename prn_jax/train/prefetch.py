"""Batches on the devices before they are asked for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prn_jax.run.mesh import put_batch
from prn_jax.train.step import Batch

_END = object()


@contextlib.contextmanager
def on_devices(
  batches: Iterator[tuple[int, dict[str, np.ndarray]]], mesh: jax.sharding.Mesh, depth: int = 2
) -> Iterator[Iterator[tuple[int, Batch]]]:
  """Moves batches to the devices in a thread, `depth` ahead; errors come out where the batch would have.

  Args:
    batches: (step, this process's rows of the global batch).
    mesh: the devices that they go to.
    depth: batches that wait on the devices.

  Example:
    with on_devices(batches, mesh) as ready:
      for step, batch in ready: ...
  """
  waiting: queue.Queue[Any] = queue.Queue(depth)
  is_over = threading.Event()

  def put(item: Any) -> None:
    while not is_over.is_set():
      with contextlib.suppress(queue.Full):
        waiting.put(item, timeout=0.1)
        return

  def work() -> None:
    try:
      for step, batch in batches:
        put((step, put_batch(batch, mesh)))
        if is_over.is_set():
          return
      put(_END)
    except BaseException as error:  # whatever it is, the loop must hear of it
      put(error)

  def take() -> Iterator[tuple[int, Batch]]:
    while (item := waiting.get()) is not _END:
      if isinstance(item, BaseException):
        raise item
      yield item

  thread = threading.Thread(target=work, name="prefetch", daemon=True)
  thread.start()
  try:
    yield take()
  finally:
    is_over.set()
    thread.join()
