"""BDD100K's labels in every form that was published: `bdd100k:LABELS:IMAGES_DIR`.

LABELS is a JSON file, or a folder of them:

- 2018, `bdd100k_labels_images_train.json`: a list of frames {"name", "labels": [{"category", "box2d": {x1, y1, x2, y2}}]};
- one JSON an image, {"name", "frames": [{"objects": [...]}]}, whose name lacks the ending .jpg;
- 2020, Scalabel's `det_20/det_train.json`: as of 2018, or {"frames": [...]}. A frame without labels shows no objects.

Frames of videos are also sought in IMAGES_DIR/VIDEONAME.

All are numbered by the ten names of 2018, in the order that their networks have: car, bus, person, bike, truck, motor,
train, rider, traffic sign, traffic light. What was renamed in 2020 has its old name: pedestrian is person, motorcycle
motor, bicycle bike. Objects of "other vehicle", "other person" and "trailer" become ignored regions. (BDD100K's own
tools can count them as crowds of car, pedestrian and truck instead.) The attributes `crowd` and `ignored` make an object
a crowd region of its class, as Scalabel's conversion to COCO does.

Corners are places in pixels from the corner of the first pixel, as BDD100K's format says; its own evaluation measures
boxes as x2 - x1 + 1, which is a setting of the evaluation. Lanes, drivable areas and other labels without box2d are
passed over; an object of the ten classes that has only a closed polygon (instance segmentation) has the box around it, its
curves in short straight lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.reading.image_labels import ImageLabels, around, labels_of
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import Box, DataError, Place, ProblemLog, RecordList, Rings, finish, image_ids_of
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_DATA_BYTES, load_json, load_text
from prn_jax.files.values import Misfit, number_of, shown, text_of, truth_of

NAMES = (
  "car", "bus", "person", "bike", "truck", "motor", "train", "rider", "traffic sign", "traffic light",
)  # fmt: skip
RENAMED = {"pedestrian": "person", "motorcycle": "motor", "bicycle": "bike"}
IGNORED = frozenset(("other vehicle", "other person", "trailer"))
_INDEX_OF = {name: index for index, name in enumerate(NAMES)} | {new: NAMES.index(old) for new, old in RENAMED.items()}
_POINTS_OF_CURVE = 7
_SIDES = ("x1", "y1", "x2", "y2")


class _Frame(NamedTuple):
  """One image: the file that labels it, its name and video as written there, its labels, and the way to them in JSON."""

  file: Path
  name: str
  video: str
  labels: list[Any]
  way: tuple[str | int, ...]


@register_source(
  "bdd100k:LABELS:IMAGES_DIR", "BDD100K's labels of 2018 (a list, or one JSON an image) and of 2020 (Scalabel)"
)
def open_bdd100k(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the labels and looks for the images.

  Raises:
    DataError: a file is missing or holds no labels of BDD100K, no image is left, or an entry is bad (policy stop).
  """
  path, folder = to_path(parts[0]), to_path(parts[1])
  if not is_folder(folder):
    raise DataError(f"data 'bdd100k:{parts[0]}:{parts[1]}': there is no folder {folder}; expected the images there")
  frames = list(_frames(path, log))
  files = _files(frames, folder, log)
  ids = image_ids_of(files)
  records = []
  num_around = 0
  for frame, file, image_id in zip(frames, files, ids, strict=True):
    labels = labels_of(file, log)
    if labels is not None:
      num_around += sum(_add(labels, frame, position, label) for position, label in enumerate(frame.labels, 1))
      records.append(labels.record(image_id))
  if num_around:
    text = f"{num_around:,} objects have polygons and no box2d; the boxes around them are used"
    log.note(Check.LABEL_POLYGONS, path, text)
  return finish(NAMES, range(len(NAMES)), records, log, str(path))


def _frames(path: Path, log: ProblemLog) -> Iterator[_Frame]:
  """The images that a file, or all files of a folder, label; each once."""
  seen: dict[tuple[str, str], Path] = {}
  files = sorted(path.rglob("*.json")) if is_folder(path) else [path]
  if not files:
    raise DataError(f"the folder {path} holds no .json file; expected BDD100K's labels")
  for file in files:
    try:
      way, labels, entries = _entries(load_json(load_text(file, MAX_DATA_BYTES)))
    except Misfit as error:
      if file == path:
        place = path if error.line is None else f"{path}:{error.line}"
        raise DataError(f"{place} {error}.") from None
      log.report(file, error.line, f"it {error}", Check.LABEL_MALFORMED, "its images are left out")
      continue
    for position, entry in enumerate(entries, 1):
      try:
        frame = _frame(file, entry, (*way, position - 1, labels))
      except Misfit as error:
        log.report(file, None, f"image number {position}: {error}", Check.IMAGE_MALFORMED, "the image is left out")
        continue
      key = (frame.video, frame.name)
      if key in seen:
        reason = f"the image {shown(frame.name)} is labelled again (first in {seen[key]})"
        log.report(file, None, reason, Check.IMAGE_DUPLICATE, "the second entry is left out")
        continue
      seen[key] = file
      yield frame


