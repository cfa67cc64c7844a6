"""Several data sets used as one: their classes by name, how often each is seen, and what each of them annotates."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.class_names import match_names
from prn_jax.data_pipelines.findings import Finding
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  ImageId,
  Problem,
  Record,
  RecordList,
  Renumbered,
  Task,
  source_notes,
)

LEFT_OUT = -1  # the new index of a class whose objects are left out


@dataclass(frozen=True)
class Draws:
  """How often the images of one set are drawn.

  Attributes:
    count: number of images.
    weight: draws of each in an epoch; of 2.5, every image is drawn twice and a random half of them once more.
  """

  count: int
  weight: float

  @property
  def per_epoch(self) -> int:
    whole, part = divmod(self.weight, 1)
    return int(whole) * self.count + round(part * self.count)

  def indices(self, rng: np.random.Generator) -> NDArray[np.int64]:
    """The images of one epoch, counted within the set."""
    whole = np.tile(np.arange(self.count), int(self.weight))
    return np.concatenate([whole, rng.choice(self.count, self.per_epoch - len(whole), replace=False)])


@dataclass(frozen=True)
class Part:
  """One of the sets.

  Attributes:
    dataset: its images.
    new_index: for each of its classes the place among all names; `LEFT_OUT`: its objects are left out.
    annotated: (all names,) bool, the classes of which it has a box for every object.
    weight: see `Draws`.
  """

  dataset: Dataset
  new_index: NDArray[np.int32]
  annotated: NDArray[np.bool_]
  weight: float = 1.0


class Joined:
  """Several sets as one `Dataset`; the images of each follow one another.

  Args:
    names: all classes.
    parts: the sets, of one task.
    notes: what is worth a look, beside the notes of the sets.

  Attributes:
    is_fully_annotated: whether every set annotates every class.

  Raises:
    DataError: boxes and labels of whole images are mixed.
  """

  def __init__(self, names: Sequence[str], parts: Sequence[Part], notes: Sequence[Finding] = ()) -> None:
    self.names, self.parts = tuple(names), tuple(parts)
    self.category_ids = tuple(range(len(self.names)))
    tasks = {part.dataset.task for part in parts}
    if len(tasks) > 1:
      raise DataError("some of the sets have boxes, others labels of whole images; only sets of one kind can be joined")
    self.task: Task = tasks.pop()
    self.notes = (*notes, *(note for part in parts for note in source_notes(part.dataset)))
    self._ends = list(accumulate(len(part.dataset) for part in parts))
    self._has_own_ids = len(parts) == 1 or _differ(parts)
    self.is_fully_annotated = all(part.annotated.all() for part in parts)

  @property
  def problems(self) -> Sequence[Problem]:
    return tuple(problem for part in self.parts for problem in part.dataset.problems)

  @property
  def draws(self) -> tuple[Draws, ...]:
    return tuple(Draws(len(part.dataset), part.weight) for part in self.parts)

  @property
  def is_in_memory(self) -> bool:
    """Whether all annotations are."""
    return all(isinstance(part.dataset, RecordList) for part in self.parts)

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Record:
    if not 0 <= index < len(self):
      raise IndexError(index)
    number = bisect_right(self._ends, index)
    part = self.parts[number]
    record = part.dataset[index - (self._ends[number - 1] if number else 0)]
    image_id: ImageId = record.image_id if self._has_own_ids else f"{number + 1}/{record.image_id}"
    # One for all images: the arrays of a batch must not depend on what is in it.
    annotated = None if self.is_fully_annotated else part.annotated
    if record.label is not None:
      return replace(record, image_id=image_id, label=int(part.new_index[record.label]))
    kept = _kept(record, part.new_index[record.classes])
    return replace(kept, image_id=image_id, annotated=annotated)


def _kept(record: Record, classes: NDArray[np.int32]) -> Record:
  """The record with other classes, without the objects that are left out."""
  keep = classes != LEFT_OUT
  area, xywh, polygons, places = record.area_px, record.boxes_xywh_px, record.polygons_px, record.places
  return replace(
    record,
    boxes_xyxy_px=record.boxes_xyxy_px[keep],
    classes=classes[keep],
    is_crowd=record.is_crowd[keep],
    is_difficult=record.is_difficult[keep],
    area_px=None if area is None else area[keep],
    boxes_xywh_px=None if xywh is None else xywh[keep],
    polygons_px=None if polygons is None else tuple(itertools.compress(polygons, keep)),
    places=None if places is None else tuple(itertools.compress(places, keep)),
  )


def _differ(parts: Sequence[Part]) -> bool:
  """Whether no two images of different sets have the same id; where ids are not in memory, nobody looks."""
  if not all(isinstance(part.dataset, RecordList) for part in parts):
    return False
  ids = Counter(part.dataset[index].image_id for part in parts for index in range(len(part.dataset)))
  return max(ids.values(), default=1) == 1


def all_names(names: Sequence[Sequence[str]]) -> tuple[str, ...]:
  """The classes of several lists, each once, in order of appearance and as spelt there first; see `match_names`."""
  found: list[str] = []
  for some in names:
    found += [name for name, place in zip(some, match_names(some, found), strict=True) if place < 0]
  return tuple(found)


def joined(dataset: Dataset) -> Joined | None:
  """The joined set that a data set is, whatever names it was given; None if it is no such set."""
  inner = dataset.dataset if isinstance(dataset, Renumbered) else dataset
  return inner if isinstance(inner, Joined) else None


def draws_of(dataset: Dataset) -> tuple[Draws, ...]:
  """How often images are drawn in an epoch, one entry for each of the sets that a data set consists of."""
  several = joined(dataset)
  return several.draws if several else (Draws(len(dataset), 1.0),)


def images_per_epoch(dataset: Dataset) -> int:
  """Number of images that an epoch draws: all of them once, unless sets have weights."""
  return sum(draws.per_epoch for draws in draws_of(dataset))


def check_fully_annotated(dataset: Dataset, what: str) -> None:
  """Raises DataError if the images of a joined set have boxes for different classes, which `what` cannot do with."""
  several = joined(dataset)
  if several and not several.is_fully_annotated:
    number, part = next((i, part) for i, part in enumerate(several.parts, 1) if not part.annotated.all())
    missing = several.names[int(np.flatnonzero(~part.annotated)[0])]
    raise DataError(
      f"{what}: set {number} has no boxes for '{missing}', which others have, so that such objects in its images would "
      "count as errors. Take the sets one by one."
    )
