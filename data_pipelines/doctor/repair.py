"""A corrected copy of a data set: `prn data doctor --fix OUT`. The original is never touched.

Only what is certain is corrected: boxes are clipped to their image, boxes without size and exact repetitions go, and so do
images that cannot be read; a size that is not stated, or stated wrongly for an image without boxes, is that of the file;
pictures that EXIF turns are stored upright, and boxes that were made before the turn, and fit only there, turn along.
What needs a human stays as it is, and is found in the copy again; entries that the sources could not take over at all are
listed in OUT/doctor.json.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.convert.coco import Coco
from prn_jax.data_pipelines.convert.layout import Target, boxes_xywh_px, keep_objects
from prn_jax.data_pipelines.convert.losses import Loss, Losses
from prn_jax.data_pipelines.convert.pictures import Header, Images, key_of, place, stems, suffix_of
from prn_jax.data_pipelines.doctor.checks.files import outside_frame
from prn_jax.data_pipelines.doctor.photos import Photo
from prn_jax.data_pipelines.doctor.split import Split
from prn_jax.data_pipelines.doctor.table import Floats
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.records import DataError, Record
from prn_jax.files.disk import write_text
from prn_jax.files.json_text import json_text
from prn_jax.files.places import folder_beside, is_remote

SPLIT, NOTES = "fixed", "doctor.json"
_CORRECTED = {  # by the sources, which the copy is made of
  Check.LABEL_NO_SIZE: "boxes without size left out",
  Check.LABEL_OUTSIDE: "boxes clipped, or left out where they are wholly outside",
  Check.IMAGE_UNREADABLE: "unreadable images left out",
}


@dataclass(frozen=True)
class Repaired:
  """What `repair` wrote.

  Attributes:
    spec: opens the copy.
    num_images, num_objects: what it holds.
    corrected: what was done -> how often.
    left_out: id of a check -> entries that the copy lacks, and that a human should look at.
  """

  spec: str
  num_images: int
  num_objects: int
  corrected: dict[str, int]
  left_out: dict[str, int]

  def to_json(self) -> dict[str, Any]:
    return {
      "spec": self.spec, "images": self.num_images, "objects": self.num_objects, "corrected": self.corrected,
      "left_out": self.left_out,
    }  # fmt: skip


def repair(split: Split, folder: Path) -> Repaired:
  """Writes the corrected copy.

  Args:
    split: the data set with the look at its images; opened with outlines (`keep_polygons`), which are kept then.
    folder: is made; a copy that the doctor wrote before is replaced.

  Raises:
    DataError: the data has no boxes, no image can be read, or the folder holds something else or the data itself.
  """
  _check_target(split, folder)
  counts: Counter[str] = Counter()
  losses = Losses()
  layout = Coco(Target(split.names, _category_ids(split), SPLIT), losses)
  taken: set[str] = set()
  num_objects = 0
  others = [problem for problem in split.problems if problem.check not in _CORRECTED]
  with folder_beside(folder, NOTES) as part:
    (part / layout.image_folder).mkdir(parents=True)
    for image, photo in enumerate(split.photos):
      if photo is None:
        continue
      record, header = _corrected(split, image, photo, counts)
      name = _file_name(record, header, taken)
      place(record, header, part / layout.image_folder / name, Images.COPY)
      num_objects += len(layout.add(record, header, name).record.classes)
    counts += Counter(_CORRECTED[problem.check] for problem in split.problems if problem.check in _CORRECTED)
    counts["boxes within the first pixel, which COCO cannot tell from shares, left out"] += dict(losses).get(
      Loss.TOO_SMALL, 0
    )
    corrected = {text: counts[text] for text in sorted(counts) if counts[text]}
    notes = {"source": split.spec, "corrected": corrected, "left_out": [problem.to_json() for problem in others]}
    texts = layout.own_texts() | {NOTES: json_text(notes, indent=1) + "\n"}
    for path, text in texts.items():
      write_text(part / path, text)
  left_out = dict(Counter(str(problem.check) for problem in others))
  return Repaired(Coco.spec(folder, SPLIT), len(taken), num_objects, corrected, left_out)


def _check_target(split: Split, folder: Path) -> None:
  if split.is_classification:
    raise DataError(f"data '{split.spec}' has classes of whole images; a corrected copy is for data with boxes.")
  if is_remote(folder):
    raise DataError(f"cannot write the copy to '{folder}': it is written on this machine. Give a folder.")
  if folder.is_dir() and (found := sorted(folder.iterdir())) and not (folder / NOTES).is_file():
    raise DataError(
      f"'{folder}' holds '{found[0].name}', which no --fix has written. Give an OUT that is new or empty."
    )
  inside = folder.resolve()
  local = (path for path in split.images if path is not None and not is_remote(path))
  if any(path.resolve().is_relative_to(inside) for path in local):
    raise DataError(f"images of '{split.spec}' lie in '{folder}', which would be replaced. Give another OUT.")
  if not any(photo is not None for photo in split.photos):
    raise DataError(f"data '{split.spec}': none of {len(split)} images can be read, so there is nothing to copy.")


def _category_ids(split: Split) -> tuple[int, ...]:
  """The source's own numbers; else from 1, since 0 is the background to many programs."""
  ids = split.dataset.category_ids
  return tuple(range(1, len(ids) + 1)) if ids == tuple(range(len(ids))) else ids


