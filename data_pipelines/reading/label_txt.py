"""Darknet's label files: one line `class x y w h` per object, centre and size relative to the image.

Segmentations of the same tools are read as boxes: `class x1 y1 x2 y2 x3 y3 ...`, an odd number of values from 7 on, is a
polygon; its bounding box is the object's, and the polygon is kept where it is asked for. Four corners of a turned box
(YOLO-OBB) are one too. Nothing else is: six values are a detection with its confidence, and seven that end in a whole
number may be a tracker's, so both are refused. Lines of boxes with keypoints look like polygons; where the YAML tells them
(`kpt_shape`), their box is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import checked_image_size
from prn_jax.data_pipelines.reading.label_files import LabelFiles, LabelPath
from prn_jax.data_pipelines.records import (
  Box,
  DataError,
  Object,
  Place,
  ProblemLog,
  Record,
  Rings,
  checked_box,
  image_ids_of,
  make_record,
)
from prn_jax.files.disk import is_file
from prn_jax.files.structured import load_text, split_lines
from prn_jax.files.values import Misfit, shown

MAX_RELATIVE = 2.0  # boxes may reach beyond their image by mistake, but not by the size of another one
MAX_OUTSIDE = 0.5  # points of a polygon too, but less: the 2 that marks a visible keypoint is none


@dataclass(frozen=True)
class Listed:
  """An image, and the file and line that name it (the folder and None where it was found in a folder)."""

  image: Path
  source: Path
  line: int | None = None


def read_records(
  images: Sequence[Listed],
  rule: LabelPath,
  num_classes: int,
  log: ProblemLog,
  difficult_label_paths: Sequence[Path] = (),
  num_keypoint_values: int = 0,
) -> list[Record]:
  """The records of a list of images.

  Args:
    images: the image files, in order.
    rule: the format's own place of the label file of an image; `LabelFiles` knows others.
    num_classes: class ids are 0..num_classes-1.
    log: follows the policy.
    difficult_label_paths: label files of difficult objects, one per image in the same order, or none at all.
    num_keypoint_values: how many values every line has behind its box.

  Returns:
    One record per usable image. An image without a label file has no objects; that is how both formats say so.

  Raises:
    DataError: not one image exists, not one has a label file, or an entry is bad (policy stop).
  """
  paths = [listed.image for listed in images]
  present = [path for path in paths if is_file(path)]
  if images and not present:
    raise DataError(
      f"{images[0].source}: none of its {len(images)} images exists; the first would be {paths[0]}. Are the names those "
      "of another machine? They are looked for beside the list too."
    )
  labels = LabelFiles(present, rule)
  if images and not any(is_file(labels.path(path)) for path in present):
    raise DataError(
      f"none of {len(images)} images has a label file; expected e.g. {labels.path(present[0])} for {present[0]}"
    )
  if all(listed.line is None for listed in images):
    for check, folder, text in labels.left_over():
      log.note(check, folder, text)
  reader = LabelReader(num_classes, log, num_keypoint_values)
  ids = image_ids_of(paths)
  records: list[Record] = []
  seen: set[Path] = set()
  for position, listed in enumerate(images):
    image = listed.image
    if image in seen:
      reason = f"{image} is listed again"
      log.report(listed.source, listed.line, reason, Check.IMAGE_DUPLICATE, "the second entry is left out")
      continue
    seen.add(image)
    size = checked_image_size(image, log)
    if size is None:
      continue
    objects = reader.read(labels.path(image), size)
    if difficult_label_paths:
      objects += reader.read(difficult_label_paths[position], size, is_difficult=True)
    records.append(make_record(image, ids[position], size, objects))
  if images:
    log.note(Check.LABEL_POLYGONS, images[0].source, reader.note())
  return records


class LabelReader:
  """Reads label files, and counts what was a polygon.

  Args:
    num_classes: class ids are 0..num_classes-1.
    log: follows the policy.
    num_keypoint_values: how many values every line has behind its box.
  """

  def __init__(self, num_classes: int, log: ProblemLog, num_keypoint_values: int = 0) -> None:
    self._num_classes, self._log, self._num_keypoint_values = num_classes, log, num_keypoint_values
    self._num_objects = self._num_polygons = 0

  def note(self) -> str | None:
    """How many of the labels were polygons; None where none was."""
    if not self._num_polygons:
      return None
    return f"{self._num_polygons:,} of {self._num_objects:,} labels are polygons; their bounding boxes are used"

  def read(self, path: Path, size: tuple[int, int], is_difficult: bool = False) -> list[Object]:
    """The objects of one label file; none where the file does not exist.

    Args:
      path: the label file.
      size: (width, height) of the image in pixels.
      is_difficult: marks the objects.
    """
    if not is_file(path):
      return []
    try:
      lines = split_lines(load_text(path))
    except Misfit as error:
      self._log.report(path, None, f"it {error}", Check.LABEL_MALFORMED, "its objects are left out")
      return []
    objects = []
    for number, line in enumerate(lines, 1):
      found = self._object(path, number, line, size, is_difficult) if line.strip() else None
      if found is not None:
        objects.append(found)
    return objects

  def _object(self, path: Path, number: int, line: str, size: tuple[int, int], is_difficult: bool) -> Object | None:
    """The object of a line; None where it cannot be used, which goes to the log."""
    words = line.split()
    fault = _misshapen(words, self._num_keypoint_values)
    values: list[float] = []
    if fault is None:
      try:
        values = [float(word) for word in words]
      except ValueError:
        fault = "holds what is no number; expected 'class x y w h'"
    if fault is not None:
      self._log.report(path, number, f"{shown(line.strip())} {fault}", Check.LABEL_MALFORMED, "the line is left out")
      return None
    # Some tools write the class as 3.0.
    if not values[0].is_integer() or not 0 <= values[0] < self._num_classes:
      reason = (
        f"class id {shown(words[0])[1:-1]} is not among the {self._num_classes} classes 0..{self._num_classes - 1}"
      )
      self._log.report(path, number, reason, Check.LABEL_UNKNOWN_CLASS, "the line is left out")
      return None
    is_polygon = len(values) > 5 and not self._num_keypoint_values
    corners, said, limit = (_around if is_polygon else _corners)(values[1:])
    x1, y1, x2, y2 = corners
    if x2 <= x1 or y2 <= y1:
      reason = f"box width {x2 - x1:g} and height {y2 - y1:g} (relative) must be positive"
      self._log.report(path, number, reason, Check.LABEL_NO_SIZE, "the box is left out")
      return None
    if limit and np.isfinite(corners).all():
      reason = f"{said} look like pixels; expected values relative to the image, 0 to 1"
      self._log.report(path, number, reason, Check.LABEL_UNIT, "the box is left out")
      return None
    width, height = size
    in_pixels = (x1 * width, y1 * height, x2 * width, y2 * height)
    usable = checked_box(in_pixels, size, self._log, Place(path, number, f"{said}: "))
    if usable is None:
      return None
    self._num_objects += 1
    self._num_polygons += is_polygon
    polygon_px: Rings = ()
    if is_polygon and self._log.keep_polygons:
      polygon_px = (np.array(values[1:]).reshape(-1, 2) * size,)
    return Object(usable, int(values[0]), is_difficult=is_difficult, polygon_px=polygon_px)


def _misshapen(words: Sequence[str], num_keypoint_values: int) -> str | None:
  """What is wrong with the number of values of a line; see the head of the file."""
  number = len(words)
  if number == 5 or (num_keypoint_values and number == 5 + num_keypoint_values):
    return None
  if num_keypoint_values:
    return f"has {number} values; expected 'class x y w h' and {num_keypoint_values} values of keypoints"
  if number < 7 or number % 2 == 0:
    behind = " (the sixth looks like the confidence of a detection)" if number == 6 else ""
    return f"has {number} values; expected 'class x y w h', or a polygon 'class x1 y1 x2 y2 x3 y3 ...'{behind}"
  if number == 7 and words[-1].isdecimal():
    return (
      "has 7 values, the last a whole number: a triangle, or a box with confidence and track? Expected 'class x y w h'"
    )
  return None


def _corners(values: Sequence[float]) -> tuple[Box, str, bool]:
  """Corners of a box from its centre and size, all relative; what messages call it; whether it looks like pixels."""
  x, y, w, h = values[:4]
  is_large = max(abs(x), abs(y), w, h) > MAX_RELATIVE
  return (x - w / 2, y - h / 2, x + w / 2, y + h / 2), f"x y w h = {x:g} {y:g} {w:g} {h:g}", is_large


def _around(values: Sequence[float]) -> tuple[Box, str, bool]:
  """The same of a polygon's points x1, y1, x2, y2, ..."""
  xs, ys = values[::2], values[1::2]
  if not math.isfinite(sum(values)):
    xs = ys = [math.nan]
  x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
  is_large = min(x1, y1) < -MAX_OUTSIDE or max(x2, y2) > 1 + MAX_OUTSIDE
  return (x1, y1, x2, y2), f"polygon of {len(values) // 2} points from {x1:g} {y1:g} to {x2:g} {y2:g}", is_large
