"""Pascal VOC: `voc:VOCROOT:SPLIT` reads VOCROOT/ImageSets/Main/SPLIT.txt, Annotations/*.xml and JPEGImages/.

The XML counts pixels from 1 and includes both ends; our boxes are continuous, so xmin and ymin lose 1 and xmax and
ymax stay: the first pixel, [1, 1, 1, 1] in the XML, would be [0, 0, 1, 1]. Overlaps are then those of the VOC devkit.
An object without <bndbox> but with a <polygon> (x1, y1, x2, y2, ..., or <pt> with <x> and <y>) has the box around it.
Points of polygons are places, from which nothing is taken away.

Classes are the names of the objects in all of Annotations/, whatever the split, in alphabetical order: a set of two
classes has these two. Of VOC's own sets that is the list of its 20 classes; an excerpt of them that shows only 10 to 19
has all 20 too, where every file says that it is from "The VOC... Database" and no other name occurs.

A line of a list is a name, behind which a flag may stand (-1, 0 or 1, in the lists of one class; it is not used). Names
may hold blanks, and may be written as the name or path of the image or of the XML.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from prn_jax.data_pipelines.class_names import VOC_NAMES
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import IMAGE_SUFFIXES, is_image_name
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import (
  Box,
  DataError,
  Object,
  ProblemLog,
  Record,
  RecordList,
  Rings,
  box_fault,
  checked_box,
  checked_image_size,
  finish,
  make_record,
)
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.disk import is_file, is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_XML_BYTES, decode_xml, load_bytes, load_xml, read_lines
from prn_jax.files.values import Misfit, shown, truth_of


class _Element(NamedTuple):
  """One <object> as it stands in the file; `number` counts from 1, `is_around` marks the box around the polygon."""

  number: int
  name: str
  box: Box
  is_difficult: bool
  is_around: bool
  polygon: Rings = ()


class _Classes(NamedTuple):
  """Names of the objects of a file, usable or not, and whether it says that it is one of VOC's own."""

  names: frozenset[str]
  is_voc: bool


class _Parsed(NamedTuple):
  """One file: its classes, the <size> and <filename> of the image that was labelled, and the objects."""

  classes: _Classes
  size: tuple[int, int] | None
  filename: str
  elements: list[_Element]


