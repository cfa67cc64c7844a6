"""The numbers of boxes as their files write them, read a second time: for conventions that only they show, and places.

Records hold what was understood. Whether a file counts pixels from 1, or writes corners where sizes belong, is seen only
in what it says; and the line of a box is needed only once something is wrong with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.reading.label_files import LabelFiles
from prn_jax.data_pipelines.reading.lines import line_of
from prn_jax.data_pipelines.records import DataError, ImageId
from prn_jax.data_pipelines.sources.darknet import darknet_label_path
from prn_jax.data_pipelines.sources.yolo import yolo_label_path
from prn_jax.data_pipelines.spec import parse_spec
from prn_jax.files import structured
from prn_jax.files.disk import is_file
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_XML_BYTES, load_bytes, load_text, load_xml, split_lines
from prn_jax.files.values import Misfit, number_of, whole_of

Floats = NDArray[np.float64]
_HUGE, _MAX_ID = 1e9, 2**62
_SAME_PX = 0.02  # a box of a record is float32


class Layout(StrEnum):
  """How a format writes a box."""

  XYWH_PX = "x, y, width, height in pixels"  # COCO
  XYXY_FROM_1 = "xmin, ymin, xmax, ymax in pixels counted from 1"  # VOC
  CXCYWH_REL = "centre and size relative to the image"  # YOLO, Darknet


@dataclass(frozen=True)
class Written:
  """The boxes of a data set as its files write them; k boxes, n images.

  Attributes:
    layout: how a box is written.
    files: n files that hold the labels of each image; None where an image has none.
    image_of: (k,) position of the image; ascending.
    numbers: (k, 4) as written.
    class_ids: (k,) as written; -1 of names.
    marks: k times the line, the number of the object in the file, or the id of the annotation.
    is_plain: (k,) whether a box stands there as such; else it is that around a polygon, or has more behind it.
  """

  layout: Layout
  files: tuple[Path | None, ...]
  image_of: NDArray[np.int64]
  numbers: Floats
  class_ids: NDArray[np.int64]
  marks: tuple[Any, ...]
  is_plain: NDArray[np.bool_]

  def plain(self) -> Written:
    """Without what is no plain box."""
    if self.is_plain.all():
      return self
    keep = self.is_plain
    marks = tuple(itertools.compress(self.marks, keep))
    return replace(
      self,
      image_of=self.image_of[keep],
      numbers=self.numbers[keep],
      class_ids=self.class_ids[keep],
      marks=marks,
      is_plain=keep[keep],
    )

  def _in_pixels(self, numbers: Floats, size_wh: NDArray[np.int64]) -> Floats:
    """Corners x1, y1, x2, y2 of boxes of one image."""
    a, b = numbers[:, :2], numbers[:, 2:]
    if self.layout is Layout.XYWH_PX:
      return np.concatenate([a, a + b], 1)
    if self.layout is Layout.XYXY_FROM_1:
      return np.concatenate([a - 1, b], 1)
    return np.concatenate([(a - b / 2) * size_wh, (a + b / 2) * size_wh], 1)

  def place(self, image: int, box_xyxy_px: Floats, size_wh: NDArray[np.int64], ordinal: int) -> str | None:
    """Where a box is written, or None where it is not found again.

    Args:
      image: position of its image.
      box_xyxy_px: as the record has it, clipped to the image perhaps.
      size_wh: size of the image by which it was read.
      ordinal: how many boxes of this image equal it before it.
    """
    first, end = np.searchsorted(self.image_of, [image, image + 1])
    found = self._in_pixels(self.numbers[first:end], size_wh)
    clipped = np.clip(found, 0, np.tile(size_wh, 2))
    tolerance = _SAME_PX + 1e-5 * np.abs(box_xyxy_px).max()
    is_same = np.minimum(np.abs(found - box_xyxy_px).max(1), np.abs(clipped - box_xyxy_px).max(1)) < tolerance
    same = first + np.flatnonzero(is_same)
    file = self.files[image]
    if not len(same) or file is None:
      return None
    mark = self.marks[same[min(ordinal, len(same) - 1)]]
    if self.layout is Layout.XYWH_PX:
      return f"{file}: annotation {mark}"
    if self.layout is Layout.XYXY_FROM_1:
      return f"{file}:{line_of(file, 'object', mark)}"
    return f"{file}:{mark}"


Row = tuple[int, Sequence[float], int, Any, bool]
_InFile = tuple[Sequence[float], int, Any, bool]


def read_written(
  spec: str, images: Sequence[Path | None], image_ids: Sequence[ImageId], sizes_wh_px: NDArray[np.int64]
) -> Written | None:
  """Reads the label files of a data set again; None of kinds other than COCO, VOC, Darknet and YOLO.

  Args:
    spec: what it was opened by.
    images, image_ids, sizes_wh_px: the files, ids and sizes of the images in the order of the data set.
  """
  source, parts = parse_spec(spec)
  if source.kind == "coco":
    path = to_path(parts[0])
    return _written(Layout.XYWH_PX, [path] * len(images), _coco_rows(path, image_ids))
  if source.kind == "voc":
    files = [_voc_file(to_path(parts[0]), image_id) for image_id in image_ids]
    return _written(Layout.XYXY_FROM_1, files, _each(files, _voc_rows))
  rules = {"darknet": darknet_label_path, "yolo": yolo_label_path}
  paths = [image for image in images if image is not None]
  if source.kind not in rules or len(paths) < len(images):
    return None
  labels = LabelFiles(paths, rules[source.kind])
  found = [label if is_file(label := labels.path(path)) else None for path in paths]
  return _written(Layout.CXCYWH_REL, found, _each(found, _txt_rows))


def _written(layout: Layout, files: Sequence[Path | None], rows: list[Row]) -> Written:
  rows.sort(key=lambda row: row[0])
  return Written(
    layout,
    tuple(files),
    np.array([row[0] for row in rows], np.int64),
    np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
    np.array([row[2] for row in rows], np.int64),
    tuple(row[3] for row in rows),
    np.array([row[4] for row in rows], np.bool_),
  )


def _each(files: Sequence[Path | None], read: Callable[[Path], list[_InFile]]) -> list[Row]:
  """The rows of all files; what cannot be read is among the problems of the source already."""
  rows: list[Row] = []
  for image, file in enumerate(files):
    if file is None:
      continue
    try:
      found = read(file)
    except Misfit:
      continue
    rows += [(image, *row) for row in found]
  return rows


def _coco_rows(path: Path, image_ids: Sequence[ImageId]) -> list[Row]:
  position = {image_id: image for image, image_id in enumerate(image_ids)}
  annotations = structured.read_json(path, DataError, structured.MAX_DATA_BYTES).raw["annotations"]
  rows: list[Row] = []
  for number, annotation in enumerate(annotations):
    try:
      image = position.get(_whole(annotation["image_id"]))
      box = annotation["bbox"]
      if image is not None and len(box) == 4:
        mark = annotation.get("id", f"number {number}")
        rows.append((image, [_number(value) for value in box], _whole(annotation["category_id"]), mark, True))
    except (Misfit, KeyError, TypeError, AttributeError):
      continue
  return rows


def _whole(value: Any) -> int:
  return (
    value if type(value) is int and abs(value) < _MAX_ID else whole_of(value, -_MAX_ID, _MAX_ID)
  )  # there are millions


def _number(value: Any) -> float:
  return value if type(value) is float and -_HUGE < value < _HUGE else number_of(value)


def _voc_file(root: Path, image_id: ImageId) -> Path | None:
  file = root / "Annotations" / f"{image_id}.xml"
  return file if is_file(file) else None


def _voc_rows(file: Path) -> list[_InFile]:
  rows: list[_InFile] = []
  for number, item in enumerate(load_xml(load_bytes(file, MAX_XML_BYTES)).iter("object"), 1):
    try:
      box = [number_of(item.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    except Misfit:
      continue
    rows.append((box, -1, number, True))
  return rows


def _txt_rows(file: Path) -> list[_InFile]:
  rows: list[_InFile] = []
  for line, text in enumerate(split_lines(load_text(file)), 1):
    words = text.split()
    try:
      values = [number_of(word) for word in words]
      if len(values) >= 5:
        rows.append((_box_of(values[1:]), _whole(values[0]), line, len(values) == 5))
    except Misfit:
      continue
  return rows


def _box_of(values: Sequence[float]) -> Sequence[float]:
  """Centre and size of a line; of a polygon those of the box around it."""
  if len(values) < 6 or len(values) % 2:
    return values[:4]
  xs, ys = values[::2], values[1::2]
  return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)
