"""The XML of Pascal VOC, one file an image, which others write too: roLabelImg, DIOR and Roboflow with shapes of their own.

An <object> has one of

- <bndbox>, whose corners count pixels from 1 and include both ends: xmin and ymin lose 1;
- <robndbox>, a turned box: its corners as <x_left_top>, <y_left_top> ... (DIOR), or <cx> <cy> <w> <h> <angle> in radians
  (roLabelImg). Corners are places, from which nothing is taken away; the rectangle around them is the object's box, clipped
  to the image;
- <polygon>, as <x1> <y1> <x2> <y2> ... or <pt> with <x> and <y>. Points are places too.

An <ignored> beside the objects, with a <bndbox>, is a region in which nothing is annotated (`prn data convert` writes it,
and programs that look for objects alone pass over it).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.reading.image_labels import Points, Size, box_of, clipped, turned_corners
from prn_jax.data_pipelines.reading.lines import line_of
from prn_jax.data_pipelines.records import Box, DataError, Object, Place, ProblemLog, Rings, box_fault, checked_box
from prn_jax.files.disk import is_file
from prn_jax.files.structured import MAX_XML_BYTES, load_bytes, load_xml, read_lines
from prn_jax.files.values import Misfit, shown, truth_of

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_CORNERS = tuple(
  f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"
)


class Shape(Enum):
  """What the corners of an object are."""

  PIXELS = "bndbox"  # counted from 1
  TURNED = "robndbox"  # places, of the rectangle around it
  POLYGON = "polygon"


class Element(NamedTuple):
  """One <object> as it stands in the file; `number` counts from 1."""

  number: int
  name: str
  box: Box
  is_difficult: bool
  shape: Shape
  polygon: Rings = ()


class Classes(NamedTuple):
  """Names of the objects of a file, usable or not, and whether it says that it is one of VOC's own."""

  names: frozenset[str]
  is_voc: bool


class Parsed(NamedTuple):
  """One file: its classes, <size> and <filename> of the image that was labelled, the objects and the ignored regions."""

  classes: Classes
  size: tuple[int, int] | None
  filename: str
  elements: list[Element]
  ignored: list[Element]


def listed(path: Path, annotated: Collection[str], log: ProblemLog) -> list[str]:
  """The images of a list, each once, by the stem of their annotation file."""
  lines: dict[str, int] = {}
  for number, line in enumerate(read_lines(path, DataError), 1):
    if not line.strip():
      continue
    stem = _stem(line.strip(), annotated)
    if stem in lines:
      reason = f"image '{stem}' is listed again (first in line {lines[stem]})"
      log.report(path, number, reason, Check.IMAGE_DUPLICATE, "the second entry is left out")
    lines.setdefault(stem, number)
  return list(lines)


def _stem(line: str, annotated: Collection[str]) -> str:
  """The annotation that a line means: a name with a flag behind it, a file, or the files of image and annotation."""
  if line in annotated:
    return line
  name = re.sub(r"\s+(-1|0|1)$", "", line)
  plain = PurePosixPath(name.replace("\\", "/"))
  options = [name, plain.name]
  options += [PurePosixPath(word.replace("\\", "/")).stem for word in (name, *name.split()) if _has_ending(word)]
  return next((option for option in options if option in annotated), name)


def _has_ending(word: str) -> bool:
  return is_image_name(word) or word.lower().endswith(".xml")


def classes_of(root: ElementTree.Element) -> Classes:
  names = frozenset(name for item in root.iter("object") if (name := (item.findtext("name") or "").strip()))
  return Classes(names, (root.findtext("source/database") or "").strip().startswith("The VOC"))


