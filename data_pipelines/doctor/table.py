"""A data set in columns, and the look at each of its images: what `prn data inspect` and the doctor have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.images import ImageError
from prn_jax.data_pipelines.parallel import default_threads, in_order
from prn_jax.data_pipelines.prepared.shrink import image_problem
from prn_jax.data_pipelines.records import DataError, Dataset, Problem, ProblemLog, Record, Task
from prn_jax.data_pipelines.sources.arrayrecord import ArrayRecordDataset

Floats = NDArray[np.float64]
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Seen(Generic[T]):
  """An entry of a data set: its position, its record (images in memory are taken out), and what was seen of its image;
  None where that cannot be used."""

  index: int
  record: Record
  image: T | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
  """One data set. n images, m objects.

  Attributes:
    spec: the SPEC that it was opened by.
    names: the names of the classes.
    task: the task of the data set.
    indices: (n,) positions in the data set.
    image_ids: n.
    labels: (n,) class of the image; -1 for detection.
    image_of: (m,) which image an object is in, 0..n-1; ascending.
    classes: (m,) of the objects.
    boxes_xyxy_px: (m, 4) corners.
    is_crowd, is_difficult: (m,).
    problems: what the source and the look at the images left out.
  """

  spec: str
  names: tuple[str, ...]
  task: Task
  indices: NDArray[np.int64]
  image_ids: tuple[int | str, ...]
  labels: NDArray[np.int64]
  image_of: NDArray[np.int64]
  classes: NDArray[np.int64]
  boxes_xyxy_px: Floats
  is_crowd: NDArray[np.bool_]
  is_difficult: NDArray[np.bool_]
  problems: tuple[Problem, ...]

  def __len__(self) -> int:
    return len(self.image_ids)

  @property
  def is_classification(self) -> bool:
    return self.task is Task.CLASSIFY

  @functools.cached_property
  def objects_per_image(self) -> NDArray[np.int64]:
    return np.bincount(self.image_of, minlength=len(self))

  @functools.cached_property
  def box_sizes_wh_px(self) -> Floats:
    return self.boxes_xyxy_px[:, 2:] - self.boxes_xyxy_px[:, :2]


def columns(spec: str, dataset: Dataset, seen: Sequence[Seen[Any]], problems: Sequence[Problem]) -> dict[str, Any]:
  """The fields of a `Table` of the images that were seen; of problems, those of the look at them."""
  records = [item.record for item in seen]
  return {
    "spec": spec,
    "names": dataset.names,
    "task": dataset.task,
    "indices": np.array([item.index for item in seen], np.int64),
    "image_ids": tuple(record.image_id for record in records),
    "labels": np.array([-1 if record.label is None else record.label for record in records], np.int64),
    "image_of": np.repeat(np.arange(len(records)), [len(record.classes) for record in records]),
    "classes": joined([record.classes for record in records], np.zeros(0, np.int64)),
    "boxes_xyxy_px": joined([record.boxes_xyxy_px for record in records], np.zeros((0, 4))),
    "is_crowd": joined([record.is_crowd for record in records], np.zeros(0, np.bool_)),
    "is_difficult": joined([record.is_difficult for record in records], np.zeros(0, np.bool_)),
    "problems": (*dataset.problems, *problems),  # those of sources that read as they go are complete now
  }


def joined(arrays: Sequence[NDArray[Any]], none: NDArray[Any]) -> NDArray[Any]:
  """The rows of all arrays in the type of `none`, which is what there is without any."""
  return np.concatenate([none, *arrays]).astype(none.dtype)


def looked_at(
  dataset: Dataset,
  spec: str,
  see: Callable[[Record], T],
  *,
  shards: ProblemLog | None = None,
  num_threads: int | None = None,
  progress: Progress | None = None,
) -> Generator[tuple[Seen[T] | None, Problem | None]]:
  """Looks at every entry, in threads and in order.

  Args:
    dataset: any.
    spec: what names images in memory.
    see: gives what is wanted of the image of a record; may raise ImageError or DataError.
    shards: gets the faults of the checksums of prepared data, which are looked at first.
    num_threads: by default one per core.
    progress: passes images on, to show how far they are; also gets their number.

  Yields:
    An entry whose record could be read, and why its image or record cannot be used.
  """
  if shards is not None and isinstance(dataset, ArrayRecordDataset):
    dataset.check_shards(shards)
  one = functools.partial(_look, dataset, spec, see)
  with in_order(one, range(len(dataset)), num_threads or default_threads()) as results:
    yield from progress(results, len(dataset)) if progress else results


def _look(dataset: Dataset, spec: str, see: Callable[[Record], T], index: int) -> tuple[Seen[T] | None, Problem | None]:
  record = None
  try:
    record = dataset[index]
    return Seen(index, _light(record), see(record)), None
  except (ImageError, DataError) as error:
    entry = None if record is None else Seen[T](index, _light(record), None)
    return entry, image_problem(error, record, spec)


def _light(record: Record) -> Record:
  return replace(record, image=b"") if isinstance(record.image, bytes) else record
