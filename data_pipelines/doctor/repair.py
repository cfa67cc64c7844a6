"""A corrected copy of a data set: `prn data doctor --fix OUT`. The original is never touched.

Only what is certain is corrected: boxes are clipped to their image, boxes without size and exact repetitions go, and so do
images that cannot be read; a size that is not stated, or stated wrongly for an image without boxes, is that of the file;
pictures that EXIF turns are stored upright, and boxes that were made before the turn, and fit only there, turn along.
What needs a human stays as it is, and is found in the copy again; entries that the sources could not take over at all are
listed in OUT/doctor.json.
"""

from __future__ import annotations

import io
import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prn_jax.data_pipelines.doctor.checks.files import outside_frame
from prn_jax.data_pipelines.doctor.photos import Photo
from prn_jax.data_pipelines.doctor.split import Floats, Split
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images import read_image
from prn_jax.data_pipelines.records import DataError, Record, image_name
from prn_jax.files.json_text import json_text
from prn_jax.files.places import folder_beside, is_remote

ANNOTATIONS, IMAGES, NOTES = "annotations.json", "images", "doctor.json"
_QUALITY = 95
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif"}
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


@dataclass(frozen=True)
class _Kept:
  """An image of the copy: boxes_xywh_px (n, 4), and whether its file is stored upright anew."""

  record: Record
  size_wh: tuple[int, int] | None
  boxes_xywh_px: Floats
  photo: Photo
  is_turned: bool


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
  content: dict[str, Any] = {"images": [], "annotations": [], "categories": _categories(split)}
  names = _file_names(split)
  with folder_beside(folder, NOTES) as part:
    (part / IMAGES).mkdir(parents=True)
    for image, name in names.items():
      kept = _corrected(split, image, counts)
      _write_image(kept, part / IMAGES / name)
      _add(content, kept, name, split.dataset.category_ids)
    others = [problem for problem in split.problems if problem.check not in _CORRECTED]
    counts += Counter(_CORRECTED[problem.check] for problem in split.problems if problem.check in _CORRECTED)
    corrected = {text: counts[text] for text in sorted(counts) if counts[text]}
    notes = {"source": split.spec, "corrected": corrected, "left_out": [problem.to_json() for problem in others]}
    (part / ANNOTATIONS).write_text(json_text(content, is_ascii=False) + "\n", encoding="utf-8")
    (part / NOTES).write_text(json_text(notes, indent=1) + "\n", encoding="utf-8")
  left_out = dict(Counter(str(problem.check) for problem in others))
  spec = f"coco:{folder / ANNOTATIONS}:{folder / IMAGES}"
  return Repaired(spec, len(content["images"]), len(content["annotations"]), corrected, left_out)


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
  if any(path is not None and path.resolve().is_relative_to(inside) for path in split.images):
    raise DataError(f"images of '{split.spec}' lie in '{folder}', which would be replaced. Give another OUT.")
  if not any(photo is not None for photo in split.photos):
    raise DataError(f"data '{split.spec}': none of {len(split)} images can be read, so there is nothing to copy.")


def _categories(split: Split) -> list[dict[str, Any]]:
  """The source's own numbers; else from 1, since 0 is the background to many programs."""
  return [
    {"id": _category_id(k, split.dataset.category_ids), "name": name, "supercategory": ""}
    for k, name in enumerate(split.names)
  ]


def _category_id(class_index: int, ids: tuple[int, ...]) -> int:
  return class_index + 1 if ids == tuple(range(len(ids))) else ids[class_index]


# -- corrections -------------------------------------------------------------------------------------------------------


def _corrected(split: Split, image: int, counts: Counter[str]) -> _Kept:
  """An image that can be read, with what is certain put right and counted."""
  record, photo = split.dataset[int(split.indices[image])], split.photos[image]
  assert photo is not None
  stated = (record.width, record.height) if record.width and record.height else None
  boxes = _xywh(record)
  is_turned = photo.orientation > 1
  is_before_turn = photo.stored_wh != photo.size_wh and stated in (photo.stored_wh, None)
  if is_before_turn and outside_frame(split, image, photo.size_wh) and not outside_frame(split, image, photo.stored_wh):
    boxes, record = _turned(boxes, record, photo)
    counts["images whose boxes were turned along"] += 1
    stated = photo.size_wh
  elif stated is None or (stated != photo.size_wh and not len(boxes)):
    counts["sizes of images stated"] += 1
    stated = photo.size_wh
  if stated != photo.size_wh:  # for a human to decide: not a pixel is changed
    return _Kept(record, stated, boxes, photo, False)
  counts["images stored upright"] += is_turned
  clipped = _clipped(boxes, photo.size_wh)
  counts["boxes clipped at the last pixel"] += int((clipped != boxes).any(1).sum())
  keep = (clipped[:, 2:] > 0).all(1)
  counts["boxes without size left out"] += int((~keep).sum())
  first = _first_of_each(np.column_stack([record.classes, clipped]))
  counts["repeated boxes left out"] += int((keep & ~first).sum())
  areas = clipped[:, 2] * clipped[:, 3]
  if record.area_px is not None:
    areas = np.minimum(record.area_px, areas)
  return _Kept(
    _keep_objects(replace(record, area_px=areas), keep & first), stated, clipped[keep & first], photo, is_turned
  )