def parse(path: Path, log: ProblemLog) -> Parsed | None:
  """What one file says, or None where it cannot be read at all."""
  if not is_file(path):
    log.report(path, None, "the annotation file does not exist", Check.LABEL_MISSING, "the image is left out")
    return None
  try:
    root = load_xml(load_bytes(path, MAX_XML_BYTES))
  except Misfit as error:
    log.report(path, error.line, f"it {error}", Check.LABEL_MALFORMED, "the image is left out")
    return None
  elements: list[Element] = []
  for number, item in enumerate(root.iter("object"), 1):
    try:
      box, shape = _box(item)
      polygon = _rings(item) if log.keep_polygons else ()
      elements.append(Element(number, _text(item, "name"), box, _is_difficult(item), shape, polygon))
    except Misfit as error:
      reason = f"object {number}: {error}"
      log.report(path, line_of(path, "object", number), reason, Check.LABEL_MALFORMED, "the object is left out")
  ignored: list[Element] = []
  for number, item in enumerate(root.iter("ignored"), 1):
    try:
      ignored.append(Element(number, "ignored", _box(item)[0], False, Shape.PIXELS))
    except Misfit as error:
      reason = f"ignored region {number}: {error}"
      log.report(path, line_of(path, "ignored", number), reason, Check.LABEL_MALFORMED, "the region is left out")
  return Parsed(classes_of(root), _said_size(root), (root.findtext("filename") or "").strip(), elements, ignored)


def _box(item: ElementTree.Element) -> tuple[Box, Shape]:
  """The corners of an object as the file counts them, and what they are corners of."""
  turned, polygon = item.find("robndbox"), item.find("polygon")
  if item.find("bndbox") is not None or (turned is None and polygon is None):
    x1, y1, x2, y2 = _numbers(item, _SIDES, "bndbox")
    return (x1, y1, x2, y2), Shape.PIXELS
  if turned is not None:
    return box_of(_corners(turned)), Shape.TURNED
  assert polygon is not None
  points = _points(polygon)
  if len(points) < 3:
    raise Misfit(f"<bndbox> is missing, and <polygon> has {len(points)} points; expected at least 3")
  return box_of(points), Shape.POLYGON


def _corners(turned: ElementTree.Element) -> Points:
  """The four corners of a <robndbox>."""
  if turned.find("cx") is not None:
    cx, cy, width, height, angle = _numbers(turned, ("cx", "cy", "w", "h", "angle"))
    return [(x, y) for x, y in turned_corners((cx, cy), (width, height), angle).tolist()]
  numbers = _numbers(turned, _CORNERS)
  return list(zip(numbers[0::2], numbers[1::2], strict=True))


def _points(polygon: ElementTree.Element) -> Points:
  points = [(_number(point, "x"), _number(point, "y")) for point in polygon.iter("pt")]
  number = 1
  while polygon.find(f"x{number}") is not None:
    points.append((_number(polygon, f"x{number}"), _number(polygon, f"y{number}")))
    number += 1
  return points


def _rings(item: ElementTree.Element) -> Rings:
  """The polygons and turned boxes of an object; what has not three finite points is none."""
  rings = []
  for outline in (*item.iter("polygon"), *item.iter("robndbox")):
    with contextlib.suppress(Misfit):
      points = _points(outline) if outline.tag == "polygon" else _corners(outline)
      rings.append(np.array(points, np.float64).reshape(-1, 2))
  return tuple(ring for ring in rings if len(ring) >= 3 and np.isfinite(ring).all())


def _said_size(root: ElementTree.Element) -> tuple[int, int] | None:
  """The <size> of the image; None where it is missing or no size, as tools that never saw the image write 0."""
  try:
    width, height = (int(_number(root, f"size/{key}")) for key in ("width", "height"))
  except (Misfit, ValueError, OverflowError):  # of a number that is not finite
    return None
  return (width, height) if width > 0 and height > 0 else None


def _text(element: ElementTree.Element, key: str, inside: str = "") -> str:
  """The text of a child, or of a child of the child `inside`: a path to it would cost ten times as much."""
  parent = element.find(inside) if inside else element
  text = None if parent is None else parent.findtext(key)
  if text is None or not (text := text.strip()):
    raise Misfit(f"<{inside}{'/' if inside else ''}{key}> is missing or empty")
  return text


def _number(element: ElementTree.Element, key: str, inside: str = "") -> float:
  text = _text(element, key, inside)
  try:
    return float(text)
  except ValueError:
    raise Misfit(f"<{inside}{'/' if inside else ''}{key}> is {shown(text)}; expected a number") from None


