"""A data set in columns: what the checks of the doctor count over, and where each box is written."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.photos import Photo, Progress, look
from prn_jax.data_pipelines.doctor.written import Written, read_written
from prn_jax.data_pipelines.findings import Finding
from prn_jax.data_pipelines.records import Dataset, OnBadData, Problem, ProblemLog, Task, source_notes
from prn_jax.data_pipelines.sources.arrayrecord import ArrayRecordDataset
from prn_jax.data_pipelines.spec import open_spec

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Split:
  """One data set. n images, m boxes.

  Attributes:
    spec: the SPEC that it was opened by.
    dataset: the data set itself.
    names: the names of the classes.
    task: the task of the data set.
    indices: (n,) positions in the data set.
    images: n paths; None of an image in memory.
    image_ids: n.
    stated_wh_px: (n, 2) size that the annotations state; 0 where they do not.
    labels: (n,) class of the image; -1 for detection.
    image_of: (m,) position of the image of a box; ascending.
    classes: (m,).
    boxes_xyxy_px: (m, 4) corners.
    is_crowd, is_difficult: (m,).
    ignored_areas_px: (n,) area of the regions of an image in which nothing is annotated.
    problems: what the source and the look at the images left out.
    notes: what the source understood, but is worth a look.
    photos: n, what was seen of the image files; None of those that cannot be used.
  """

  spec: str
  dataset: Dataset
  names: tuple[str, ...]
  task: Task
  indices: NDArray[np.int64]
  images: tuple[Path | None, ...]
  image_ids: tuple[int | str, ...]
  stated_wh_px: NDArray[np.int64]
  labels: NDArray[np.int64]
  image_of: NDArray[np.int64]
  classes: NDArray[np.int64]
  boxes_xyxy_px: Floats
  is_crowd: NDArray[np.bool_]
  is_difficult: NDArray[np.bool_]
  ignored_areas_px: Floats
  problems: tuple[Problem, ...]
  notes: tuple[Finding, ...]
  photos: tuple[Photo | None, ...]

  def __len__(self) -> int:
    return len(self.image_ids)

  @property
  def is_classification(self) -> bool:
    return self.task is Task.CLASSIFY

  @functools.cached_property
  def sizes_wh_px(self) -> NDArray[np.int64]:
    """(n, 2) upright size of the image file; what the annotations state where it cannot be read, 0 if they do not."""
    seen = [(0, 0) if photo is None else photo.size_wh for photo in self.photos]
    sizes = np.array(seen, np.int64).reshape(-1, 2)
    return np.where(sizes > 0, sizes, self.stated_wh_px)

  @functools.cached_property
  def box_wh_px(self) -> Floats:
    return self.boxes_xyxy_px[:, 2:] - self.boxes_xyxy_px[:, :2]

  @functools.cached_property
  def starts(self) -> NDArray[np.int64]:
    """(n + 1,) the boxes of image i are starts[i] to starts[i + 1]."""
    return np.searchsorted(self.image_of, np.arange(len(self) + 1))

  @property
  def objects_per_image(self) -> NDArray[np.int64]:
    return np.diff(self.starts)

  @functools.cached_property
  def examples(self) -> NDArray[np.int64]:
    """Objects of each class, or images."""
    return np.bincount(self.labels if self.is_classification else self.classes, minlength=len(self.names))

  @functools.cached_property
  def written(self) -> Written | None:
    """The numbers as the files write them; None of kinds whose files are not read again."""
    return read_written(self.spec, self.images, self.image_ids, self.sizes_wh_px)

  def boxes_of(self, image: int) -> slice:
    """The boxes of an image."""
    return slice(int(self.starts[image]), int(self.starts[image + 1]))

  def name(self, box: int) -> str:
    """The class of a box."""
    return self.names[self.classes[box]]

  def image_name(self, image: int) -> str:
    """What messages call an image."""
    path = self.images[image]
    return str(self.image_ids[image] if path is None else path)

  def place_of_box(self, box: int) -> str:
    """The line of a box, or the annotation; else its image and its number there."""
    image = int(self.image_of[box])
    first = int(self.starts[image])
    if self.written is not None:
      same = (self.boxes_xyxy_px[first:box] == self.boxes_xyxy_px[box]).all(1)
      size = self.stated_wh_px[image] if self.stated_wh_px[image].all() else self.sizes_wh_px[image]
      place = self.written.place(image, self.boxes_xyxy_px[box], size, int(same.sum()))
      if place is not None:
        return place
    return f"{self.image_name(image)}, box {box - first + 1}"


def box_text(box_xyxy_px: Sequence[float] | Floats) -> str:
  """[x1, y1, x2, y2] in messages."""
  return f"[{', '.join(f'{value:g}' for value in np.round(box_xyxy_px, 2))}]"


def open_split(
  spec: str,
  *,
  decode: bool,
  keep_polygons: bool = False,
  num_threads: int | None = None,
  progress: Progress | None = None,
) -> Split:
  """Opens a data set, leaving out what is bad, and looks at its images.

  Args:
    spec: the data.
    keep_polygons: whether its records hold outlines, which a corrected copy keeps.
    decode, num_threads, progress: the arguments of `photos.look`.

  Raises:
    DataError: it cannot be opened, or holds no images.
  """
  dataset = open_spec(spec, OnBadData.SKIP, keep_polygons=keep_polygons)
  log = ProblemLog(OnBadData.SKIP)
  if decode and isinstance(dataset, ArrayRecordDataset):
    dataset.check_shards(log)
  seen, problems = look(dataset, spec, decode=decode, num_threads=num_threads, progress=progress)
  records = [item.record for item in seen]
  none = np.zeros((0, 4))
  return Split(
    spec=spec,
    dataset=dataset,
    names=dataset.names,
    task=dataset.task,
    indices=np.array([item.index for item in seen], np.int64),
    images=tuple(None if isinstance(record.image, bytes) else record.image for record in records),
    image_ids=tuple(record.image_id for record in records),
    stated_wh_px=np.array([(record.width or 0, record.height or 0) for record in records], np.int64).reshape(-1, 2),
    labels=np.array([-1 if record.label is None else record.label for record in records], np.int64),
    image_of=np.repeat(np.arange(len(records)), [len(record.classes) for record in records]),
    classes=_joined([record.classes for record in records], np.zeros(0)).astype(np.int64),
    boxes_xyxy_px=_joined([record.boxes_xyxy_px for record in records], none).astype(np.float64),
    is_crowd=_joined([record.is_crowd for record in records], np.zeros(0)).astype(np.bool_),
    is_difficult=_joined([record.is_difficult for record in records], np.zeros(0)).astype(np.bool_),
    ignored_areas_px=np.array([_area(record.ignored_xyxy_px) for record in records], np.float64),
    problems=(*dataset.problems, *log.problems, *problems),
    notes=source_notes(dataset),
    photos=tuple(item.photo for item in seen),
  )


def _area(boxes_xyxy_px: NDArray[Any]) -> float:
  return float((boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]).astype(np.float64).prod(1).sum())


def _joined(arrays: Sequence[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
  return np.concatenate([empty, *arrays])
