"""labelme's files, one JSON an image: `labelme:DIR`, DIR and the folders below it.

A shape is a rectangle (two or four points), a polygon, a circle (its centre and a point on it), a turned rectangle
(`rotation` and `oriented_rectangle` of its relatives: four points) or a mask, of which the box is taken. Lines and points
are passed over and counted. Shapes of one label and one `group_id` are parts of one object, as in labelme's own converters.
Polygons and turned rectangles stay as outlines; a circle has its box alone.

The image is `imagePath`, beside the JSON, or the image beside it with its name; `imageData` is not read. Images without a
JSON are not used, since nobody may have looked at them yet. Classes are the labels that occur, in alphabetical order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.image_labels import Drawn, Size, around, drawn_record, images_by_stem
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import Box, DataError, Place, ProblemLog, RecordList, Rings, finish, image_ids_of
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_DATA_BYTES, load_json, load_text
from prn_jax.files.values import Misfit, number_of, shown, text_of, whole_of

_NUM_POINTS = {
  "rectangle": (2, 4), "mask": (2,), "circle": (2,), "rotation": (4,), "oriented_rectangle": (4,),
}  # fmt: skip
_NO_AREA = frozenset(("point", "points", "line", "linestrip", "lines"))


class _Labelled(NamedTuple):
  """One image as its JSON describes it."""

  file: Path
  image: Path
  size: Size | None
  objects: list[Drawn]


@register_source("labelme:DIR", "labelme's JSON files, one an image, beside the images")
def open_labelme(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads all JSON files of a folder.

  Raises:
    DataError: the folder is missing, no image is left, or an entry is bad (policy stop).
  """
  folder = to_path(parts[0])
  if not is_folder(folder):
    raise DataError(f"data 'labelme:{parts[0]}': there is no folder {folder}")
  reader = _Reader(log)
  found = [one for file in sorted(folder.rglob("*.json")) if (one := reader.read(file)) is not None]
  names = sorted({drawn.name for one in found for drawn in one.objects})
  index_of = {name: index for index, name in enumerate(names)}
  ids = image_ids_of([one.image for one in found])
  records = [
    drawn_record(one.image, image_id, one.size, one.objects, index_of, one.file, log)
    for one, image_id in zip(found, ids, strict=True)
  ]
  reader.note(folder, {one.image for one in found})
  return finish(names, range(len(names)), [one for one in records if one is not None], log, str(folder))


class _Reader:
  """Reads the files, and counts what is passed over."""

  def __init__(self, log: ProblemLog) -> None:
    self._log = log
    self._seen: dict[Path, Path] = {}
    self._num_without_area = 0
    self._places: dict[Path, tuple[NamedFiles, dict[str, Path]]] = {}

  def read(self, file: Path) -> _Labelled | None:
    """What one file says; None where it cannot be used, which goes to the log."""
    try:
      content = load_json(load_text(file, MAX_DATA_BYTES))
      shapes = content.get("shapes") if isinstance(content, dict) else None
      if not isinstance(shapes, list):
        raise Misfit("has no list 'shapes'; expected what labelme writes")
    except Misfit as error:
      self._log.report(file, error.line, f"it {error}", Check.LABEL_MALFORMED, "the image is left out")
      return None
    image = self._image(file, content.get("imagePath"))
    if image in self._seen:
      reason = f"{image} is labelled again (first in {self._seen[image]})"
      self._log.report(file, None, reason, Check.IMAGE_DUPLICATE, "the second file is left out")
      return None
    self._seen[image] = file
    return _Labelled(file, image, _size(content), self._objects(file, shapes))

  def _image(self, file: Path, name: Any) -> Path:
    """The image of a file, or where it is expected."""
    if file.parent not in self._places:
      self._places[file.parent] = NamedFiles([file.parent]), images_by_stem([file.parent])
    places, beside = self._places[file.parent]
    try:
      named = text_of(name)
    except Misfit:
      named = ""
    found = (places.find(named) if named else None) or beside.get(file.stem)
    return found or (places.missing(named) if named else file.with_suffix(".jpg"))

  def _objects(self, file: Path, shapes: list[Any]) -> list[Drawn]:
    groups: dict[tuple[str, int], list[Drawn]] = defaultdict(list)
    for number, shape in enumerate(shapes, 1):
      place = Place(file, None, f"shape {number}: ", ("shapes", number - 1))
      try:
        drawn, group = _drawn(shape, place)
      except Misfit as error:
        self._log.report(file, None, f"{place.prefix}{error}", Check.LABEL_MALFORMED, "the shape is left out")
        continue
      if drawn is None:
        self._num_without_area += 1
      else:
        groups[drawn.name, -number if group is None else group].append(drawn)
    return [_joined(parts) for parts in groups.values()]

  def note(self, folder: Path, images: set[Path]) -> None:
    """Says what was passed over."""
    for places, _ in self._places.values():
      self._log.note(Check.PATH_FORGIVEN, folder, places.note("imagePath"))
    if self._num_without_area:
      text = f"{self._num_without_area:,} points and lines are not used: they have no area"
      self._log.note(Check.LABEL_LEFT_OVER, folder, text)
    without = [file for _, beside in self._places.values() for file in beside.values() if file not in images]
    if without:
      text = f"{len(without):,} images without a JSON file are not used, as {without[0]}"
      self._log.note(Check.LABEL_LEFT_OVER, folder, text)


