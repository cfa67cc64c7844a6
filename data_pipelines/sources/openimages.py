"""Open Images' boxes as they are downloaded: `openimages:BOXES.csv:CLASSES.csv:IMAGES_DIR`.

BOXES.csv (train-annotations-bbox.csv, ...) has a head line and the columns ImageID, LabelName, XMin, XMax, YMin, YMax
(shares of the image) and, for most, IsGroupOf and others. CLASSES.csv (class-descriptions-boxable.csv) has a label and its
name in every line; all its classes count, in its order, so that a shorter copy of it chooses classes: rows of others
are then problems, which `--on-bad-data skip` leaves out. IMAGES_DIR holds IMAGEID.jpg, itself or in folders below.

The images are those that IMAGES_DIR and BOXES.csv both have. Rows of other images are passed over, as of a subset that
was downloaded. So are images without a row: in Open Images a class is annotated in an image where somebody verified that
it is there, so that an image without a box need not be without objects.

- IsGroupOf marks a box around more than five objects that touch: it becomes a crowd region of its class. Open Images'
  evaluation too leaves alone detections of which half or more lies in such a box.
- IsDepiction (a drawing, a statue) is an object like any other, as in that evaluation.
- Which classes were verified in an image stands in files of their own, which are not read. Open Images' evaluation does
  not count detections of classes that were not; here they count as false. Nor are boxes repeated for the classes above
  theirs in the hierarchy.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.image_labels import ImageLabels, images_by_stem, labels_of
from prn_jax.data_pipelines.records import DataError, Place, ProblemLog, RecordList, finish
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import read_lines
from prn_jax.files.values import Misfit, number_of, shown

_SIDES = ("XMin", "YMin", "XMax", "YMax")
_NEEDED = ("ImageID", "LabelName", *_SIDES)
_MAX_RELATIVE = 2.0  # beyond it numbers are pixels


@register_source(
  "openimages:BOXES.csv:CLASSES.csv:IMAGES_DIR",
  "Open Images' CSV files of boxes and classes, of the images that are in IMAGES_DIR",
)
def open_openimages(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the boxes of the images that are there.

  Raises:
    DataError: a file is missing or lacks a column, no image is left, or a row is bad (policy stop).
  """
  path, classes, folder = map(to_path, parts)
  if not is_folder(folder):
    raise DataError(f"data 'openimages:{':'.join(parts)}': there is no folder {folder}; expected the images there")
  names, index_of = _classes(classes, log)
  images = images_by_stem([folder], deep=True)
  labels: dict[str, ImageLabels | None] = {}
  others: dict[str, int] = {}
  rows = _rows(path, log)
  columns = _columns(path, next(rows, (1, []))[1])
  width = max(columns.values()) + 1
  for line, row in rows:
    if len(row) < width:
      reason = f"the row has {len(row)} fields; expected {width}"
      log.report(path, line, reason, Check.LABEL_MALFORMED, "the row is left out")
      continue
    image_id = row[columns["ImageID"]]
    if image_id not in images:
      others[image_id] = others.get(image_id, 0) + 1
      continue
    if image_id not in labels:
      labels[image_id] = labels_of(images[image_id], log)
    if (found := labels[image_id]) is not None:
      _add(found, row, columns, index_of, Place(path, line))
  _note_others(images, labels, others, path, folder, log)
  records = [found.record(image_id) for image_id, found in labels.items() if found is not None]
  return finish(names, range(len(names)), records, log, str(path))


def _rows(path: Path, log: ProblemLog) -> Iterator[tuple[int, list[str]]]:
  """Number and fields of every line that is not blank."""
  for number, line in enumerate(read_lines(path, DataError), 1):
    if not line.strip():
      continue
    try:
      yield number, line.split(",") if '"' not in line else next(csv.reader([line]))
    except csv.Error as error:
      log.report(path, number, f"the line is no CSV: {error}", Check.LABEL_MALFORMED, "the line is left out")


