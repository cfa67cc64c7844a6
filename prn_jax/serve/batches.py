"""Requests that are open at the same time -> batches of the network, which runs in a thread of its own.

Nobody waits for a batch to fill: what has come while the network was busy is the next batch, so that a single request is
answered at once and a crowd is answered at the network's full speed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prn_jax.data_pipelines import images
from prn_jax.errors import PrnError
from prn_jax.model import Model
from prn_jax.run.detector import DetectOptions
from prn_jax.run.images import DECODE_THREADS, predictor
from prn_jax.run.inference import Inference

MOST_PREDICTORS = 64  # of options that clients have asked for


@dataclasses.dataclass(eq=False)
class _Waiting:
  """An image at the size of the network, and who waits for its boxes."""

  prepared: Any
  options: DetectOptions | None
  done: asyncio.Future[Any]


class Batches:
  """Images of many requests through one network.

  Args:
    model: with weights.
    options: how boxes are chosen where a request says nothing; None for a classifier.
    batch_sizes: see `ServeSettings.batch_sizes`.
    on_batch: told the number of images of every batch.
  """

  def __init__(
    self,
    model: Model,
    options: DetectOptions | None,
    batch_sizes: Sequence[int],
    on_batch: Callable[[int], None] = lambda count: None,
  ) -> None:
    self.model, self.options = model, options
    self._sizes, self._on_batch = tuple(batch_sizes), on_batch
    self._network = Inference(model)
    self._predictors: OrderedDict[DetectOptions | None, Any] = OrderedDict()
    self._own = self._predictor(options)
    self._queue: deque[_Waiting] = deque()
    self._came = asyncio.Event()
    self._runs = ThreadPoolExecutor(1, thread_name_prefix="network")
    self.decodes = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")

  @property
  def num_waiting(self) -> int:
    """Decoded images that the network has not begun with."""
    return len(self._queue)

  def compile(self) -> None:
    """Makes all programs, so that no request waits for them."""
    import numpy as np

    graph = self.model.graph
    grey = np.full((graph.height, graph.width, 3), 127, np.uint8)
    for size in self._sizes:
      self._own([grey] * size)

  async def __call__(self, data: bytes, options: DetectOptions | None) -> Any:
    """The result of one encoded image, without the image.

    Raises:
      PrnError: it cannot be read. RuntimeError: the network has failed.
    """
    loop = asyncio.get_running_loop()
    prepared = await loop.run_in_executor(self.decodes, self._prepared, data)
    waiting = _Waiting(prepared, options, loop.create_future())
    self._queue.append(waiting)
    self._came.set()
    return await waiting.done

  def _prepared(self, data: bytes) -> Any:
    return self._own.prepare(images.read_image(data))

  async def work(self) -> None:
    """Runs batches until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
      await self._came.wait()
      batch = self._next()
      if not batch:
        self._came.clear()
        continue
      self._on_batch(len(batch))
      try:
        run = self._predictor(batch[0].options)
        results = await loop.run_in_executor(self._runs, _results, run, [one.prepared for one in batch])
      except Exception as error:  # whatever it is, those who wait must learn of it; it is no fault of their photos
        fault = RuntimeError(str(error))
        fault.__cause__ = error
        for one in batch:
          _settle(one.done, fault)
      else:
        for one, result in zip(batch, results, strict=True):
          _settle(one.done, result)

  def close(self) -> None:
    """Ends the threads; what waits is not answered."""
    self._runs.shutdown(wait=False, cancel_futures=True)
    self.decodes.shutdown(wait=False, cancel_futures=True)

  def _next(self) -> list[_Waiting]:
    """The images that have waited longest and share their options; without those that nobody waits for any more."""
    batch: list[_Waiting] = []
    kept: list[_Waiting] = []
    while self._queue and len(batch) < self._sizes[-1]:
      one = self._queue.popleft()
      if one.done.done():
        continue
      (batch if not batch or one.options == batch[0].options else kept).append(one)
    self._queue.extendleft(reversed(kept))
    return batch

  def _predictor(self, options: DetectOptions | None) -> Any:
    """What runs with these options; all share the compiled network."""
    if options not in self._predictors:
      self._predictors[options] = predictor(self.model, options, self._sizes, self._network)
      if len(self._predictors) > MOST_PREDICTORS:
        self._predictors.popitem(last=False)
    self._predictors.move_to_end(options)
    return self._predictors[options]

  def with_options(self, **given: Any) -> DetectOptions | None:
    """The server's options with those of a request.

    Raises:
      PrnError: a value is out of its range, the network has no such class, or it classifies.
    """
    if not given:
      return self.options
    if self.options is None:
      raise PrnError(f"network '{self.model.graph.name}' classifies and takes no {', '.join(given)}.")
    options = dataclasses.replace(self.options, **given)
    self._predictor(options)  # refuses classes that there are not
    return options


def _results(run: Any, prepared: list[Any]) -> list[Any]:
  nothing = [None] * len(prepared)
  return list(run.results(prepared, nothing, nothing))


def _settle(done: asyncio.Future[Any], result: Any) -> None:
  """Gives a result or an error to who waits, unless they have left."""
  if done.done():
    return
  if isinstance(result, BaseException):
    done.set_exception(result)
  else:
    done.set_result(result)
