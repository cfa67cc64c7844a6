"""Label Studio's exports "JSON" and "JSON-MIN": `labelstudio:EXPORT.json:IMAGES_DIR`.

Numbers are percent of the image. A rectangle may be turned about its corner x, y, clockwise in degrees; then the object's
box is the rectangle around the turned one, clipped to the image, and the turned one stays as its outline. A negative size
reaches to the left, or up: x, y is another corner then, as in regions that a program proposed. Polygons stay as outlines
too; an ellipse has the box around it, and x, y is its centre (the tool's documents call it a corner, but its editor draws
and stores the centre). Brush masks, key points, and choices and texts about the whole image are passed over, and those with
a place are counted. A region with several labels, or drawn on an image that was turned in the editor, is refused, because
it can be read in two ways.

A task without annotations, or with cancelled ones alone, is not used, since nobody has finished it; an annotation without
regions says that the image shows no object. Where several people annotated a task the last annotation is taken, which is
said. Predictions are not read. The image is the text of `data` that ends like one ("image" where there are several), found
in IMAGES_DIR also by the name that it had before the upload ("/data/upload/1/3f2a91bc-cat.jpg" is cat.jpg). Classes are the
labels that occur, in alphabetical order.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.reading.image_labels import Drawn, Size, around, drawn_record, ellipse_box, turned
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import DataError, Place, ProblemLog, RecordList, finish, image_ids_of
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Misfit, number_of, shown, text_of, whole_of

_UPLOAD = re.compile(r"[0-9a-f]{8}-")


class _Task(NamedTuple):
  """One task: its place, the name of its image, the size that it says, and what is drawn."""

  place: Place
  image: str
  size: Size | None
  objects: list[Drawn]


@register_source(
  "labelstudio:EXPORT.json:IMAGES_DIR", "Label Studio's exports JSON and JSON-MIN: rectangles, polygons, ellipses"
)
def open_labelstudio(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the tasks and looks for their images.

  Raises:
    DataError: a file is missing or is no such export, no image is left, or an entry is bad (policy stop).
  """
  path, folder = to_path(parts[0]), to_path(parts[1])
  if not is_folder(folder):
    raise DataError(f"data 'labelstudio:{parts[0]}:{parts[1]}': there is no folder {folder}; expected the images there")
  content = read_json(path, DataError, MAX_DATA_BYTES).raw
  if not isinstance(content, list):
    raise DataError(f"{path} is no list of tasks; expected Label Studio's export 'JSON' or 'JSON-MIN'")
  reader = _Reader(path, log)
  tasks = list(reader.tasks(content))
  names = sorted({one.name for task in tasks for one in task.objects})
  index_of = {name: index for index, name in enumerate(names)}
  files = _files(tasks, folder, log)
  records = [
    drawn_record(file, image_id, task.size, task.objects, index_of, path, log)
    for task, file, image_id in zip(tasks, files, image_ids_of(files), strict=True)
  ]
  reader.note()
  return finish(names, range(len(names)), [one for one in records if one is not None], log, str(path))


def _files(tasks: list[_Task], folder: Path, log: ProblemLog) -> list[Path]:
  """The image of every task, or where it is expected."""
  places = NamedFiles([folder])
  found = places.find_all([task.image for task in tasks])
  bare = [_UPLOAD.sub("", PurePosixPath(task.image).name, count=1) for task in tasks]
  number = Counter(bare)  # two uploads may have had one name
  missing = [i for i, file in enumerate(found) if file is None and number[bare[i]] == 1]
  for i, file in zip(missing, places.find_all([bare[i] for i in missing]), strict=True):
    found[i] = file
  log.note(Check.PATH_FORGIVEN, folder, places.note("the tasks"))
  return [file or places.missing(PurePosixPath(task.image).name) for file, task in zip(found, tasks, strict=True)]


