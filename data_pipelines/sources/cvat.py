"""CVAT's XML of images ("CVAT for images 1.1"): `cvat:ANNOTATIONS.xml:IMAGES_DIR`.

A <box> has xtl, ytl, xbr, ybr in pixels and perhaps a rotation about its centre, clockwise in degrees; then the object's box
is the rectangle around the turned one, clipped to the image, and the turned one stays as its outline. Of a <polygon>, an
<ellipse> (which may be turned too) and a <mask> the box around it is taken; polygons stay as outlines, masks and ellipses do
not. Lines, points, cuboids, skeletons and tags are passed over and counted. Classes are the labels of the task, in its
order; where the file has no such list, the labels that occur, in alphabetical order. An <image> without shapes shows none.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.image_labels import (
  Drawn,
  Size,
  around,
  drawn_record,
  ellipse_box,
  turned_corners,
)
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import DataError, Place, ProblemLog, RecordList, finish, image_ids_of
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_DATA_BYTES, read_xml
from prn_jax.files.values import Misfit, number_of, shown, whole_of

_SHAPES = frozenset(("box", "polygon", "ellipse", "mask"))
_OTHERS = frozenset(("polyline", "points", "cuboid", "skeleton", "tag"))


class _Image(NamedTuple):
  """One <image>: its name, its size and what is drawn in it."""

  name: str
  size: Size | None
  objects: list[Drawn]


@register_source("cvat:ANNOTATIONS.xml:IMAGES_DIR", "CVAT's XML, CVAT for images 1.1: boxes, polygons, ellipses, masks")
def open_cvat(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations and looks for the images.

  Raises:
    DataError: a file is missing or is no such XML, no image is left, or an entry is bad (policy stop).
  """
  path, folder = to_path(parts[0]), to_path(parts[1])
  if not is_folder(folder):
    raise DataError(f"data 'cvat:{parts[0]}:{parts[1]}': there is no folder {folder}; expected the images there")
  root = read_xml(path, DataError, max_bytes=MAX_DATA_BYTES)
  if root.find("track") is not None:
    raise DataError(f"{path} holds tracks of a video. Export the task as 'CVAT for images 1.1', frame by frame.")
  if root.tag != "annotations":
    raise DataError(f"{path} begins with <{shown(root.tag)[1:-1]}>; expected <annotations>, CVAT's XML of images")
  passed: Counter[str] = Counter()
  images = _images(root, path, passed, log)
  names = _names(root, images)
  index_of = {name: index for index, name in enumerate(names)}
  places = NamedFiles([folder])
  found = places.find_all([image.name for image in images])
  files = [file or places.missing(image.name) for file, image in zip(found, images, strict=True)]
  records = [
    drawn_record(file, image_id, image.size, image.objects, index_of, path, log)
    for file, image_id, image in zip(files, image_ids_of(files), images, strict=True)
  ]
  log.note(Check.PATH_FORGIVEN, path, places.note(str(path)))
  if passed:
    counts = ", ".join(f"{number:,} {tag}" for tag, number in passed.most_common())
    log.note(
      Check.LABEL_LEFT_OVER, path, f"shapes that are no boxes, polygons, ellipses or masks are not used: {counts}"
    )
  return finish(names, range(len(names)), [one for one in records if one is not None], log, str(path))


def _images(root: ElementTree.Element, path: Path, passed: Counter[str], log: ProblemLog) -> list[_Image]:
  """All images, each once; counts the shapes that are passed over."""
  images: dict[str, _Image] = {}
  ways = _ways(root) if log.keep_places else {}
  for number, item in enumerate(root.iterfind("image"), 1):
    name = item.get("name", "").strip()
    if not name or name in images:
      what = f"the image {shown(name)} occurs again" if name else "the image has no name"
      check = Check.IMAGE_DUPLICATE if name else Check.IMAGE_MALFORMED
      log.report(path, None, f"<image> {number}: {what}", check, "the image is left out")
      continue
    objects = []
    for position, shape in enumerate(item, 1):
      place = Place(path, None, f"image {shown(name)}, shape {position}: ", ways.get(shape, ()))
      if shape.tag not in _SHAPES:
        passed[shape.tag if shape.tag in _OTHERS else "others"] += 1
        continue
      try:
        objects.append(_drawn(shape, place))
      except Misfit as error:
        log.report(path, None, f"{place.prefix}<{shape.tag}> {error}", Check.LABEL_MALFORMED, "the shape is left out")
    images[name] = _Image(name, _size(item), objects)
  return list(images.values())


def _ways(root: ElementTree.Element) -> dict[ElementTree.Element, tuple[str | int, ...]]:
  """The way to every shape (`Place.way`)."""
  seen: Counter[str] = Counter()
  found: dict[ElementTree.Element, tuple[str | int, ...]] = {}
  for element in root.iter():
    seen[element.tag] += 1
    if element.tag in _SHAPES:
      found[element] = (element.tag, seen[element.tag])
  return found


def _names(root: ElementTree.Element, images: list[_Image]) -> list[str]:
  """The labels of the task in its order, and behind them those that only occur."""
  listed = [
    name
    for label in root.iterfind("meta//labels/label")
    if not (label.findtext("parent") or "").strip() and (name := (label.findtext("name") or "").strip())
  ]
  drawn = sorted({one.name for image in images for one in image.objects})
  return list(dict.fromkeys((*listed, *drawn)))


def _size(item: ElementTree.Element) -> Size | None:
  try:
    return whole_of(item.get("width"), 1), whole_of(item.get("height"), 1)
  except Misfit:
    return None


def _drawn(shape: ElementTree.Element, place: Place) -> Drawn:
  name = shape.get("label", "").strip()
  if not name:
    raise Misfit("has no label")
  if shape.tag == "polygon":
    ring = np.array(_points(shape.get("points", "")))
    return Drawn(name, around([ring]), place, (ring,))
  angle = math.radians(_number(shape, "rotation")) if shape.get("rotation") else 0.0
  if shape.tag == "mask":
    left, top, width, height = (_number(shape, key) for key in ("left", "top", "width", "height"))
    return Drawn(name, (left, top, left + width, top + height), place)
  if shape.tag == "ellipse":
    cx, cy, rx, ry = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
    return Drawn(name, ellipse_box((cx, cy), (rx, ry), angle), place, turned=True)
  x1, y1, x2, y2 = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
  if not angle or x2 <= x1 or y2 <= y1:
    return Drawn(name, (x1, y1, x2, y2), place)
  ring = turned_corners(((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), angle)
  return Drawn(name, around([ring]), place, (ring,), turned=True)


def _number(shape: ElementTree.Element, key: str) -> float:
  try:
    return number_of(shape.get(key))
  except Misfit as error:
    raise Misfit(f"has {key} that {error}") from None


def _points(text: str) -> list[list[float]]:
  """The points of "x,y;x,y;...", three at least."""
  try:
    points = [[number_of(word) for word in pair.split(",")] for pair in text.split(";")]
  except Misfit as error:
    raise Misfit(f"has a coordinate that {error}") from None
  if len(points) < 3 or not all(len(pair) == 2 for pair in points):
    raise Misfit(f"has points {shown(text)}; expected at least three, as 'x,y;x,y;x,y'")
  return points