def _entries(content: Any) -> tuple[tuple[str, ...], str, list[Any]]:
  """The images of one file in the form of 2018, behind the way to their list and the key of their labels."""
  if isinstance(content, list):
    return (), "labels", content
  frames = content.get("frames") if isinstance(content, dict) else None
  if not isinstance(frames, list):
    raise Misfit("has no list of frames; expected BDD100K's labels, a list of images with name and labels")
  if "name" not in content:
    return ("frames",), "labels", frames
  if len(frames) != 1 or not isinstance(frames[0], dict):
    raise Misfit(f"has {len(frames)} frames of one image; expected one")
  return ("frames",), "objects", [{"name": content["name"], "labels": frames[0].get("objects")}]


def _frame(file: Path, entry: Any, way: tuple[str | int, ...]) -> _Frame:
  if not isinstance(entry, dict):
    raise Misfit(f"it is {shown(entry)}; expected name and labels")
  texts = []
  for key in ("name", "videoName"):
    try:
      texts.append(text_of(entry.get(key) or ("" if key == "videoName" else None)))
    except Misfit as error:
      raise Misfit(f"{key} {error}") from None
  labels = entry.get("labels")
  if labels is not None and not isinstance(labels, list):
    raise Misfit(f"labels is {shown(labels)}; expected a list")
  name = texts[0] if is_image_name(texts[0]) else f"{texts[0]}.jpg"
  return _Frame(file, name, texts[1], labels or [], way)


def _files(frames: list[_Frame], folder: Path, log: ProblemLog) -> list[Path]:
  """The image of every frame, or where it is expected."""
  places = NamedFiles([folder])
  found = places.find_all([frame.name for frame in frames])
  in_videos = {i: f"{frames[i].video}/{frames[i].name}" for i, file in enumerate(found) if not file and frames[i].video}
  for i, file in zip(in_videos, places.find_all(list(in_videos.values())), strict=True):
    found[i] = file
  log.note(Check.PATH_FORGIVEN, folder, places.note("the labels"))
  return [file or places.missing(frame.name) for file, frame in zip(found, frames, strict=True)]


def _add(labels: ImageLabels, frame: _Frame, position: int, label: Any) -> bool:
  """Adds what a label says; whether it is an object with a polygon alone."""
  place = Place(frame.file, None, f"image {frame.name}, label {position}: ", (*frame.way, position - 1))

  def refuse(reason: object, check: Check = Check.LABEL_MALFORMED) -> bool:
    labels.log.report(frame.file, None, f"{place.prefix}{reason}", check, "the label is left out")
    return False

  if not isinstance(label, dict):
    return refuse(f"it is {shown(label)}; expected keys with values")
  category, box2d = label.get("category"), label.get("box2d")
  index = _INDEX_OF.get(category) if isinstance(category, str) else None
  try:
    rings = _rings(label.get("poly2d")) if index is not None else ()
    if box2d is None and not rings:
      return False  # a lane, an area
    box = around(rings) if box2d is None else _box(box2d)
    if isinstance(category, str) and category in IGNORED:
      labels.ignore(box, place)
      return False
    is_crowd = _is_crowd(label.get("attributes"))
  except Misfit as error:
    return refuse(error)
  if index is None:
    return refuse(f"category {shown(category)} is none of BDD100K's ten", Check.LABEL_UNKNOWN_CLASS)
  labels.add(box, index, place, is_crowd=is_crowd, rings=rings)
  return box2d is None


def _box(box2d: Any) -> Box:
  if not isinstance(box2d, dict):
    raise Misfit(f"box2d is {shown(box2d)}; expected x1, y1, x2, y2")
  corners = []
  for side in _SIDES:
    value = box2d.get(side)
    try:
      corners.append(value if type(value) is float else number_of(value))
    except Misfit as error:
      raise Misfit(f"box2d.{side} {error}") from None
  return corners[0], corners[1], corners[2], corners[3]


def _rings(poly2d: Any) -> Rings:
  """The closed polygons of a label; () where it has none."""
  rings = []
  for one in poly2d if isinstance(poly2d, list) else ():
    if not isinstance(one, dict) or not one.get("closed"):
      continue
    try:
      points = np.array(one.get("vertices"), np.float64)
    except (ValueError, TypeError, OverflowError):
      points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
      raise Misfit("poly2d holds a polygon that is not a list of at least three points [x, y]")
    types = one.get("types")
    rings.append(_without_curves(points, types if isinstance(types, str) else "L" * len(points)))
  return tuple(rings)


def _without_curves(points: NDArray[np.float64], types: str) -> NDArray[np.float64]:
  """A polygon with points on its curves in place of their control points.

  Args:
    points: (n, 2).
    types: n letters: L is a point of the polygon, and CC between two of them the control points of a cubic Bezier curve.
  """
  if len(types) != len(points) or re.sub("CC", "", types).strip("L"):
    raise Misfit(f"poly2d has {len(points)} vertices of types {shown(types)}; expected L, or CC for a curve, for each")
  parts = []
  t = np.linspace(0, 1, 2 + _POINTS_OF_CURVE)[1:-1, None]
  for found in re.finditer("L|CC", types):
    i, j = found.span()
    a, b, c, d = points[i - 1], points[i], points[j - 1], points[j % len(points)]
    curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    parts.append(curve if j - i == 2 else points[i:j])
  return np.concatenate(parts)


def _is_crowd(attributes: Any) -> bool:
  found = False
  for key in ("crowd", "ignored"):
    try:
      found |= truth_of(attributes.get(key) if isinstance(attributes, dict) else None, unsaid=False)
    except Misfit as error:
      raise Misfit(f"attributes.{key} {error}") from None
  return found
