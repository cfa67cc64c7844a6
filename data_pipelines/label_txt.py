"""Darknet's label files: one line `class x y w h` per object, centre and size relative to the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from prn_jax.data_pipelines.records import (
  DataError,
  Object,
  ProblemKind,
  ProblemLog,
  Record,
  checked_box,
  checked_image_size,
  image_ids_of,
  make_record,
)
from prn_jax.formats.files import is_file
from prn_jax.formats.structured import Misfit, load_text, shown, split_lines

MAX_RELATIVE = 2.0  # boxes may reach beyond their image by mistake, but not by the size of another one


def read_records(
  images: Sequence[tuple[Path, Path, int | None]],
  label_path: Callable[[Path], Path],
  num_classes: int,
  log: ProblemLog,
  difficult_label_paths: Sequence[Path] = (),
) -> list[Record]:
  """The records of a list of images.

  Args:
    images: image path, and the file and line that name it (the folder and None where it was found in a folder).
    label_path: the label file of an image.
    num_classes: class ids are 0..num_classes-1.
    log: follows the policy.
    difficult_label_paths: label files of difficult objects, one per image in the same order, or none at all.

  Returns:
    One record per usable image. An image without a label file has no objects; that is how both formats say so.

  Raises:
    DataError: not one image has a label file, or an entry is bad (policy stop).
  """
  labels = [label_path(image) for image, _, _ in images]
  if images and not any(is_file(label) for label in labels):
    raise DataError(f"none of {len(images)} images has a label file; expected e.g. {labels[0]} for {images[0][0]}")
  ids = image_ids_of([image for image, _, _ in images])
  records: list[Record] = []
  seen: set[Path] = set()
  for position, (image, source, line) in enumerate(images):
    if image in seen:
      log.report(source, line, f"{image} is listed again", ProblemKind.DUPLICATE, "the second entry is left out")
      continue
    seen.add(image)
    size = checked_image_size(image, log)
    if size is None:
      continue
    objects = read_objects(labels[position], size, num_classes, log)
    if difficult_label_paths:
      objects += read_objects(difficult_label_paths[position], size, num_classes, log, is_difficult=True)
    records.append(make_record(image, ids[position], size, objects))
  return records


def read_objects(
  path: Path, size: tuple[int, int], num_classes: int, log: ProblemLog, is_difficult: bool = False
) -> list[Object]:
  """The objects of one label file; none where the file does not exist.

  Args:
    path: the label file.
    size: (width, height) of the image in pixels.
    num_classes: class ids are 0..num_classes-1.
    log: follows the policy.
    is_difficult: marks the objects.
  """
  if not is_file(path):
    return []
  try:
    lines = split_lines(load_text(path))
  except Misfit as error:
    log.report(path, None, f"it {error}", ProblemKind.MALFORMED, "its objects are left out")
    return []
  objects = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    parsed = _parse_line(path, number, line, num_classes, log)
    if parsed is None:
      continue
    class_index, (x, y, w, h) = parsed
    if w <= 0 or h <= 0:
      reason = f"box width {w:g} and height {h:g} (relative) must be positive"
      log.report(path, number, reason, ProblemKind.ZERO_SIZE, "the box is left out")
      continue
    if max(abs(x), abs(y), w, h) > MAX_RELATIVE and np.isfinite([x, y, w, h]).all():
      reason = f"x y w h = {x:g} {y:g} {w:g} {h:g} look like pixels; expected values relative to the image, 0 to 1"
      log.report(path, number, reason, ProblemKind.MALFORMED, "the box is left out")
      continue
    width, height = size
    corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    usable = checked_box(corners, size, log, (path, number, f"x y w h = {x:g} {y:g} {w:g} {h:g}: "))
    if usable is not None:
      objects.append(Object(usable, class_index, is_difficult=is_difficult))
  return objects


def _parse_line(
  path: Path, number: int, line: str, num_classes: int, log: ProblemLog
) -> tuple[int, tuple[float, float, float, float]] | None:
  words = line.split()
  if len(words) != 5:
    polygon = " (more values are a polygon, which is no box)" if len(words) > 6 else ""
    reason = f"{len(words)} values in {shown(line.strip())}; expected 'class x y w h'{polygon}"
    log.report(path, number, reason, ProblemKind.MALFORMED, "the line is left out")
    return None
  try:
    class_number = float(words[0])
    x, y, w, h = (float(word) for word in words[1:])
  except ValueError:
    reason = f"{shown(line.strip())} holds what is no number; expected 'class x y w h'"
    log.report(path, number, reason, ProblemKind.MALFORMED, "the line is left out")
    return None
  # Some tools write the class as 3.0.
  if not class_number.is_integer() or not 0 <= class_number < num_classes:
    reason = f"class id {shown(words[0])[1:-1]} is not among the {num_classes} classes 0..{num_classes - 1}"
    log.report(path, number, reason, ProblemKind.UNKNOWN_CLASS, "the line is left out")
    return None
  return int(class_number), (x, y, w, h)
