"""COCO's JSON: `coco:ANNOTATIONS.json:IMAGES_DIR` (https://cocodataset.org/#format-data, object detection).

Boxes are [x, y, width, height] in pixels; categories keep their own ids (1..90 for 80 classes) in `category_ids` and
are numbered by ascending id, as every COCO tool does. Crowd regions and the area of the segmentation are kept, and its
polygons where they are asked for; run-length codes, which crowds have, are not made polygons. Where `bbox` is missing
or has no size, the box around the segmentation takes its place. Objects with `"ignore": 1` are difficult ones: that is
how VOC's marks stand in the JSON files made of it. `"ignored_regions"` of an image, [x, y, width, height] each, are places
where nothing is annotated (`prn data convert` writes them; other programs pass over them). Ids of annotations serve messages
alone, so they may be text, and may begin anew with every image; two of one image with the same id are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.reading.segmentations import rings_of, usable_box
from prn_jax.data_pipelines.records import (
  Box,
  DataError,
  Object,
  Place,
  ProblemLog,
  RecordList,
  Rings,
  checked_box,
  finish,
  make_record,
)
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files import structured
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.values import Misfit, number_of, shown, text_of, truth_of, whole_of

_MAX_ID = 2**63 - 1  # as int64, which is what evaluations number images by
_MAX_SIDE_PX = 2**31 - 1


@register_source("coco:ANNOTATIONS.json:IMAGES_DIR", "COCO's object detection JSON")
def open_coco(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations and looks for the images.

  Raises:
    DataError: a file is missing or is no COCO JSON, no image is left, or an entry is bad (policy stop).
  """
  path, folder = to_path(parts[0]), to_path(parts[1])
  content = _read_json(path)
  if not is_folder(folder):
    raise DataError(f"data 'coco:{parts[0]}:{parts[1]}': there is no folder {folder}; expected the images there")
  categories = _by_id(content["categories"], "category", path, log)
  ids, names, index_of = _classes(categories, path, log)
  images = _by_id(content["images"], "image", path, log)
  if images and not ids:
    first = f": all were left out, the first because of {log.problems[0]}" if log.problems else ""
    raise DataError(f"{path} has no categories{first}. Expected at least one with a whole number as id and a name.")
  objects = _objects(content["annotations"], images, index_of, path, log)
  files = _files(images, folder, path, log)
  records = [
    make_record(files[key], key, _size(image), objects[key], ignored_xyxy_px=_regions(key, image, path, log))
    for key, image in images.items()
    if key in files
  ]
  return finish(names, ids, records, log, str(path))


def _files(images: dict[int, dict[str, Any]], folder: Path, path: Path, log: ProblemLog) -> dict[int, Path]:
  """The file of every image that has one."""
  named: dict[int, str] = {}
  for image_id, image in images.items():
    file_name = image.get("file_name")
    if _is_text(file_name) and file_name:
      named[image_id] = file_name
      continue
    reason = f"the image of id {image_id} has file_name {shown(file_name)}; expected the name of a file in {folder}"
    log.report(path, None, reason, Check.IMAGE_MALFORMED, "the image is left out")
  places = NamedFiles([folder])
  files: dict[int, Path] = {}
  for (image_id, name), file in zip(named.items(), places.find_all(list(named.values())), strict=True):
    if file is not None:
      files[image_id] = file
      continue
    reason = f"the image of id {image_id} in {path} does not exist"
    missing = places.missing(name)
    said = "" if missing == folder / name else f" (its file_name is {shown(name)})"
    log.report(missing, None, reason + said, Check.IMAGE_MISSING, "the image is left out")
  log.note(Check.PATH_FORGIVEN, path, places.note(str(path)))
  return files


def _read_json(path: Path) -> dict[str, Any]:
  root = structured.read_json(path, DataError, structured.MAX_DATA_BYTES)
  for key in ("images", "annotations", "categories"):
    if not isinstance(root.raw, dict) or not isinstance(root.raw.get(key), list):
      raise DataError(
        f"{path} has no list '{key}'; expected COCO's object detection format with images, annotations and categories"
      )
  return dict(root.raw)