class _Reader:
  """Reads tasks, and counts what is passed over."""

  def __init__(self, path: Path, log: ProblemLog) -> None:
    self._path, self._log = path, log
    self._num_unfinished = self._num_repeated = self._num_passed = 0

  def tasks(self, content: list[Any]) -> Iterator[_Task]:
    """The tasks that somebody has annotated, each image once."""
    seen: set[str] = set()
    for number, task in enumerate(content, 1):
      place = Place(self._path, None, f"task {_id(task, number)}: ")
      try:
        regions = self._regions(task)
        if regions is None:
          self._num_unfinished += 1
          continue
        image = _image(task)
      except Misfit as error:
        self._log.report(self._path, None, f"{place.prefix}{error}", Check.IMAGE_MALFORMED, "the task is left out")
        continue
      if image in seen:
        reason = f"{place.prefix}the image {shown(image)} is annotated again"
        self._log.report(self._path, None, reason, Check.IMAGE_DUPLICATE, "the second task is left out")
        continue
      seen.add(image)
      yield self._task(place, image, regions)

  def _regions(self, task: Any) -> list[Any] | None:
    """What is drawn in a task, None where nobody has finished it."""
    if not isinstance(task, dict):
      raise Misfit(f"it is {shown(task)}; expected keys with values")
    if "data" not in task:  # JSON-MIN
      lists = [value for value in task.values() if isinstance(value, list)]
      return [one for value in lists for one in value if isinstance(one, dict)]
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):
      raise Misfit(f"annotations is {shown(annotations)}; expected a list")
    finished = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    if not finished:
      return None
    self._num_repeated += len(finished) > 1
    result = finished[-1].get("result")
    if not isinstance(result, list):
      raise Misfit(f"result of its annotation is {shown(result)}; expected a list")
    return result

  def _task(self, place: Place, image: str, regions: list[Any]) -> _Task:
    objects: list[Drawn] = []
    sizes: list[Size] = []
    for number, region in enumerate(regions, 1):
      here = place._replace(prefix=f"{place.prefix}region {number}: ")
      try:
        drawn = _drawn(region, here)
      except Misfit as error:
        self._log.report(self._path, None, f"{here.prefix}{error}", Check.LABEL_MALFORMED, "the region is left out")
        continue
      if drawn is not None:
        objects.append(drawn[0])
        sizes.append(drawn[1])
      elif _has_place(region):
        self._num_passed += 1
    common = Counter(sizes).most_common(1)
    return _Task(place, image, common[0][0] if common else None, objects)

  def note(self) -> None:
    """Says what was passed over."""
    for number, text in (
      (self._num_unfinished, "tasks without a finished annotation are not used"),
      (self._num_repeated, "tasks have several annotations, of which the last is used"),
      (self._num_passed, "masks and key points are not used"),
    ):
      if number:
        self._log.note(Check.LABEL_LEFT_OVER, self._path, f"{number:,} {text}")


def _id(task: Any, number: int) -> str:
  own = task.get("id") if isinstance(task, dict) else None
  return str(own) if type(own) is int else f"number {number}"


def _image(task: dict[str, Any]) -> str:
  """The text that names the image."""
  data = task.get("data", task)
  found = {
    key: value
    for key, value in (data.items() if isinstance(data, dict) else ())
    if isinstance(value, str) and any(map(is_image_name, (value, re.split(r"[?#]", value)[0])))
  }
  name = found.get("image", next(iter(found.values()), None))
  if name is None or (len(found) > 1 and "image" not in found):
    what = f"{len(found)} texts that end like an image" if found else "no text that ends like an image"
    raise Misfit(f"its data has {what}; expected one, or one called 'image'")
  return text_of(name)


def _has_place(region: Any) -> bool:
  """Whether what is passed over is drawn in the image; a shape without a label belongs to one with it."""
  value = region.get("value", region) if isinstance(region, dict) else None
  return isinstance(value, dict) and any(key in value for key in ("rle", "brushlabels", "keypointlabels"))


def _drawn(region: Any, place: Place) -> tuple[Drawn, Size] | None:
  """The object of a region, and the size of the image that it says; None of what is no object with an area."""
  value = region.get("value", region) if isinstance(region, dict) else None
  if not isinstance(value, dict):
    raise Misfit(f"it is {shown(region)}; expected a region")
  key = next((key for key in ("rectanglelabels", "polygonlabels", "ellipselabels", "labels") if key in value), None)
  if key is None or not any(side in value for side in ("width", "points", "radiusX")):
    return None
  labels = value[key]
  if not isinstance(labels, list) or len(labels) != 1:
    raise Misfit(f"{key} is {shown(labels)}; expected one label")
  try:
    name = text_of(labels[0])
  except Misfit as error:
    raise Misfit(f"{key} {error}") from None
  width, height = (_whole(region, f"original_{side}") for side in ("width", "height"))
  if region.get("image_rotation"):
    raise Misfit(f"it was drawn on an image turned by {shown(region['image_rotation'])}; draw it on the upright image")
  across, down = width / 100, height / 100
  if "points" in value:
    ring = _points(value["points"]) * (across, down)
    return Drawn(name, around([ring]), place, (ring,)), (width, height)
  x, y = _number(value, "x") * across, _number(value, "y") * down
  angle = math.radians(_number(value, "rotation")) if value.get("rotation") else 0.0
  if "radiusX" in value:
    rx, ry = _number(value, "radiusX") * across, _number(value, "radiusY") * down
    return Drawn(name, ellipse_box((x, y), (rx, ry), angle), place, turned=True), (width, height)
  w, h = _number(value, "width") * across, _number(value, "height") * down
  if not angle or not w or not h:
    box = (min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h))
    return Drawn(name, box, place), (width, height)
  ring = turned(np.array([[0, 0], [w, 0], [w, h], [0, h]]), (x, y), angle)
  return Drawn(name, around([ring]), place, (ring,), turned=True), (width, height)


def _whole(region: dict[str, Any], key: str) -> int:
  try:
    return whole_of(region.get(key), 1)
  except Misfit as error:
    raise Misfit(f"{key} {error}") from None


def _number(value: dict[str, Any], key: str) -> float:
  try:
    return number_of(value.get(key))
  except Misfit as error:
    raise Misfit(f"{key} {error}") from None


def _points(points: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
  """(k, 2) points in percent."""
  pairs = points if isinstance(points, list) else []
  if len(pairs) < 3 or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
    raise Misfit(f"points is {shown(points)}; expected a list of at least three [x, y]")
  try:
    return np.array([[number_of(one) for one in pair] for pair in pairs])
  except Misfit as error:
    raise Misfit(f"a coordinate of points {error}") from None