def _size(content: dict[str, Any]) -> Size | None:
  try:
    return whole_of(content.get("imageWidth"), 1), whole_of(content.get("imageHeight"), 1)
  except Misfit:
    return None


def _drawn(shape: Any, place: Place) -> tuple[Drawn | None, int | None]:
  """The object of a shape, None of one without area; and its group."""
  if not isinstance(shape, dict):
    raise Misfit(f"it is {shown(shape)}; expected keys with values")
  try:
    name = text_of(shape.get("label"))
  except Misfit as error:
    raise Misfit(f"label {error}") from None
  kind = shape.get("shape_type") or "polygon"
  if isinstance(kind, str) and kind in _NO_AREA:
    return None, None
  points = _points(shape.get("points"))
  box, rings = _box_and_rings(kind, points)
  group = shape.get("group_id")
  is_turned = kind in ("rotation", "oriented_rectangle", "circle")
  return Drawn(name, box, place, rings, is_turned), None if group is None else _group(group)


def _group(group: Any) -> int:
  try:
    return whole_of(group, 0)
  except Misfit as error:
    raise Misfit(f"group_id {error}") from None


def _points(points: Any) -> NDArray[np.float64]:
  """(k, 2) points x, y."""
  pairs = points if isinstance(points, list) else []
  if not pairs or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
    raise Misfit(f"points is {shown(points)}; expected a list of [x, y]")
  try:
    return np.array([[number_of(value) for value in pair] for pair in pairs])
  except Misfit as error:
    raise Misfit(f"a coordinate of points {error}") from None


def _box_and_rings(kind: Any, points: NDArray[np.float64]) -> tuple[Box, Rings]:
  if kind == "polygon":
    if len(points) < 3:
      raise Misfit(f"the polygon has {len(points)} points; expected at least 3")
    return around([points]), (points,)
  if not isinstance(kind, str) or kind not in _NUM_POINTS:
    known = ", ".join(("polygon", *_NUM_POINTS))
    raise Misfit(f"shape_type is {shown(kind)}; expected one of {known}, or points and lines")
  if len(points) not in _NUM_POINTS[kind]:
    expected = " or ".join(map(str, _NUM_POINTS[kind]))
    raise Misfit(f"the {kind} has {len(points)} points; expected {expected}")
  if kind == "circle":
    (x, y), edge = points.tolist()
    radius = math.dist((x, y), edge)
    return (x - radius, y - radius, x + radius, y + radius), ()
  return around([points]), () if kind in ("rectangle", "mask") else (points,)


def _joined(parts: list[Drawn]) -> Drawn:
  """One object of its parts."""
  if len(parts) == 1:
    return parts[0]
  corners = np.array([one.box_xyxy_px for one in parts]).reshape(-1, 2)
  rings = tuple(ring for one in parts for ring in one.rings)
  return parts[0]._replace(box_xyxy_px=around([corners]), rings=rings, turned=all(one.turned for one in parts))