# -- corrections -------------------------------------------------------------------------------------------------------


def _corrected(split: Split, image: int, photo: Photo, counts: Counter[str]) -> tuple[Record, Header]:
  """An image that can be read, with what is certain put right and counted; and how it is to be written."""
  record = split.dataset[int(split.indices[image])]
  record = replace(record, boxes_xywh_px=boxes_xywh_px(record))
  stated = (record.width, record.height) if record.width and record.height else None
  is_before_turn = photo.stored_wh != photo.size_wh and stated in (photo.stored_wh, None)
  if is_before_turn and outside_frame(split, image, photo.size_wh) and not outside_frame(split, image, photo.stored_wh):
    record = _turned(record, photo)
    counts["images whose boxes were turned along"] += 1
    stated = photo.size_wh
  elif stated is None or (stated != photo.size_wh and not len(record.classes)):
    counts["sizes of images stated"] += 1
    stated = photo.size_wh
  if stated != photo.size_wh:  # for a human to decide: not a pixel is changed
    return record, Header(stated, False, photo.format, 3)
  counts["images stored upright"] += photo.orientation > 1
  return _with_clean_boxes(record, photo, counts), Header(photo.size_wh, photo.orientation > 1, photo.format, 3)


def _with_clean_boxes(record: Record, photo: Photo, counts: Counter[str]) -> Record:
  boxes = boxes_xywh_px(record)
  clipped = _clipped(boxes, photo.size_wh)
  counts["boxes clipped at the last pixel"] += int((clipped != boxes).any(1).sum())
  keep = (clipped[:, 2:] > 0).all(1)
  counts["boxes without size left out"] += int((~keep).sum())
  first = _first_of_each(np.column_stack([record.classes, clipped]))
  counts["repeated boxes left out"] += int((keep & ~first).sum())
  areas = clipped[:, 2] * clipped[:, 3]
  if record.area_px is not None:
    areas = np.minimum(record.area_px, areas)
  return keep_objects(replace(record, area_px=areas, boxes_xywh_px=clipped), keep & first)


def _clipped(boxes_xywh_px: Floats, size_wh: tuple[int, int]) -> Floats:
  """The parts inside the image; a box that is inside keeps every digit."""
  low, high = boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]
  start = np.maximum(low, 0)
  end = np.minimum(high, size_wh)
  sizes = np.where((start == low) & (end == high), boxes_xywh_px[:, 2:], end - start)
  return np.concatenate([start, sizes], 1)


def _first_of_each(rows: Floats) -> NDArray[np.bool_]:
  """(n,) whether no earlier row is the same."""
  is_first = np.zeros(len(rows), np.bool_)
  if len(rows):
    is_first[np.unique(rows, axis=0, return_index=True)[1]] = True
  return is_first


def _turned(record: Record, photo: Photo) -> Record:
  """Boxes, outlines and ignored regions of a picture as it is stored, as they lie on it once it is upright."""
  old = boxes_xywh_px(record)
  boxes = turn_boxes(np.concatenate([old[:, :2], old[:, :2] + old[:, 2:]], 1), photo)
  polygons = record.polygons_px
  if polygons is not None:
    polygons = tuple(tuple(turn_points(ring, photo) for ring in rings) for rings in polygons)
  return replace(
    record,
    boxes_xywh_px=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1),
    polygons_px=polygons,
    ignored_xyxy_px=turn_boxes(record.ignored_xyxy_px.astype(np.float64), photo).astype(np.float32),
  )


def turn_boxes(boxes_xyxy_px: Floats, photo: Photo) -> Floats:
  """(n, 4) corners in the stored picture to corners in the upright one."""
  a, b = turn_points(boxes_xyxy_px[:, :2], photo), turn_points(boxes_xyxy_px[:, 2:], photo)
  return np.concatenate([np.minimum(a, b), np.maximum(a, b)], 1)


def turn_points(points_px: Floats, photo: Photo) -> Floats:
  """(k, 2) points x, y in the stored picture to points in the upright one, by EXIF's orientation."""
  x, y = points_px.T
  (width, height), number = photo.stored_wh, photo.orientation
  if number in (2, 3, 7, 8):
    x = width - x
  if number in (3, 4, 6, 7):
    y = height - y
  return np.stack([y, x] if number >= 5 else [x, y], 1)


# -- writing -----------------------------------------------------------------------------------------------------------


def _file_name(record: Record, header: Header, taken: set[str]) -> str:
  """A name for an image: its own, and with its folder or a number where another has it too."""
  stem = next(stem for stem in stems(record, SPLIT) if key_of(stem) not in taken)
  taken.add(key_of(stem))
  return stem + suffix_of(record, header)
