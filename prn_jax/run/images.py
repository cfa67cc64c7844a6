"""Images in any form -> results: what `model(images)` and `prn predict` share."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.classify.classification import Classification
from prn_jax.data_pipelines import images
from prn_jax.data_pipelines.images import inputs
from prn_jax.detect.detections import Detections
from prn_jax.errors import BucketError, PrnError, did_you_mean
from prn_jax.run.classifier import Classifier
from prn_jax.run.detector import DetectOptions, Detector

if TYPE_CHECKING:
  from prn_jax.model import Model
  from prn_jax.run.inference import Inference

Result = Detections | Classification
BATCH_SIZES = (1, 2, 4, 8)  # of `model(images)`; a list of 5 runs as one of 8
DECODE_THREADS = min(4, os.cpu_count() or 1)
PAUSE, _END = object(), object()


def is_detector(model: Model) -> bool:
  return model.graph.detects


def options(model: Model, given: Mapping[str, Any]) -> DetectOptions | None:
  """`DetectOptions` from keyword arguments; PrnError names an unknown one. None for a classifier."""
  known = [field.name for field in dataclasses.fields(DetectOptions)]
  for name in given:
    if name not in known or not is_detector(model):
      expected = f"expected {', '.join(known)}" if is_detector(model) else "a classifier has none"
      raise PrnError(f"unknown option '{name}'{did_you_mean(name, known)}; {expected}.")
  return DetectOptions(**given) if is_detector(model) else None


def predictor(
  model: Model,
  options: DetectOptions | None = None,
  batch_sizes: int | Sequence[int] = 1,
  network: Inference | None = None,
) -> Detector | Classifier:
  """A detector, or a classifier for a network without detection heads; arguments as of `Detector`."""
  if is_detector(model):
    return Detector(model, options, batch_sizes, network)
  return Classifier(model, batch_sizes, network)


def batch_sizes(batch_size: int | None) -> tuple[int, ...]:
  """Sizes for which programs are compiled: the one that was asked for, else `BATCH_SIZES`."""
  if batch_size is None:
    return BATCH_SIZES
  if batch_size < 1:
    raise PrnError(f"batch_size={batch_size}; expected at least 1.")
  return (batch_size,)


def is_many(images: Any) -> bool:
  """Whether these are several images: a folder, a pattern, an array (n, h, w, c), a list or anything to iterate over."""
  if isinstance(images, str | os.PathLike):
    return inputs.is_several(images)
  if hasattr(images, "ndim"):
    return int(images.ndim) == 4
  return (
    isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | memoryview) and not _is_file(images)
  )


def each(images: Any) -> Iterator[Any]:
  """The single images of what `is_many`; folders and patterns, also among others, give theirs."""
  for image in [images] if isinstance(images, str | os.PathLike) else images:
    if isinstance(image, str | os.PathLike) and inputs.is_several(image):
      yield from inputs.expand([image])
    else:
      yield image


def read(source: Any) -> tuple[np.ndarray, str | None]:
  """One image in any form -> ((h, w, 3) uint8 RGB, its path or None).

  Args:
    source: a path, a URL, encoded bytes, an open file, a PIL image, or an array: uint8, or float in [0, 1]; (h, w, 3)
      RGB, or (h, w) or (h, w, 1) grey.

  Raises:
    PrnError: it cannot be read, or the array is of another form.
  """
  if isinstance(source, str) and inputs.is_url(source):
    return images.read_image(inputs.fetch(source), name=source), source
  if isinstance(source, str | os.PathLike):
    return images.read_image(source), os.fspath(source)
  if isinstance(source, bytes | bytearray | memoryview):
    return images.read_image(bytes(source)), None
  if _is_file(source):
    return _read_file(source)
  if hasattr(source, "convert"):  # a PIL image
    return np.array(source.convert("RGB")), getattr(source, "filename", None) or None
  if not hasattr(source, "__array__") and not isinstance(source, list | tuple):
    raise PrnError(
      f"{source!r:.60} ({type(source).__name__}) is no image; expected a path, URL, bytes, open file, PIL image or array"
      f"{'. OpenCV gives None for a file that it cannot read' if source is None else ''}."
    )
  return _array(np.asarray(source)), None


def _is_file(source: Any) -> bool:
  return hasattr(source, "read") and not hasattr(source, "convert")


def _read_file(file: Any) -> tuple[np.ndarray, str | None]:
  """The image in an open file, from where it stands to its end."""
  name, data = getattr(file, "name", None), file.read()
  path = name if isinstance(name, str) else None
  if not isinstance(data, bytes):
    raise PrnError(f"file '{path or file!r}' is open as text; open it as bytes: open(path, 'rb').")
  if not data:
    raise PrnError(f"file '{path or file!r}' has no bytes left to read. Was it read before? Then file.seek(0).")
  return images.read_image(data, name=path), path


def _array(array: np.ndarray) -> np.ndarray:
  if array.ndim == 2:
    array = array[..., None]
  if array.ndim == 3 and array.shape[2] == 1:
    array = np.repeat(array, 3, -1)
  if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
    raise PrnError(
      f"image array of shape {array.shape}; expected (height, width, 3) RGB, or (height, width) or "
      "(height, width, 1) grey."
    )
  if array.dtype == np.uint8:
    return array
  if np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1:
    return np.round(array * 255).astype(np.uint8)
  raise PrnError(
    f"image array of {array.dtype} with values {array.min():.4g} to {array.max():.4g}; expected uint8, or float in [0, 1]."
  )


@dataclasses.dataclass(frozen=True)
class Failure:
  """An image that could not be used, and why."""

  path: str
  reason: str


def stream(
  run: Detector | Classifier, sources: Iterable[Any], *, keep_images: bool = True
) -> Iterator[Result | Failure]:
  """Results of many images, in order. The next images are decoded and resized, in threads, while the network works
  on these.

  Args:
    run: see `predictor`.
    sources: images in any form that `read` takes; asked for three batches ahead, and not kept. `PAUSE` among them: there
      is none at the moment, and those that came before are not to wait for it.
    keep_images: results hold their image, for drawing.
  """
  waiting = iter(sources)
  pending: deque[Future[_Ready | Failure]] = deque()
  with ThreadPoolExecutor(DECODE_THREADS) as pool:

    def ask(count: int) -> bool:
      """Whether there may be more."""
      for _ in range(count):
        source = next(waiting, _END)
        if source is _END or source is PAUSE:
          return source is PAUSE
        pending.append(pool.submit(_ready, run, source, keep_images))
      return True

    has_more = ask(2 * run.batch_size)
    while pending or has_more:
      has_more = has_more and ask(run.batch_size)
      if not pending:
        continue
      loaded = [pending.popleft().result() for _ in range(min(run.batch_size, len(pending)))]
      good = [one for one in loaded if isinstance(one, _Ready)]
      if isinstance(run, Detector):
        run.timing.resize += sum(one.resize_sec for one in good)
      found: Iterator[Result] = iter(
        run.results([one.prepared for one in good], [one.image for one in good], [one.path for one in good])
        if good
        else []
      )
      for one in loaded:
        yield one if isinstance(one, Failure) else next(found)


@dataclasses.dataclass(frozen=True)
class _Ready:
  """An image at the size of the network."""

  prepared: Any
  image: np.ndarray | None
  path: str | None
  resize_sec: float


def _ready(run: Detector | Classifier, source: Any, keep_image: bool) -> _Ready | Failure:
  try:
    image, path = read(source)
  except BucketError:  # nothing is known of the image
    raise
  except PrnError as error:
    where = os.fspath(source) if isinstance(source, str | os.PathLike) else "an image in memory"
    return Failure(where, str(error))
  began = time.perf_counter()
  prepared = run.prepare(image)
  return _Ready(prepared, image if keep_image else None, path, time.perf_counter() - began)