def _numbers(element: ElementTree.Element, keys: Sequence[str], inside: str = "") -> list[float]:
  """`_number` of several children at once."""
  parent = element.find(inside) if inside else element
  texts = {} if parent is None else {child.tag: child.text for child in reversed(parent)}
  try:
    return [float(texts[key]) for key in keys]  # type: ignore[arg-type]  # nearly always
  except (KeyError, ValueError, TypeError):
    return [_number(element, key, inside) for key in keys]  # names the one


def _is_difficult(element: ElementTree.Element) -> bool:
  text = element.findtext("difficult", "0")
  if text == "0":
    return False  # nearly always
  try:
    return truth_of(text, unsaid=False)
  except Misfit as error:
    raise Misfit(f"<difficult> {error}") from None


def is_same_size(path: Path, parsed: Parsed, image: Path, size: Size, log: ProblemLog) -> bool:
  """Whether the image has the <size> of its annotations; another one goes to the log."""
  if parsed.size is None or parsed.size == size:
    return True
  said = f"{parsed.size[0]}x{parsed.size[1]}"
  reason = f"<size> is {said}, but {image} is {size[0]}x{size[1]}, so its boxes cannot be trusted"
  log.report(path, line_of(path, "size", 1), reason, Check.IMAGE_OTHER_SIZE, "the image is left out")
  return False


def objects_of(
  path: Path, parsed: Parsed, index_of: Callable[[str], int | None], size: Size, log: ProblemLog
) -> list[Object]:
  """The usable objects of a file.

  Args:
    path, parsed: the file, and what `parse` gave for it.
    index_of: the class of a name; None of one that is not among the classes.
    size: (width, height) of the image in pixels.
    log: gets what cannot be used.
  """
  objects = []
  for element in parsed.elements:
    x1, y1, x2, y2 = element.box
    prefix = f"object {element.number} ('{element.name}'): "
    index = index_of(element.name)
    if index is None:
      reason = f"{prefix}the name is not among the classes"
      line = line_of(path, "object", element.number)
      log.report(path, line, reason, Check.LABEL_UNKNOWN_CLASS, "the object is left out")
      continue
    if 0 < x2 <= 1 and 0 < y2 <= 1 and x1 < x2 and y1 < y2:
      reason = f"{prefix}box {list(element.box)} looks relative to the image; expected pixels"
      line = line_of(path, "object", element.number)
      log.report(path, line, reason, Check.LABEL_UNIT, "the object is left out")
      continue
    # Judged by the file's own numbers: equal corners are a slip of the mouse, not an object of one pixel.
    is_degenerate = x2 <= x1 or y2 <= y1
    corners = (x1 - 1, y1 - 1, x2, y2) if element.shape is Shape.PIXELS and not is_degenerate else element.box
    if element.shape is Shape.TURNED:
      corners = clipped(corners, size) or corners
    usable: Box | None = corners
    place = Place(path, None, prefix, ("object", element.number)) if log.keep_places else None
    if box_fault(corners, size) is not None:
      line = line_of(path, "object", element.number)
      place = Place(path, line, prefix, ("object", element.number))
      usable = checked_box(corners, size, log, place)
    if usable is not None:
      known = place if log.keep_places else None
      objects.append(Object(usable, index, is_difficult=element.is_difficult, polygon_px=element.polygon, place=known))
  return objects


def ignored_of(path: Path, parsed: Parsed, size: Size, log: ProblemLog) -> list[Box]:
  """The usable ignored regions of a file; the arguments are those of `objects_of`."""
  regions = []
  for element in parsed.ignored:
    x1, y1, x2, y2 = element.box
    corners = (x1 - 1, y1 - 1, x2, y2)
    line = line_of(path, "ignored", element.number) if box_fault(corners, size) else None
    usable = checked_box(corners, size, log, Place(path, line, f"ignored region {element.number}: "))
    if usable is not None:
      regions.append(usable)
  return regions