@register_source("voc:VOCROOT:SPLIT")
def open_voc(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations of one split.

  Raises:
    DataError: a file or folder is missing, no image is left, or an entry is bad (policy stop).
  """
  root, split = to_path(parts[0]), parts[1]
  list_path = _list_path(root, split)
  folder = root / "Annotations"
  files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".xml"}
  stems = _listed(list_path, files.keys(), log)
  parsed = {stem: _parse(files.get(stem, folder / f"{stem}.xml"), log) for stem in stems}
  names = _names(parsed, files)
  index_of = {name: index for index, name in enumerate(names)}
  images = _Images(root / "JPEGImages", files.keys())
  records: list[Record] = []
  num_polygons = 0
  for stem, found in parsed.items():
    if found is None:
      continue
    path = files[stem]
    file = images.of(stem, found.filename)
    size = images.checked_size(file, log)
    if size is None:
      continue
    if found.size not in (None, size):
      said = f"{found.size[0]}x{found.size[1]}"
      reason = f"<size> is {said}, but {file} is {size[0]}x{size[1]}, so its boxes cannot be trusted"
      log.report(path, line_of(path, "size", 1), reason, Check.IMAGE_OTHER_SIZE, "the image is left out")
      continue
    num_polygons += sum(element.is_around for element in found.elements)
    objects = _objects(path, found.elements, index_of, size, log)
    records.append(make_record(file, stem, size, objects))
  log.note(Check.PATH_FORGIVEN, root, images.note())
  if num_polygons:
    text = f"{num_polygons:,} objects have a <polygon> and no <bndbox>; the boxes around them are used"
    log.note(Check.LABEL_POLYGONS, root, text)
  return finish(names, range(len(names)), records, log, f"{root}, split '{split}',")


def _list_path(root: Path, split: str) -> Path:
  folder = root / "ImageSets" / "Main"
  for needed in (folder, root / "Annotations", root / "JPEGImages"):
    if not is_folder(needed):
      inside = sorted(path.name for path in root.glob("VOC*") if is_folder(path)) if is_folder(root) else []
      hint = f" Did you mean {root / inside[0]}?" if inside else ""
      raise DataError(f"'{root}' is no VOC root: there is no folder {needed}.{hint}")
  path = folder / f"{split}.txt"
  if not is_file(path):
    known = [file.stem for file in sorted(folder.glob("*.txt"))]
    raise DataError(f"no split '{split}' in {folder}{did_you_mean(split, known)}; found {', '.join(known) or 'none'}")
  return path


def _listed(path: Path, annotated: Collection[str], log: ProblemLog) -> list[str]:
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
  name = re.sub(r"\s+(-1|0|1)$", "", line)
  plain = PurePosixPath(name.replace("\\", "/"))
  options = [line, name, plain.name]
  options += [PurePosixPath(word.replace("\\", "/")).stem for word in (name, *name.split()) if _has_ending(word)]
  return next((option for option in options if option in annotated), name)


def _has_ending(word: str) -> bool:
  return is_image_name(word) or word.lower().endswith(".xml")


class _Images:
  """Finds the image of an annotation: by the stem, else by <filename>.

  Args:
    folder: JPEGImages.
    annotated: stems of all annotation files; an image of that name belongs to that file.
  """

  def __init__(self, folder: Path, annotated: Collection[str]) -> None:
    self._folder, self._annotated = folder, annotated
    self._by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
      self._by_stem[file.stem].append(file)
    self._named = NamedFiles([folder])

  def of(self, stem: str, filename: str) -> Path:
    """The image, or where it is expected."""
    found = [file for file in self._by_stem.get(stem, ()) if is_image_name(file)]
    name = PurePosixPath(filename.replace("\\", "/")).name
    same = [file for file in found if file.name == name]
    if found:
      return (same or found)[0]
    if filename and PurePosixPath(name).stem not in self._annotated and (file := self._named.find(filename)):
      return file
    return self._folder / f"{stem}.jpg"

  def checked_size(self, file: Path, log: ProblemLog) -> tuple[int, int] | None:
    """`checked_image_size`; where the image is missing, a file that was not taken for it is named."""
    others = [] if is_file(file) else self._by_stem.get(file.stem, [])
    if not others:
      return checked_image_size(file, log)
    reason = f"not taken for an image, by its ending; expected one of {', '.join(IMAGE_SUFFIXES)}"
    log.report(others[0], None, reason, Check.IMAGE_MISSING, "the image is left out")
    return None

  def note(self) -> str | None:
    return self._named.note("<filename>")


def _names(parsed: Mapping[str, _Parsed | None], files: Mapping[str, Path]) -> list[str]:
  """The classes of all splits, by the rule in the head of this file.

  Args:
    parsed: the annotations of one split, by their stem.
    files: all annotations; those that cannot be read are reported by the split that lists them.
  """
  every = [found.classes for found in parsed.values() if found is not None]
  for stem, path in files.items():
    if stem not in parsed:
      with contextlib.suppress(Misfit):
        every.append(_classes(load_xml(load_bytes(path, MAX_XML_BYTES))))
  names = frozenset[str]().union(*(classes.names for classes in every))
  is_excerpt = names <= set(VOC_NAMES) and 2 * len(names) >= len(VOC_NAMES) and all(one.is_voc for one in every)
  return sorted(VOC_NAMES if is_excerpt else names)


def _classes(root: ElementTree.Element) -> _Classes:
  names = frozenset(name for item in root.iter("object") if (name := (item.findtext("name") or "").strip()))
  return _Classes(names, (root.findtext("source/database") or "").strip().startswith("The VOC"))


def _parse(path: Path, log: ProblemLog) -> _Parsed | None:
  """What one file says, or None where it cannot be read at all."""
  if not is_file(path):
    log.report(path, None, "the annotation file does not exist", Check.LABEL_MISSING, "the image is left out")
    return None
  try:
    root = load_xml(load_bytes(path, MAX_XML_BYTES))
  except Misfit as error:
    log.report(path, error.line, f"it {error}", Check.LABEL_MALFORMED, "the image is left out")
    return None
  elements: list[_Element] = []
  for number, item in enumerate(root.iter("object"), 1):
    try:
      box, is_around = _box(item)
      polygon = _rings(item) if log.keep_polygons else ()
      elements.append(_Element(number, _text(item, "name"), box, _is_difficult(item), is_around, polygon))
    except Misfit as error:
      reason = f"object {number}: {error}"
      log.report(path, line_of(path, "object", number), reason, Check.LABEL_MALFORMED, "the object is left out")
  return _Parsed(_classes(root), _said_size(root), (root.findtext("filename") or "").strip(), elements)


def _box(item: ElementTree.Element) -> tuple[Box, bool]:
  """The corners of an object as the file counts them, and whether they are those of its polygon."""
  polygon = item.find("polygon")
  if item.find("bndbox") is not None or polygon is None:
    x1, y1, x2, y2 = (_number(item, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax"))
    return (x1, y1, x2, y2), False
  points = _points(polygon)
  if len(points) < 3:
    raise Misfit(f"<bndbox> is missing, and <polygon> has {len(points)} points; expected at least 3")
  xs, ys = zip(*points, strict=True)
  return (min(xs), min(ys), max(xs), max(ys)), True


def _points(polygon: ElementTree.Element) -> list[tuple[float, float]]:
  points = [(_number(point, "x"), _number(point, "y")) for point in polygon.iter("pt")]
  number = 1
  while polygon.find(f"x{number}") is not None:
    points.append((_number(polygon, f"x{number}"), _number(polygon, f"y{number}")))
    number += 1
  return points


def _rings(item: ElementTree.Element) -> Rings:
  """The polygons of an object; one without three finite points is none."""
  rings = []
  for polygon in item.iter("polygon"):
    with contextlib.suppress(Misfit):
      rings.append(np.array(_points(polygon), np.float64).reshape(-1, 2))
  return tuple(ring for ring in rings if len(ring) >= 3 and np.isfinite(ring).all())


def _said_size(root: ElementTree.Element) -> tuple[int, int] | None:
  """The <size> of the image; None where it is missing or no size, as tools that never saw the image write 0."""
  try:
    width, height = (int(_number(root, f"size/{key}")) for key in ("width", "height"))
  except (Misfit, ValueError, OverflowError):  # of a number that is not finite
    return None
  return (width, height) if width > 0 and height > 0 else None


def line_of(path: Path, tag: str, number: int) -> int | None:
  """The line in which the element `tag` begins for the `number`th time; only problems need it."""
  lines: list[int] = []
  parser = expat.ParserCreate()

  def start(name: str, attributes: dict[str, str]) -> None:
    if name == tag:
      lines.append(parser.CurrentLineNumber)

  parser.StartElementHandler = start
  parser.Parse(decode_xml(load_bytes(path, MAX_XML_BYTES)), True)
  return lines[number - 1] if number <= len(lines) else None


def _text(element: ElementTree.Element, key: str) -> str:
  text = element.findtext(key)
  if text is None or not text.strip():
    raise Misfit(f"<{key}> is missing or empty")
  return text.strip()


def _number(element: ElementTree.Element, key: str) -> float:
  text = _text(element, key)
  try:
    return float(text)
  except ValueError:
    raise Misfit(f"<{key}> is {shown(text)}; expected a number") from None


def _is_difficult(element: ElementTree.Element) -> bool:
  try:
    return truth_of(element.findtext("difficult", "0"), unsaid=False)
  except Misfit as error:
    raise Misfit(f"<difficult> {error}") from None


def _objects(
  path: Path, elements: list[_Element], index_of: dict[str, int], size: tuple[int, int], log: ProblemLog
) -> list[Object]:
  objects = []
  for element in elements:
    x1, y1, x2, y2 = element.box
    prefix = f"object {element.number} ('{element.name}'): "
    if 0 < x2 <= 1 and 0 < y2 <= 1 and x1 < x2 and y1 < y2:
      reason = f"{prefix}box {list(element.box)} looks relative to the image; expected pixels"
      line = line_of(path, "object", element.number)
      log.report(path, line, reason, Check.LABEL_UNIT, "the object is left out")
      continue
    # Judged by the file's own numbers: equal corners are a slip of the mouse, not an object of one pixel.
    is_degenerate = x2 <= x1 or y2 <= y1
    is_kept = element.is_around or is_degenerate  # points of polygons are places, not pixels
    corners = element.box if is_kept else (x1 - 1, y1 - 1, x2, y2)
    line = line_of(path, "object", element.number) if box_fault(corners, size) else None
    usable = checked_box(corners, size, log, (path, line, prefix))
    if usable is not None:
      objects.append(
        Object(usable, index_of[element.name], is_difficult=element.is_difficult, polygon_px=element.polygon)
      )
  return objects