def _by_id(entries: Sequence[Any], what: str, path: Path, log: ProblemLog) -> dict[int, dict[str, Any]]:
  """Entries by their id, in the file's order."""
  found: dict[int, dict[str, Any]] = {}
  of_image = what == "image"
  malformed = Check.IMAGE_MALFORMED if of_image else Check.CLASS_MALFORMED
  duplicate = Check.IMAGE_DUPLICATE if of_image else Check.CLASS_DUPLICATE
  for position, entry in enumerate(entries):
    entry_id = _id(entry.get("id")) if isinstance(entry, dict) else None
    if entry_id is None:
      said = shown(entry.get("id") if isinstance(entry, dict) else None)
      reason = f"{what} number {position} has id {said}; expected a whole number"
      log.report(path, None, reason, malformed, f"the {what} is left out")
    elif entry_id in found:
      reason = f"two entries of kind {what} have id {entry_id}"
      log.report(path, None, reason, duplicate, f"the second {what} is left out")
    else:
      found[entry_id] = entry
  return found


def _classes(
  categories: dict[int, dict[str, Any]], path: Path, log: ProblemLog
) -> tuple[list[int], list[str], dict[int, int]]:
  """Category ids and names in the order of the classes, and the class of every id."""
  ids: list[int] = []
  names: list[str] = []
  index_of: dict[int, int] = {}
  for category in sorted(categories):
    name = _name(category, categories[category].get("name"), path, log)
    if name in names:
      first = ids[names.index(name)]
      reason = f"the categories {first} and {category} are both called '{name}'"
      log.report(path, None, reason, Check.CLASS_DUPLICATE, f"objects of {category} count as {first}")
      index_of[category] = names.index(name)
      continue
    index_of[category] = len(ids)
    ids.append(category)
    names.append(name)
  return ids, names, index_of


def _name(category: int, name: Any, path: Path, log: ProblemLog) -> str:
  """The name of a category; without one, its id."""
  if name is None:
    return str(category)
  if _is_text(name) or (isinstance(name, int | float) and not isinstance(name, bool)):
    return str(name)
  reason = f"category {category} has name {shown(name)}; expected text"
  log.report(path, None, reason, Check.CLASS_MALFORMED, f"it is called '{category}'")
  return str(category)


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
  try:
    return whole_of(image.get("width"), 1, _MAX_SIDE_PX), whole_of(image.get("height"), 1, _MAX_SIDE_PX)
  except Misfit:
    return None


def _objects(
  annotations: Sequence[Any], images: dict[int, dict[str, Any]], index_of: dict[int, int], path: Path, log: ProblemLog
) -> dict[int, list[Object]]:
  """The usable annotations of every image."""
  objects: dict[int, list[Object]] = {image_id: [] for image_id in images}
  owners: dict[Any, int] = {}  # the first image of every id, and further ones
  others: set[tuple[int, Any]] = set()
  num_around = num_unread = 0
  for position, annotation in enumerate(annotations):
    if not isinstance(annotation, dict):
      reason = f"annotation number {position} is {shown(annotation)}; expected keys with values"
      log.report(path, None, reason, Check.LABEL_MALFORMED, "the annotation is left out")
      continue
    own_id = annotation.get("id")
    own_id = own_id if isinstance(own_id, int | float | str) else None
    prefix = f"annotation number {position}: " if own_id is None else f"annotation {_plain(own_id)}: "
    image_id = _id(annotation.get("image_id"))
    if image_id is None or image_id not in images:
      reason = f"{prefix}image_id {shown(annotation.get('image_id'))} is not among the {len(images)} images"
      log.report(path, None, reason, Check.LABEL_UNKNOWN_IMAGE, "the annotation is left out")
      continue
    if own_id in owners and (owners[own_id] == image_id or (image_id, own_id) in others):
      reason = f"two annotations of image {image_id} have id {_plain(own_id)}"
      log.report(path, None, reason, Check.LABEL_DUPLICATE, "the second annotation is left out")
      continue
    if own_id in owners:
      others.add((image_id, own_id))
    elif own_id is not None:
      owners[own_id] = image_id
    found, is_around = _object(annotation, images[image_id], index_of, prefix, path, log)
    if found is not None:
      rings = _rings(annotation.get("segmentation")) if log.keep_polygons else ()
      num_unread += rings is None
      objects[image_id].append(replace(found, polygon_px=rings) if rings else found)
      num_around += is_around
  if num_around:
    text = (
      f"{num_around:,} annotations have no bbox, or one without size; the boxes around their segmentations are used"
    )
    log.note(Check.LABEL_POLYGONS, path, text)
  if num_unread:
    text = f"{num_unread:,} segmentations are run-length codes, or no polygons; their objects have boxes alone"
    log.note(Check.LABEL_POLYGONS, path, text)
  if others:
    text = f"{len(others):,} annotations have the id of one of another image; all are used"
    log.note(Check.LABEL_SHARED_ID, path, text)
  return objects


