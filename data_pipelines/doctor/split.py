"""A data set in columns: what the checks of the doctor count over, and where each box is written."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.photos import Photo, photo_of
from prn_jax.data_pipelines.doctor.table import Floats, Progress, Table, columns, looked_at
from prn_jax.data_pipelines.doctor.written import Written, read_written
from prn_jax.data_pipelines.findings import Finding
from prn_jax.data_pipelines.reading.lines import text_of_place
from prn_jax.data_pipelines.records import Dataset, OnBadData, ProblemLog, source_notes
from prn_jax.data_pipelines.spec import open_spec


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Table):
  """A data set for the doctor: entries whose images cannot be used are there too.

  Attributes:
    dataset: the data set itself.
    images: n paths; None of an image in memory.
    stated_wh_px: (n, 2) size that the annotations state; 0 where they do not.
    ignored_areas_px: (n,) area of the regions of an image in which nothing is annotated.
    notes: what the source understood, but is worth a look.
    photos: n, what was seen of the image files; None of those that cannot be used.
  """

  dataset: Dataset
  images: tuple[Path | None, ...]
  stated_wh_px: NDArray[np.int64]
  ignored_areas_px: Floats
  notes: tuple[Finding, ...]
  photos: tuple[Photo | None, ...]

  @functools.cached_property
  def sizes_wh_px(self) -> NDArray[np.int64]:
    """(n, 2) upright size of the image file; what the annotations state where it cannot be read, 0 if they do not."""
    seen = [(0, 0) if photo is None else photo.size_wh for photo in self.photos]
    sizes = np.array(seen, np.int64).reshape(-1, 2)
    return np.where(sizes > 0, sizes, self.stated_wh_px)

  @functools.cached_property
  def starts(self) -> NDArray[np.int64]:
    """(n + 1,) the boxes of image i are starts[i] to starts[i + 1]."""
    return np.searchsorted(self.image_of, np.arange(len(self) + 1))

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
    # What has no files of images has none of labels.
    places = None if self.images[image] is None else self._places[int(self.indices[image])].places
    return f"{self.image_name(image)}, box {box - first + 1}" if places is None else text_of_place(places[box - first])

  @functools.cached_property
  def _places(self) -> Dataset:
    """The data set opened again, with the places of its boxes."""
    return open_spec(self.spec, OnBadData.SKIP, keep_places=True)


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
    decode, num_threads, progress: the arguments of `looked_at`; without decode only headers are read.

  Raises:
    DataError: it cannot be opened, or holds no images.
  """
  dataset = open_spec(spec, OnBadData.SKIP, keep_polygons=keep_polygons)
  log = ProblemLog(OnBadData.SKIP)
  see = functools.partial(photo_of, decode=decode)
  shards = log if decode else None
  looked = list(looked_at(dataset, spec, see, shards=shards, num_threads=num_threads, progress=progress))
  seen = [item for item, _ in looked if item is not None]
  problems = [problem for _, problem in looked if problem is not None]
  records = [item.record for item in seen]
  return Split(
    **columns(spec, dataset, seen, (*log.problems, *problems)),
    dataset=dataset,
    images=tuple(None if isinstance(record.image, bytes) else record.image for record in records),
    stated_wh_px=np.array([(record.width or 0, record.height or 0) for record in records], np.int64).reshape(-1, 2),
    ignored_areas_px=np.array([_area(record.ignored_xyxy_px) for record in records], np.float64),
    notes=source_notes(dataset),
    photos=tuple(item.image for item in seen),
  )


def _area(boxes_xyxy_px: NDArray[Any]) -> float:
  return float((boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]).astype(np.float64).prod(1).sum())
