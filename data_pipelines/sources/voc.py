"""Pascal VOC: `voc:VOCROOT:SPLIT` reads VOCROOT/ImageSets/Main/SPLIT.txt, Annotations/*.xml and JPEGImages/.

The XML counts pixels from 1 and includes both ends; our boxes are continuous, so xmin and ymin lose 1 and xmax and
ymax stay: the first pixel, [1, 1, 1, 1] in the XML, would be [0, 0, 1, 1]. Overlaps are then those of the VOC devkit.
Class order: VOC's 20 names where no other occurs, else all names found in Annotations/ in alphabetical order.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from prn_jax.data_pipelines.image_formats import is_image_name
from prn_jax.data_pipelines.records import (
  DataError,
  Object,
  ProblemKind,
  ProblemLog,
  Record,
  RecordList,
  box_fault,
  checked_box,
  checked_image_size,
  finish,
  make_record,
)
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.formats.files import expanded, is_file
from prn_jax.formats.structured import Misfit, decode_xml, load_bytes, load_xml, read_lines, shown, truth_of

VOC_NAMES = (
  "aeroplane",
  "bicycle",
  "bird",
  "boat",
  "bottle",
  "bus",
  "car",
  "cat",
  "chair",
  "cow",
  "diningtable",
  "dog",
  "horse",
  "motorbike",
  "person",
  "pottedplant",
  "sheep",
  "sofa",
  "train",
  "tvmonitor",
)


class _Element(NamedTuple):
  """One <object> as it stands in the file; `number` counts from 1."""

  number: int
  name: str
  box: tuple[float, float, float, float]
  is_difficult: bool


class _Parsed(NamedTuple):
  """One file: the <size> of the image that was labelled, and the objects."""

  size: tuple[int, int] | None
  elements: list[_Element]


@register_source("voc:VOCROOT:SPLIT")
def open_voc(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations of one split.

  Raises:
    DataError: a file or folder is missing, no image is left, or an entry is bad (policy stop).
  """
  root, split = expanded(parts[0]), parts[1]
  stems = _split_stems(root, split, log)
  images = {file.stem: file for file in sorted((root / "JPEGImages").iterdir()) if is_image_name(file)}
  parsed = {stem: _parse(root / "Annotations" / f"{stem}.xml", log) for stem in stems}
  names = _names(root, {element.name for found in parsed.values() if found for element in found.elements})
  index_of = {name: index for index, name in enumerate(names)}
  records: list[Record] = []
  for stem, found in parsed.items():
    if found is None:
      continue
    path = root / "Annotations" / f"{stem}.xml"
    file = images.get(stem, root / "JPEGImages" / f"{stem}.jpg")
    size = checked_image_size(file, log)
    if size is None:
      continue
    if found.size not in (None, size):
      said = f"{found.size[0]}x{found.size[1]}"
      reason = f"<size> is {said}, but {file} is {size[0]}x{size[1]}, so its boxes cannot be trusted"
      log.report(path, _line_of(path, "size", 1), reason, ProblemKind.MALFORMED, "the image is left out")
      continue
    objects = _objects(path, found.elements, index_of, size, log)
    records.append(make_record(file, stem, size, objects))
  return finish(names, range(len(names)), records, log, f"{root}, split '{split}',")


def _split_stems(root: Path, split: str, log: ProblemLog) -> list[str]:
  folder = root / "ImageSets" / "Main"
  for needed in (folder, root / "Annotations", root / "JPEGImages"):
    if not needed.is_dir():
      inside = sorted(path.name for path in root.glob("VOC*") if path.is_dir()) if root.is_dir() else []
      hint = f" Did you mean {root / inside[0]}?" if inside else ""
      raise DataError(f"'{root}' is no VOC root: there is no folder {needed}.{hint}")
  path = folder / f"{split}.txt"
  if not is_file(path):
    known = [file.stem for file in sorted(folder.glob("*.txt"))]
    raise DataError(f"no split '{split}' in {folder}{did_you_mean(split, known)}; found {', '.join(known) or 'none'}")
  stems: dict[str, int] = {}
  for number, line in enumerate(read_lines(path, DataError), 1):
    words = line.split()  # lists of one class carry a second word
    if not words:
      continue
    if words[0] in stems:
      reason = f"image '{words[0]}' is listed again (first in line {stems[words[0]]})"
      log.report(path, number, reason, ProblemKind.DUPLICATE, "the second entry is left out")
    stems.setdefault(words[0], number)
  return list(stems)


def _names(root: Path, used: set[str]) -> list[str]:
  if used <= set(VOC_NAMES):
    return list(VOC_NAMES)
  for path in (root / "Annotations").glob("*.xml"):  # all splits must number the classes alike
    try:
      used |= {_text(element, "name") for element in load_xml(load_bytes(path)).iter("object")}
    except Misfit:
      continue  # another split's damage; that split reports it
  return sorted(used)


def _parse(path: Path, log: ProblemLog) -> _Parsed | None:
  """What one file says, or None where it cannot be read at all."""
  if not is_file(path):
    log.report(path, None, "the annotation file does not exist", ProblemKind.MISSING_LABEL, "the image is left out")
    return None
  try:
    root = load_xml(load_bytes(path))
  except Misfit as error:
    log.report(path, error.line, f"it {error}", ProblemKind.MALFORMED, "the image is left out")
    return None
  elements: list[_Element] = []
  for number, item in enumerate(root.iter("object"), 1):
    try:
      corners = [_number(item, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
      name, is_difficult = _text(item, "name"), _is_difficult(item)
    except Misfit as error:
      reason = f"object {number}: {error}"
      log.report(path, _line_of(path, "object", number), reason, ProblemKind.MALFORMED, "the object is left out")
      continue
    elements.append(_Element(number, name, (corners[0], corners[1], corners[2], corners[3]), is_difficult))
  return _Parsed(_said_size(root), elements)


def _said_size(root: ElementTree.Element) -> tuple[int, int] | None:
  """The <size> of the image; None where it is missing or no size, as tools that never saw the image write 0."""
  try:
    width, height = (int(_number(root, f"size/{key}")) for key in ("width", "height"))
  except (Misfit, ValueError, OverflowError):  # of a number that is not finite
    return None
  return (width, height) if width > 0 and height > 0 else None


def _line_of(path: Path, tag: str, number: int) -> int | None:
  """The line in which the element `tag` begins for the `number`th time; only problems need it."""
  lines: list[int] = []
  parser = expat.ParserCreate()

  def start(name: str, attributes: dict[str, str]) -> None:
    if name == tag:
      lines.append(parser.CurrentLineNumber)

  parser.StartElementHandler = start
  parser.Parse(decode_xml(load_bytes(path)), True)
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
      line = _line_of(path, "object", element.number)
      log.report(path, line, reason, ProblemKind.MALFORMED, "the object is left out")
      continue
    # Judged by the file's own numbers: equal corners are a slip of the mouse, not an object of one pixel.
    is_degenerate = x2 <= x1 or y2 <= y1
    corners = element.box if is_degenerate else (x1 - 1, y1 - 1, x2, y2)
    line = _line_of(path, "object", element.number) if box_fault(corners, size) else None
    usable = checked_box(corners, size, log, (path, line, prefix))
    if usable is not None:
      objects.append(Object(usable, index_of[element.name], is_difficult=element.is_difficult))
  return objects