def _object(
  annotation: dict[str, Any], image: dict[str, Any], index_of: dict[int, int], prefix: str, path: Path, log: ProblemLog
) -> tuple[Object | None, bool]:
  """The object of an annotation, None where it cannot be used; and whether its box is that of its segmentation."""

  def refuse(reason: str, check: Check = Check.LABEL_MALFORMED) -> tuple[None, bool]:
    log.report(path, None, f"{prefix}{reason}", check, "the annotation is left out")
    return None, False

  category = _id(annotation.get("category_id"))
  if category is None or category not in index_of:
    said = shown(annotation.get("category_id"))
    return refuse(f"category_id {said} is not among the {len(index_of)} categories", Check.LABEL_UNKNOWN_CLASS)
  try:
    box, is_around = usable_box(annotation)
  except Misfit as error:
    return refuse(f"it has no bbox, and its segmentation {error}")
  if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_number(value) for value in box):
    return refuse(f"bbox is {shown(box)}; expected four numbers x, y, width, height")
  try:
    is_crowd = truth_of(annotation.get("iscrowd"), unsaid=False)
  except Misfit as error:
    return refuse(f"iscrowd {error}")
  try:
    is_difficult = truth_of(annotation.get("ignore"), unsaid=False)
  except Misfit as error:
    return refuse(f"ignore {error}")
  x, y, width, height = (_float(value) for value in box)
  if all(0 <= value <= 1 for value in (x, y, width, height)) and width > 0 and height > 0:
    return refuse(f"bbox {shown(box)} looks relative to the image; expected pixels", Check.LABEL_UNIT)
  usable = checked_box((x, y, x + width, y + height), _size(image), log, Place(path, None, prefix))
  if usable is None:
    return None, False
  x1, y1, x2, y2 = usable
  # Clipping is the only thing that changes a box; all others stay as written.
  exact = (x, y, width, height) if usable == (x, y, x + width, y + height) else (x1, y1, x2 - x1, y2 - y1)
  area = _area_px(annotation.get("area"), exact)
  found = Object(usable, index_of[category], is_crowd, is_difficult, area_px=area, box_xywh_px=exact)
  return found, is_around


def _rings(segmentation: Any) -> Rings | None:
  """The polygons of an annotation; None where it has a segmentation of another kind."""
  try:
    return rings_of(segmentation)
  except Misfit:
    return None


def _regions(image_id: int, image: dict[str, Any], path: Path, log: ProblemLog) -> list[Box]:
  """The ignored regions of an image, as corners."""
  given = image.get("ignored_regions")
  if given is None or given == []:
    return []
  regions = []
  for number, region in enumerate(given if isinstance(given, list) else [given], 1):
    prefix = f"ignored region {number} of image {image_id}: "
    if not isinstance(region, list) or len(region) != 4 or not all(_is_number(value) for value in region):
      reason = f"{prefix}it is {shown(region)}; expected four numbers x, y, width, height"
      log.report(path, None, reason, Check.LABEL_MALFORMED, "the region is left out")
      continue
    x, y, width, height = (_float(value) for value in region)
    usable = checked_box((x, y, x + width, y + height), _size(image), log, Place(path, None, prefix))
    if usable is not None:
      regions.append(usable)
  return regions


def _plain(value: object) -> str:
  """An id as messages show it."""
  return shown(value)[1:-1] if isinstance(value, str) else str(value)


def _area_px(area: Any, box_xywh_px: tuple[float, float, float, float]) -> float:
  """The area of the segmentation; of the box where the file does not give it."""
  try:
    return number_of(area)
  except Misfit:
    return box_xywh_px[2] * box_xywh_px[3]


def _id(value: Any) -> int | None:
  """The number of an image, category or annotation, which some tools write as "1" or 1.0."""
  if type(value) is int and abs(value) <= _MAX_ID:  # there are millions
    return value
  try:
    return whole_of(value, -_MAX_ID, _MAX_ID)
  except Misfit:
    return None


def _is_number(value: object) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: float) -> float:
  """The number; one with hundreds of digits is infinite."""
  try:
    return float(value)
  except OverflowError:
    return math.inf


def _is_text(value: object) -> bool:
  try:
    text_of(value)
  except Misfit:
    return False
  return True