def _xywh(record: Record) -> Floats:
  """(n, 4) corner and size, to the last digit that is known."""
  if record.boxes_xywh_px is not None:
    return record.boxes_xywh_px
  corners = record.boxes_xyxy_px.astype(np.float64)
  return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


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


def _keep_objects(record: Record, keep: NDArray[np.bool_]) -> Record:
  assert record.area_px is not None
  polygons = record.polygons_px
  return replace(
    record,
    classes=record.classes[keep],
    is_crowd=record.is_crowd[keep],
    is_difficult=record.is_difficult[keep],
    area_px=record.area_px[keep],
    polygons_px=None if polygons is None else tuple(itertools.compress(polygons, keep)),
  )


def _turned(boxes_xywh_px: Floats, record: Record, photo: Photo) -> tuple[Floats, Record]:
  """Boxes, outlines and ignored regions of a picture as it is stored, as they lie on it once it is upright."""
  corners = np.concatenate([boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]], 1)
  boxes = turn_boxes(corners, photo)
  polygons = record.polygons_px
  if polygons is not None:
    polygons = tuple(tuple(turn_points(ring, photo) for ring in rings) for rings in polygons)
  regions = turn_boxes(record.ignored_xyxy_px.astype(np.float64), photo).astype(np.float32)
  turned = replace(record, polygons_px=polygons, ignored_xyxy_px=regions)
  return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), turned


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


def _file_names(split: Split) -> dict[int, str]:
  """Names for all images that can be read: their own, and with their folder or a number where others have it too."""
  names: dict[int, str] = {}
  taken: set[str] = set()
  for image, photo in enumerate(split.photos):
    if photo is None:
      continue
    name = next(name for name in _candidates(split, image, photo) if name.casefold() not in taken)
    taken.add(name.casefold())
    names[image] = name
  return names


def _candidates(split: Split, image: int, photo: Photo) -> Iterator[str]:
  path = split.images[image]
  ending = _ENDINGS.get(photo.format, ".png")
  if path is None:
    stem = str(split.image_ids[image]).replace("/", "_").replace("\\", "_")
  else:
    stem, ending = path.stem, path.suffix
  if photo.orientation > 1 and photo.format not in ("JPEG", "MPO"):
    ending = ".png"
  yield f"{stem}{ending}"
  if path is not None:
    yield f"{path.parent.name}_{stem}{ending}"
  yield from (f"{stem}-{number}{ending}" for number in itertools.count(2))


def _write_image(kept: _Kept, target: Path) -> None:
  source = kept.record.image
  if kept.is_turned:
    picture = Image.fromarray(read_image(source, name=image_name(kept.record)))
    buffer = io.BytesIO()
    if kept.photo.format in ("JPEG", "MPO"):
      picture.save(buffer, "JPEG", quality=_QUALITY)
    else:
      picture.save(buffer, "PNG")
    target.write_bytes(buffer.getvalue())
  elif isinstance(source, bytes) or is_remote(source):
    target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
  else:
    shutil.copyfile(source, target)


def _add(content: dict[str, Any], kept: _Kept, name: str, category_ids: tuple[int, ...]) -> None:
  """Writes an image and its objects into the lists of COCO's format; the keys are those that `sources/coco.py` reads."""
  record, images, annotations = kept.record, content["images"], content["annotations"]
  image_id = record.image_id if isinstance(record.image_id, int) else len(images) + 1
  entry: dict[str, Any] = {"id": image_id, "file_name": name}
  if kept.size_wh is not None:
    entry |= {"width": kept.size_wh[0], "height": kept.size_wh[1]}
  if len(record.ignored_xyxy_px):
    regions = record.ignored_xyxy_px.astype(np.float64)
    entry["ignored_regions"] = np.concatenate([regions[:, :2], regions[:, 2:] - regions[:, :2]], 1).tolist()
  images.append(entry)
  areas = kept.boxes_xywh_px[:, 2:].prod(1) if record.area_px is None else record.area_px
  for k, box in enumerate(kept.boxes_xywh_px.tolist()):
    rings = record.polygons_px[k] if record.polygons_px else ()
    entry = {
      "id": len(annotations) + 1,
      "image_id": image_id,
      "category_id": _category_id(int(record.classes[k]), category_ids),
      "bbox": box,
      "area": float(areas[k]),
      "iscrowd": int(record.is_crowd[k]),
      "segmentation": [ring.ravel().tolist() for ring in rings],
    }
    annotations.append(entry | ({"ignore": 1} if record.is_difficult[k] else {}))
