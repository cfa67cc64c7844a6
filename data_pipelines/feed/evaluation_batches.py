"""Evaluation batches: every record exactly once over all processes, in batches of one static shape."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines import images
from prn_jax.data_pipelines.feed.batching import Batch, Size, stop_text, unusable
from prn_jax.data_pipelines.image_sizes import check_stated_size
from prn_jax.data_pipelines.images import Placement, Resize
from prn_jax.data_pipelines.images.channels import to_channels
from prn_jax.data_pipelines.parallel import OrderedMap, default_threads
from prn_jax.data_pipelines.records import DataError, Dataset, ImageId, OnBadData, Problem, Record, Task, image_name
from prn_jax.errors import BucketError, PrnError

_LOG = logging.getLogger(__name__)
PADDING = -1


@dataclass(frozen=True)
class _Row:
  index: int
  image_id: ImageId | None = None
  seconds: float = 0.0
  image: NDArray[np.float32] | None = None
  placement: Placement | None = None
  label: int | None = None
  problem: Problem | None = None
  error: PrnError | None = None


def placement_of(values: np.ndarray, size: Size) -> Placement:
  """The placement of a row of "placement"; `size` is (width, height) of the network input."""
  width, height, *rest = (float(value) for value in values)
  return Placement(int(width), int(height), size[0], size[1], *rest)


def _placement_values(placement: Placement) -> tuple[float, ...]:
  at = placement
  return at.image_width, at.image_height, at.scale_x, at.scale_y, at.offset_x, at.offset_y


def num_eval_batches(num_records: int, batch_size: int) -> int:
  """Batches of an evaluation; the same on every process, as collective operations need."""
  return -(-num_records // batch_size)


def indices_of_process(
  num_records: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> NDArray[np.int32]:
  """Which record stands in which row of the batches of one process.

  Args:
    num_records: number of records of the data set.
    batch_size: over all processes, a multiple of their number.

  Returns:
    (num_eval_batches, batch_size / process_count) int32; -1 is padding.
  """
  local = batch_size // process_count
  rows = np.arange(num_eval_batches(num_records, batch_size) * batch_size, dtype=np.int32)
  rows[num_records:] = PADDING
  return rows.reshape(-1, process_count, local)[:, process_index]


@dataclass(frozen=True)
class _RowMaker:
  dataset: Dataset
  indices: NDArray[np.int32]
  size: Size
  resize: Resize
  on_bad_data: OnBadData
  channels: int

  def __call__(self, position: int) -> _Row:
    index = int(self.indices[position])
    if index == PADDING:
      return _Row(PADDING)
    record: Record | None = None
    try:
      record = self.dataset[index]
      name = image_name(record)
      pixels = images.read_image(record.image, name=name)
      check_stated_size(record, name, (pixels.shape[1], pixels.shape[0]))
    except BucketError as error:  # nothing is known of the image
      return _Row(index, error=error)
    except PrnError as error:
      if self.on_bad_data is OnBadData.STOP:
        return _Row(index, error=DataError(stop_text(error, index)))
      return _Row(index, problem=unusable(record, index, error))
    began = time.perf_counter()
    image, placement = self.resize(to_channels(pixels, self.channels), *self.size)
    return _Row(index, record.image_id, time.perf_counter() - began, image, placement, record.label)


def eval_batches(
  dataset: Dataset,
  size: Size,
  *,
  batch_size: int,
  resize: Resize | str = Resize.STRETCH,
  channels: int = 3,
  process_index: int = 0,
  process_count: int = 1,
  on_bad_data: OnBadData | str = OnBadData.STOP,
  threads: int | None = None,
  prefetch: int = 2,
) -> EvalBatches:
  """Every record exactly once over all processes, decoded in full and resized as Darknet does.

  Args:
    dataset: annotated images.
    size: (width, height) of the network input in pixels.
    batch_size: over all processes, a multiple of their number.
    resize: "stretch", "letterbox" or "center_crop".
    channels: number of channels of the network: 3, or 1 for grey.
    process_index, process_count: which share is made here; all processes get equally many batches.
    on_bad_data: "stop" raises at an image that cannot be decoded or has another size than its annotations say (then
      truths and detections would be in different pixels), "skip" masks and lists it.
    threads: the field of `PipelineConfig`.
    prefetch: batches kept ready.

  Returns:
    An iterator of batches, to be closed or used in a `with` statement: "image" float32 (n, h, w, channels) in [0, 1]; "index"
    int32 (n,), the record, -1 in padding; "mask" bool (n,), False in padding and for images that cannot be used
    (policy skip); "placement" float32 (n, 6), see `placement_of`, 0 where the mask is False; "box_scale" float32 (n, 2),
    for `detect.nms.suppress`, 1 where the mask is False; and for classification "label" int32 (n,), -1 where the mask is
    False. Having given the last batch it checks that it gave each of its
    records once.

  Raises:
    DataError: an empty data set, an uneven split, an unknown way to resize; while iterating, an image that cannot be
      used (policy stop).
  """
  if resize not in list(Resize):
    raise DataError(f"resize is {resize!r}; expected one of {', '.join(Resize)}.")
  if not 0 <= process_index < process_count:
    raise ValueError(f"process {process_index} of {process_count}; expected 0 to {process_count - 1}")
  if batch_size < 1 or batch_size % process_count:
    near = max(batch_size // process_count, 1) * process_count
    raise DataError(
      f"batch_size {batch_size} cannot be split over {process_count} processes; expected a multiple of "
      f"{process_count}, such as {near}."
    )
  if len(dataset) < 1:
    raise DataError("the data set is empty; expected at least one image.")
  indices = indices_of_process(len(dataset), batch_size, process_index, process_count)
  maker = _RowMaker(dataset, indices.ravel(), size, Resize(resize), OnBadData(on_bad_data), channels)
  return EvalBatches(maker, indices.shape, default_threads() if threads is None else threads, prefetch)


class EvalBatches:
  """Iterator of batches; see `eval_batches`.

  Attributes:
    num_batches: the same on every process.
    num_records: records that this process gives.
    problems: images that could not be used so far (policy skip), of those that this process gives.
    image_ids: record -> id of its image, of those given so far that can be used.
    resize_sec: time that was spent on resizing, in all threads together.
  """

  def __init__(self, maker: _RowMaker, shape: tuple[int, ...], threads: int, prefetch: int) -> None:
    self.num_batches, self._local = shape
    self.num_records = int((maker.indices != PADDING).sum())
    self.problems: list[Problem] = []
    self.image_ids: dict[int, ImageId] = {}
    self.resize_sec = 0.0
    self._size, self._channels = maker.size, maker.channels
    self._has_labels = maker.dataset.task is Task.CLASSIFY
    self._times_seen = np.zeros(len(maker.dataset), np.int64)
    self._expected = np.bincount(maker.indices[maker.indices != PADDING], minlength=len(maker.dataset))
    self._done = 0
    self._rows = OrderedMap(maker, 0, maker.indices.size, num_threads=threads, buffer=prefetch * self._local)

  def __len__(self) -> int:
    return self.num_batches

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    if self._done == self.num_batches:
      self.close()
      self._check_complete()
      raise StopIteration
    rows = list(itertools.islice(self._rows, self._local))
    batch = self._stack(rows)
    self._done += 1
    if len(rows) < self._local:
      self._check_complete()
    return batch

  def close(self) -> None:
    """Stops the threads."""
    self._rows.close()

  def __enter__(self) -> EvalBatches:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def _stack(self, rows: list[_Row]) -> Batch:
    width, height = self._size
    image = np.zeros((len(rows), height, width, self._channels), np.float32)
    placement = np.zeros((len(rows), 6), np.float32)
    box_scale = np.ones((len(rows), 2), np.float32)
    for position, row in enumerate(rows):
      if row.error:
        self.close()
        raise row.error
      if row.problem is not None:
        self.problems.append(row.problem)
        _LOG.warning("%s. It is left out of the evaluation.", row.problem.reason)
      if row.image is not None:
        image[position] = row.image
      if row.placement is not None:
        placement[position] = _placement_values(row.placement)
        box_scale[position] = 1 / row.placement.scale_x, 1 / row.placement.scale_y
      if row.image_id is not None:
        self.image_ids[row.index] = row.image_id
      self.resize_sec += row.seconds
      if row.index != PADDING:
        self._times_seen[row.index] += 1
    batch: Batch = {
      "image": image,
      "index": np.array([row.index for row in rows], np.int32),
      "mask": np.array([row.image is not None for row in rows], np.bool_),
      "placement": placement,
      "box_scale": box_scale,
    }
    if self._has_labels:
      batch["label"] = np.array([PADDING if row.label is None else row.label for row in rows], np.int32)
    return batch

  def _check_complete(self) -> None:
    wrong = np.flatnonzero(self._times_seen != self._expected)
    if len(wrong):
      raise RuntimeError(
        f"the evaluation gave {self._times_seen.sum()} records, expected {self._expected.sum()}; record {wrong[0]} "
        f"came {self._times_seen[wrong[0]]} times, expected {self._expected[wrong[0]]}."
      )
