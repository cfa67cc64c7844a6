"""Which records make which rows of which batch, and how they become arrays: pure functions of the position.

Positions count the images of a run: image 0 is the first of epoch 0, image n (the number of records, of a data set
without weights) the first of epoch 1. A group is as many images in a row as the augmentation mixes (4 for a mosaic); a batch is a number of groups.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS, Sample
from prn_jax.data_pipelines.feed.decoding import SampleMemory, make_sample
from prn_jax.data_pipelines.images.channels import seen_in
from prn_jax.data_pipelines.joined import Draws
from prn_jax.data_pipelines.prepared.shrink import image_problem
from prn_jax.data_pipelines.records import DataError, Dataset, OnBadData, Problem, Record, image_name
from prn_jax.errors import BucketError, PrnError

Batch = dict[str, np.ndarray]
Size = tuple[int, int]

REDUCTIONS = (8, 4, 2)  # by which a JPEG can be decoded smaller

# Every use of randomness has its own stream of the seed.
ORDER_STREAM, AUGMENT_STREAM, SIZE_STREAM = 0, 1, 2


class Augment(Protocol):
  """What the pipeline asks of an augmentation; `augment.DetectionAugment` and `ClassificationAugment` are two."""

  @property
  def group_size(self) -> int:
    """Number of images that are mixed with one another."""
    ...

  def apply(self, group: Sequence[Sample], size: Size, rng: np.random.Generator) -> list[Sample]:
    """As many samples of `size` (width, height) as came in, a function of the arguments alone."""
    ...

  def largest_zoom(self, image_size: Size, size: Size) -> float:
    """How many pixels of an output of `size` come to lie on one of an image of `image_size`, along either axis, at most.

    What is above 1 is enlarged. It halves where the image's sides double; infinity where nothing limits it.
    """
    ...


@dataclass(frozen=True)
class DecodeSize:
  """How large an image must be decoded for an augmentation: so that what it shows is never enlarged, if the file has it.

  Attributes:
    augment: its strongest zoom counts.
    size: (width, height) of the largest output.
    margin: how many times `size` is left at least of the whole image, too.
  """

  augment: Augment
  size: Size
  margin: float

  def __call__(self, width: int, height: int) -> Size:
    """(width, height) in pixels that must be left of an image of this size: all of it, 1/2, 1/4 or 1/8."""
    whole = max(self.size[0] / width, self.size[1] / height)
    zoom = max(self.augment.largest_zoom((width, height), self.size), self.margin * whole)
    reduction = next((by for by in REDUCTIONS if by * zoom <= 1 + 1e-9), 1)
    return max(1, width // reduction), max(1, height // reduction)


@dataclass(frozen=True)
class Overflow:
  """An image with more objects than `max_boxes`."""

  record_index: int
  num_objects: int


@dataclass(frozen=True)
class Rows:
  """Some rows of a batch, not yet stacked.

  Attributes:
    samples: augmented, all of one size.
    record_indices: the record of every row; of mixed images, rows of a group hold the records of the group.
    truths: (max_boxes, 5) float32 for every row; empty in classification.
    problems: record index and what is wrong with it, of records that were replaced.
    overflows: images that lost objects.
    error: what stops the run, in which case there are no samples.
  """

  samples: tuple[Sample, ...] = ()
  record_indices: tuple[int, ...] = ()
  truths: tuple[NDArray[np.float32], ...] = ()
  problems: tuple[tuple[int, Problem], ...] = ()
  overflows: tuple[Overflow, ...] = ()
  error: PrnError | None = None


class EpochOrder:
  """The record at every position: each epoch has its own permutation, a function of (seed, epoch).

  Of sets that are joined with weights, an epoch draws as many images of each as `Draws` says.

  grain's own shuffle is not used: its epoch e of seed s is its epoch 0 of seed s + e, so that runs of neighbouring
  seeds see the same orders, and it takes milliseconds an image for data sets of a few images.
  """

  def __init__(self, draws: Sequence[Draws], seed: int) -> None:
    self.draws, self.seed = tuple(draws), seed
    self.per_epoch = sum(one.per_epoch for one in self.draws)
    self._permutations: dict[int, NDArray[np.int64]] = {}
    self._lock = threading.Lock()

  def record_at(self, position: int) -> int:
    epoch, offset = divmod(position, self.per_epoch)
    permutation = self._permutations.get(epoch)
    if permutation is None:
      permutation = self._remember(epoch)
    return int(permutation[offset])

  def _remember(self, epoch: int) -> NDArray[np.int64]:
    with self._lock:
      if epoch not in self._permutations:
        rng = np.random.default_rng((self.seed, ORDER_STREAM, epoch))
        # Threads near the end of an epoch ask for two of them in turn; older ones are never asked for again.
        kept = sorted(self._permutations)[-1:]
        self._permutations = {key: self._permutations[key] for key in kept} | {epoch: self._permutation(rng)}
      return self._permutations[epoch]

  def _permutation(self, rng: np.random.Generator) -> NDArray[np.int64]:
    if all(one.weight == 1 for one in self.draws):
      return rng.permutation(self.per_epoch)
    firsts = accumulate((one.count for one in self.draws[:-1]), initial=0)
    return rng.permutation(
      np.concatenate([first + one.indices(rng) for first, one in zip(firsts, self.draws, strict=True)])
    )

  def __reduce__(self) -> tuple[type[EpochOrder], tuple[tuple[Draws, ...], int]]:
    return EpochOrder, (self.draws, self.seed)


@dataclass(frozen=True)
class GroupMaker:
  """Makes the rows of any group of the run.

  Attributes:
    dataset, augment: what is read, and what becomes of it.
    order: which record stands at which position.
    seed: the seed of the augmentation.
    max_boxes: rows of a truth.
    decode_size: how small images may be decoded; None is in full.
    on_bad_data: whether a record that cannot be used stops the run or is replaced.
    memory: keeps decoded samples.
    channels: number of channels of the network: 3, or 1 for grey.
  """

  dataset: Dataset
  augment: Augment
  order: EpochOrder
  seed: int
  max_boxes: int
  decode_size: DecodeSize | None
  on_bad_data: OnBadData
  memory: SampleMemory
  channels: int = 3

  def rows(self, group: int, size: Size) -> Rows:
    """The rows of one group.

    Args:
      group: counts the groups of the run.
      size: (width, height) of the images.
    """
    count = self.augment.group_size
    samples: list[Sample] = []
    indices: list[int] = []
    problems: list[tuple[int, Problem]] = []
    for position in range(group * count, (group + 1) * count):
      try:
        sample, index = self._sample(position, problems)
      except (DataError, BucketError) as error:
        return Rows(error=error)
      samples.append(sample)
      indices.append(index)
    rng = np.random.default_rng((self.seed, AUGMENT_STREAM, group))
    outputs = self.augment.apply(samples, size, rng)
    _check_outputs(outputs, count, size)
    truths: list[NDArray[np.float32]] = []
    overflows: list[Overflow] = []
    for index, output in zip(indices, outputs, strict=True):
      if output.label is None:
        truth, num_objects = truth_rows(output, self.max_boxes, rng)
        truths.append(truth)
        if num_objects > self.max_boxes:
          overflows.append(Overflow(index, num_objects))
    # Augmentation works on three channels; those of a grey image are equal, but for noise, of which one is enough.
    samples = [replace(output, image=output.image[..., : self.channels]) for output in outputs]
    return Rows(tuple(samples), tuple(indices), tuple(truths), tuple(problems), tuple(overflows))

  def _sample(self, position: int, problems: list[tuple[int, Problem]]) -> tuple[Sample, int]:
    """The sample at a position, or the next one of its epoch (from the end on to its start) that can be used."""
    per_epoch = self.order.per_epoch
    epoch, offset = divmod(position, per_epoch)
    for attempt in range(per_epoch):
      index = self.order.record_at(epoch * per_epoch + (offset + attempt) % per_epoch)
      found = self.memory.get(index, self._read)
      if isinstance(found, Sample):
        return found, index
      problems.append((index, found))
    raise DataError(f"none of the {per_epoch} images can be used, the first because {problems[0][1].reason}.")

  def _read(self, index: int) -> Sample | Problem:
    record: Record | None = None
    try:
      record = self.dataset[index]
      sample = make_sample(record, self.decode_size)
    except BucketError:  # nothing is known of the image
      raise
    except PrnError as error:
      if self.on_bad_data is OnBadData.STOP:
        raise DataError(stop_text(error, index)) from None
      return unusable(record, index, error)
    image = seen_in(sample.image, self.channels)
    image.setflags(write=False)
    return replace(sample, image=image)


def stop_text(error: Exception, index: int) -> str:
  """The message of the policy stop: which record, what is wrong, what to do."""
  return (
    f"record {index}: {error} Repair or remove it, or leave such images out, counted and listed, with "
    "on_bad_data='skip' (--on-bad-data skip)."
  )


def unusable(record: Record | None, index: int, error: PrnError) -> Problem:
  """What goes into the list under the policy skip; a record that could not be read is named by its number."""
  return image_problem(error, record, f"record {index}" if record is None else image_name(record))


def _check_outputs(outputs: Sequence[Sample], count: int, size: Size) -> None:
  shapes = [output.image.shape for output in outputs]
  if len(outputs) != count or any(shape != (size[1], size[0], 3) for shape in shapes):
    raise ValueError(f"the augmentation gave images of shapes {shapes}; expected {count} of {(size[1], size[0], 3)}")


def truth_rows(sample: Sample, max_boxes: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], int]:
  """The objects of an image as the losses read them.

  Args:
    sample: boxes in pixels of its image; boxes without area or centred on the left edge are left out, because a row
      that starts with 0 ends the list.
    max_boxes: number of rows; of more objects a random choice is kept, so that no kind of object is always lost.
      Ignored regions get the rows that are left, the largest first.
    rng: drawn from only if there are too many objects.

  Returns:
    (max_boxes, 5) float32: centre x, y, width, height relative to the image, class, unused rows 0; and the number of
    objects that there were.
  """
  height, width = sample.image.shape[:2]
  boxes = np.clip(sample.boxes_xyxy_px / np.array([width, height] * 2, np.float32), 0, 1)
  lower, upper = boxes[:, :2], boxes[:, 2:]
  rows = np.concatenate([(lower + upper) / 2, upper - lower, sample.classes[:, None].astype(np.float32)], axis=1)
  rows = rows[(rows[:, 2] > 0) & (rows[:, 3] > 0)]
  is_region = rows[:, 4] == IGNORED_CLASS
  rows, regions = rows[~is_region], rows[is_region]
  num_objects = len(rows)
  if num_objects > max_boxes:
    rows = rows[np.sort(rng.choice(len(rows), max_boxes, replace=False))]
  if len(regions):
    largest = regions[np.argsort(-regions[:, 2] * regions[:, 3], kind="stable")]
    rows = np.concatenate([rows, largest[: max_boxes - len(rows)]])
  truth = np.zeros((max_boxes, 5), np.float32)
  truth[: len(rows)] = rows
  return truth, num_objects


def _annotated(samples: Sequence[Sample]) -> NDArray[np.uint8]:
  """(n, classes), 1 for what is annotated in an image."""
  num_classes = next(len(sample.annotated) for sample in samples if sample.annotated is not None)
  everything = np.ones(num_classes, np.bool_)
  known = [everything if sample.annotated is None else sample.annotated for sample in samples]
  return np.stack(known).astype(np.uint8)


def stack(groups: Sequence[Rows]) -> Batch:
  """The arrays of a batch from its groups, in order.

  Raises:
    DataError: a group holds an error, or some images have a label and some have none.
  """
  for rows in groups:
    if rows.error:
      raise rows.error
  samples = [sample for rows in groups for sample in rows.samples]
  batch: Batch = {
    "image": np.stack([sample.image for sample in samples]),
    "index": np.array([index for rows in groups for index in rows.record_indices], np.int32),
  }
  labels = [sample.label for sample in samples if sample.label is not None]
  if not labels:
    batch["truth"] = np.stack([truth for rows in groups for truth in rows.truths])
    if any(sample.annotated is not None for sample in samples):
      batch["annotated"] = _annotated(samples)
  elif len(labels) == len(samples):
    batch["label"] = np.array(labels, np.int32)
  else:
    raise DataError(
      f"{len(labels)} of {len(samples)} images of a batch have a label of the whole image, the others have none. "
      "Expected all of them (classification) or none (detection)."
    )
  return batch