def _classes(path: Path, log: ProblemLog) -> tuple[list[str], dict[str, int]]:
  """The names of the classes, and the class of every label."""
  names: dict[str, str] = {}
  index_of: dict[str, int] = {}
  for line, row in _rows(path, log):
    if [field.strip() for field in row[:2]] == ["LabelName", "DisplayName"]:
      continue
    if len(row) != 2 or not all(field.strip() for field in row):
      reason = f"{shown(','.join(row))} is no label and name, as '/m/0k4j,Car'"
      log.report(path, line, reason, Check.CLASS_MALFORMED, "the class is left out")
      continue
    label, name = (field.strip() for field in row)
    if label in index_of:
      log.report(
        path, line, f"the label {shown(label)} is there already", Check.CLASS_DUPLICATE, "the line is left out"
      )
      continue
    if name in names:
      reason = f"the labels {names[name]} and {label} are both called '{name}'"
      log.report(path, line, reason, Check.CLASS_DUPLICATE, f"objects of {label} count as {names[name]}")
    names.setdefault(name, label)
    index_of[label] = list(names).index(name) if names[name] != label else len(names) - 1
  if not names:
    raise DataError(f"{path} holds no classes; expected a label and its name in every line, as '/m/0k4j,Car'")
  return list(names), index_of


def _columns(path: Path, head: list[str]) -> dict[str, int]:
  """The place of every column."""
  columns = {name.strip(): index for index, name in enumerate(head)}
  for name in _NEEDED:
    if name not in columns:
      raise DataError(
        f"{path}:1 has no column {name}; expected a head line with {', '.join(_NEEDED)}, found {shown(','.join(head))}"
      )
  return columns


def _add(labels: ImageLabels, row: list[str], columns: dict[str, int], index_of: dict[str, int], place: Place) -> None:
  """Adds the object of a row."""

  def refuse(reason: str, check: Check) -> None:
    labels.log.report(place.file, place.line, reason, check, "the row is left out")

  index = index_of.get(row[columns["LabelName"]])
  if index is None:
    return refuse(f"LabelName {shown(row[columns['LabelName']])} is not among the classes", Check.LABEL_UNKNOWN_CLASS)
  relative = []
  for side in _SIDES:
    try:
      relative.append(number_of(row[columns[side]]))
    except Misfit as error:
      return refuse(f"{side} {error}", Check.LABEL_MALFORMED)
  if max(map(abs, relative)) > _MAX_RELATIVE:
    text = ", ".join(f"{side} {value:g}" for side, value in zip(_SIDES, relative, strict=True))
    return refuse(f"{text} look like pixels; expected shares of the image, 0 to 1", Check.LABEL_UNIT)
  is_group = "IsGroupOf" in columns and row[columns["IsGroupOf"]].strip() == "1"  # -1: it is not known
  width, height = labels.size
  box = (relative[0] * width, relative[1] * height, relative[2] * width, relative[3] * height)
  labels.add(box, index, place, is_crowd=is_group)
  return None


def _note_others(
  images: dict[str, Path],
  labels: dict[str, ImageLabels | None],
  others: dict[str, int],
  path: Path,
  folder: Path,
  log: ProblemLog,
) -> None:
  """Says what was passed over.

  Raises:
    DataError: no row is of an image that is there.
  """
  if others and not labels:
    raise DataError(
      f"none of the {len(others):,} images in {path} is among the {len(images):,} in {folder}; expected e.g. "
      f"{folder / f'{next(iter(others))}.jpg'}. Is it the file of another split?"
    )
  if others:
    text = f"{sum(others.values()):,} rows of {len(others):,} images that are not in {folder} are not used"
    log.note(Check.LABEL_LEFT_OVER, path, text)
  without = [stem for stem in images if stem not in labels]
  if without:
    text = f"{len(without):,} images without a row are not used, as {without[0]}: they need not be without objects"
    log.note(Check.LABEL_LEFT_OVER, folder, text)
