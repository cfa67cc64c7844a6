"""Training batches whose content is a pure function of (seed, step): the state of the pipeline is one integer.

    with train_batches(dataset, DetectionAugment(), PipelineConfig(seed=0, batch_size=64, sizes=((416, 416),))) as batches:
      for step, batch in batches:
        ...

Every epoch has its own order. Process p of P makes rows p*n/P to (p+1)*n/P of every batch of n; put together they are
the same bytes for any number of processes, threads and workers, and from any `start_step`. `batch_at` makes one batch
again, for example to show what was in it when a loss became infinite.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from prn_jax.data_pipelines.feed.batching import (
  SIZE_STREAM,
  Augment,
  Batch,
  DecodeSize,
  EpochOrder,
  GroupMaker,
  Overflow,
  Rows,
  Size,
  stack,
)
from prn_jax.data_pipelines.feed.decoding import SampleMemory
from prn_jax.data_pipelines.feed.evaluation_batches import EvalBatches, eval_batches
from prn_jax.data_pipelines.joined import draws_of
from prn_jax.data_pipelines.parallel import OrderedMap, check_shared_memory, default_threads
from prn_jax.data_pipelines.records import DataError, Dataset, OnBadData, Problem
from prn_jax.ranges import at_least, check

__all__ = [
  "Batch",
  "EvalBatches",
  "PipelineConfig",
  "PipelineReport",
  "TrainBatches",
  "batch_at",
  "darknet_sizes",
  "eval_batches",
  "size_of_step",
  "train_batches",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineConfig:
  """How batches are made.

  Only the fields of the first part change what is in them.

  Attributes:
    seed: the seed of order, augmentation and sizes, 0 or more.
    batch_size: images per step over all processes.
    sizes: (width, height) of the network input; several are multi-scale training, drawn every `resize_every` steps.
    resize_every: steps between two draws.
    largest_last_steps: this many last steps of a run of several sizes have the largest one, as in Darknet. The first
      `resize_every` steps have it too, so that a lack of memory shows at once.
    max_boxes: rows of "truth"; Darknet's `max`.
    channels: number of channels of the network: 3, or 1, for which images become grey before they are augmented.
    decode_margin: JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, which is faster, as long as that leaves this many
      times the largest of `sizes`, and the smallest crop of the augmentation has as many pixels as the network; 0
      always decodes in full.
    on_bad_data: "stop" raises at an image that cannot be decoded or has another size than its annotations say,
      "skip" puts the next one of the epoch in its place.
    threads: per process (or per worker); None is one per core, or 1 with workers; 0 works in the caller's thread.
    workers: processes; 0 uses threads alone, which is faster unless much of the work holds Python's lock.
    prefetch: batches kept ready.
    cache_mb: decoded images kept in memory, in MiB (of every worker); saves decoding where the data set is small.
  """

  seed: int = field(metadata=at_least(0))
  batch_size: int = field(metadata=at_least(1, "images per step over all processes"))
  sizes: tuple[Size, ...]
  resize_every: int = field(default=10, metadata=at_least(1, "steps between two draws of a size"))
  largest_last_steps: int = field(default=100, metadata=at_least(0, "steps at the end of a run with the largest size"))
  max_boxes: int = field(default=200, metadata=at_least(1, "rows of truth per image"))
  channels: int = 3
  decode_margin: float = field(
    default=1.5, metadata=at_least(0, "how many times the network's size must be left; 0 decodes in full")
  )
  on_bad_data: OnBadData | str = OnBadData.STOP

  threads: int | None = field(default=None, metadata=at_least(0, "0 works in the caller's thread"))
  workers: int = field(default=0, metadata=at_least(0, "0 uses threads alone"))
  prefetch: int = field(default=2, metadata=at_least(1, "batches kept ready"))
  cache_mb: int = field(default=0, metadata=at_least(0, "MiB of decoded images; 0 keeps none"))

  def __post_init__(self) -> None:
    _check_config(self)

  @property
  def largest_size(self) -> Size:
    return max(self.sizes, key=lambda size: size[0] * size[1])


def _check_config(config: PipelineConfig) -> None:
  check(config, DataError, "{} of the input pipeline")
  if not config.sizes or any(len(size) != 2 or min(size) < 1 for size in config.sizes):
    raise DataError(f"sizes of the input pipeline are {config.sizes}; expected as in ((416, 416), (608, 608)).")
  if config.on_bad_data not in list(OnBadData):
    raise DataError(f"on_bad_data is {config.on_bad_data!r}; expected 'stop' or 'skip'.")


def darknet_sizes(width: int, height: int, ratio: float = 1.4, multiple: int = 32) -> tuple[Size, ...]:
  """The sizes that Darknet's `random` draws from, for `PipelineConfig.sizes`.

  Args:
    width, height: size of the network in pixels.
    ratio: value of `random`; 1 stands for 1.4, as in Darknet.
    multiple: `resize_step`.

  Source: Darknet `detector.c:train_detector`; differs: a size is drawn from this list with equal chances.
  """
  ratio = 1.4 if ratio == 1 else ratio

  def scaled(side: int, by: float) -> int:
    return max(multiple, round(by * side / multiple + 1) * multiple)

  found = []
  for percent in range(round(100 / ratio), round(100 * ratio) + 1):
    by = percent / 100
    size = scaled(width, by), scaled(height, by)
    if by < 1:
      size = min(size[0], width), min(size[1], height)
    found.append(size)
  return tuple(dict.fromkeys(found))


def size_of_step(config: PipelineConfig, step: int, num_steps: int | None = None) -> Size:
  """(width, height) of the images of a step, the same for all processes.

  Args:
    config: see there.
    step: counted from 0.
    num_steps: length of the run, whose end has the largest size; None has no end.
  """
  if len(config.sizes) == 1:
    return config.sizes[0]
  is_last = num_steps is not None and step >= num_steps - config.largest_last_steps
  block = step // config.resize_every
  if is_last or block == 0:
    return config.largest_size
  rng = np.random.default_rng((config.seed, SIZE_STREAM, block))
  return config.sizes[int(rng.integers(len(config.sizes)))]


@dataclass(frozen=True)
class PipelineReport:
  """What happened to the data that this process has read so far.

  Attributes:
    problems: images that could not be used and were replaced (policy skip), each once.
    num_overflowing: images that had more objects than `max_boxes`.
    num_boxes_lost: objects they lost.
  """

  problems: tuple[Problem, ...] = ()
  num_overflowing: int = 0
  num_boxes_lost: int = 0


@dataclass(frozen=True)
class _Share:
  """The rows that one process makes of every batch."""

  maker: GroupMaker
  config: PipelineConfig
  num_steps: int | None
  groups_per_step: int
  first_group: int
  num_groups: int

  def group(self, number: int) -> Rows:
    """Group `number` of this process, counted over all steps."""
    step, group = divmod(number, self.num_groups)
    size = size_of_step(self.config, step, self.num_steps)
    return self.maker.rows(step * self.groups_per_step + self.first_group + group, size)

  def groups(self, step: int) -> list[Rows]:
    return [self.group(step * self.num_groups + group) for group in range(self.num_groups)]

  def batch(self, step: int) -> tuple[Batch, list[Rows]]:
    """The stacked batch, and the groups without what is in it; for worker processes."""
    groups = self.groups(step)
    error = next((rows for rows in groups if rows.error), None)
    if error is not None:
      return {}, [error]
    return stack(groups), [dataclasses.replace(rows, samples=(), truths=()) for rows in groups]


def _share(
  dataset: Dataset,
  augment: Augment,
  config: PipelineConfig,
  num_steps: int | None,
  process_index: int,
  process_count: int,
) -> _Share:
  if not 0 <= process_index < process_count:
    raise ValueError(f"process {process_index} of {process_count}; expected 0 to {process_count - 1}")
  if len(dataset) < 1:
    raise DataError("the data set is empty; expected at least one image.")
  unit = process_count * augment.group_size
  if config.batch_size % unit:
    near = sorted({max(config.batch_size // unit, 1) * unit, (config.batch_size // unit + 1) * unit})
    mixing = f", in groups of {augment.group_size} that are mixed" if augment.group_size > 1 else ""
    raise DataError(
      f"batch_size {config.batch_size} cannot be split over {process_count} processes{mixing}; expected a multiple "
      f"of {unit}, such as {' or '.join(map(str, near))}."
    )
  # Of all sizes, not the step's: a decoded image must not depend on the step, or keeping it would change results.
  width, height = (max(sides) for sides in zip(*config.sizes, strict=True))
  decode_size = DecodeSize(augment, (width, height), config.decode_margin) if config.decode_margin else None
  maker = GroupMaker(
    dataset,
    augment,
    EpochOrder(draws_of(dataset), config.seed),
    config.seed,
    config.max_boxes,
    decode_size,
    OnBadData(config.on_bad_data),
    SampleMemory(config.cache_mb * 2**20),
    config.channels,
  )
  groups_per_step = config.batch_size // augment.group_size
  num_groups = groups_per_step // process_count
  return _Share(maker, config, num_steps, groups_per_step, process_index * num_groups, num_groups)


def batch_at(
  dataset: Dataset,
  augment: Augment,
  config: PipelineConfig,
  step: int,
  num_steps: int | None = None,
  *,
  process_index: int = 0,
  process_count: int = 1,
) -> Batch:
  """The batch of one step, made again; arguments as for `train_batches`."""
  return stack(_share(dataset, augment, config, num_steps, process_index, process_count).groups(step))


def first_rows(
  dataset: Dataset, augment: Augment, config: PipelineConfig, rows: int, num_steps: int | None = None
) -> Batch:
  """The first rows of the first batch, at least so many where it has them; whole groups of mixed images.

  Raises:
    DataError: none of their images can be used.
  """
  share = _share(dataset, augment, config, num_steps, 0, 1)
  groups = [share.group(group) for group in range(min(share.num_groups, -(-rows // augment.group_size)))]
  kept = [group for group in groups if not group.error]
  if not kept:
    raise DataError(f"none of the first {rows} training images can be used.")
  return stack(kept)


def train_batches(
  dataset: Dataset,
  augment: Augment,
  config: PipelineConfig,
  *,
  start_step: int = 0,
  num_steps: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> TrainBatches:
  """Batches of augmented images, from any step on.

  Args:
    dataset: annotated images. With `config.workers` it must be picklable and open its files when first read.
    augment: `augment.DetectionAugment` or `ClassificationAugment`.
    config: see `PipelineConfig`.
    start_step: the number of the first batch; the state of the pipeline is this number.
    num_steps: length of the run, counted from step 0: the last batch is that of step num_steps - 1; None never ends.
    process_index, process_count: which share of every batch is made here.

  Returns:
    An iterator of (step, batch), to be closed or used in a `with` statement. A batch of n rows holds "image" uint8
    (n, h, w, channels), RGB or grey; "index" int32 (n,), the record of each row (mixed images hold all records of their group); and
    for detection "truth" float32 (n, max_boxes, 5): centre x, y, width, height relative to the image, class, with
    unused rows all 0, and rows of class -2 for regions in which nothing is learned, behind the objects; where the images
    are annotated for different classes, also "annotated" uint8 (n, classes). For classification "label" int32 (n,).

  Raises:
    DataError: an empty data set, a batch that cannot be split evenly; while iterating, an image that cannot be
      used (policy stop).
  """
  share = _share(dataset, augment, config, num_steps, process_index, process_count)
  stop = sys.maxsize // share.num_groups if num_steps is None else num_steps
  return TrainBatches(share, start_step, max(stop, start_step))


class TrainBatches:
  """Iterator of (step, batch); see `train_batches`."""

  def __init__(self, share: _Share, start: int, stop: int) -> None:
    config = share.config
    self._step, self._stop, self._num_groups = start, stop, share.num_groups
    self._problems: dict[int, Problem] = {}
    self._num_overflowing = self._num_boxes_lost = 0
    self._max_boxes = config.max_boxes
    threads = config.threads if config.threads is not None else 1 if config.workers else default_threads()
    self._batches: OrderedMap[tuple[Batch, list[Rows]]] | None = None
    self._groups: OrderedMap[Rows] | None = None
    if config.workers:
      # Whole batches per worker: their arrays come by shared memory, and stacking is done there.
      buffer = -(-config.prefetch // config.workers)
      width, height = config.largest_size
      num_rows = share.num_groups * share.maker.augment.group_size
      # Every worker fills its buffer and works on one more; one is in use.
      check_shared_memory((config.workers * (buffer + 1) + 1) * num_rows * width * height * config.channels)
      self._batches = OrderedMap(
        share.batch, start, stop, num_threads=threads, buffer=buffer, num_workers=config.workers
      )
    else:
      first, last = start * share.num_groups, stop * share.num_groups
      buffer = config.prefetch * share.num_groups
      self._groups = OrderedMap(share.group, first, last, num_threads=threads, buffer=buffer)

  def __iter__(self) -> Iterator[tuple[int, Batch]]:
    return self

  def __next__(self) -> tuple[int, Batch]:
    if self._step >= self._stop:
      self.close()
      raise StopIteration
    if self._batches is not None:
      batch, groups = next(self._batches)
      self._note(groups)
    else:
      groups = list(itertools.islice(self._groups or (), self._num_groups))
      if len(groups) < self._num_groups:  # closed, perhaps by another thread
        raise StopIteration
      self._note(groups)
      batch = stack(groups)
    self._step += 1
    return self._step - 1, batch

  @property
  def report(self) -> PipelineReport:
    """What was wrong with data so far."""
    return PipelineReport(tuple(self._problems.values()), self._num_overflowing, self._num_boxes_lost)

  def close(self) -> None:
    """Stops threads and processes; nothing more comes."""
    for stream in (self._batches, self._groups):
      if stream is not None:
        stream.close()
    self._batches = self._groups = None

  def __enter__(self) -> TrainBatches:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def _note(self, groups: Sequence[Rows]) -> None:
    for rows in groups:
      if rows.error:
        self.close()
        raise rows.error
      for index, problem in rows.problems:
        if index not in self._problems:
          self._problems[index] = problem
          _LOG.warning("%s. Another image takes its place.", problem.reason)
      for overflow in rows.overflows:
        self._note_overflow(overflow)

  def _note_overflow(self, overflow: Overflow) -> None:
    if not self._num_overflowing:
      _LOG.warning(
        "record %d has %d objects, max_boxes is %d: a random choice of them is kept. Further images are only counted.",
        overflow.record_index,
        overflow.num_objects,
        self._max_boxes,
      )
    self._num_overflowing += 1
    self._num_boxes_lost += overflow.num_objects - self._max_boxes
