"""VisDrone-DET as it is downloaded: `visdrone:ROOT`, where ROOT (VisDrone2019-DET-train, ...) holds images/ and
annotations/.

A line of annotations/NAME.txt is `left, top, width, height, score, category, truncation, occlusion`, whole numbers in
pixels from 0; a comma may stand at its end. Categories 1 to 10 are the classes, in their order. Of the truth `score` is
1 for what counts in an evaluation and 0 for what does not:

- category 0 is a region in which nothing is annotated, and category 11 ("others") an object of no class: both become
  ignored regions. The challenge's page (aiskyeye.com, object detection evaluation) says that rare vehicles (others) are
  ignored in the evaluation; docs/data.md lists what it leaves open.
- score 0 with a category of 1 to 10 becomes a crowd region of its class, by COCO's rule for crowds: the results format
  says that such a box is ignored, and the page that it skips objects of which more than half is cut off.
"""

from __future__ import annotations

from pathlib import Path

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.image_labels import ImageLabels, images_by_stem, labels_of, report_unlabelled
from prn_jax.data_pipelines.records import DataError, Place, ProblemLog, RecordList, finish
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import load_text, split_lines
from prn_jax.files.values import Misfit, shown

NAMES = (
  "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor",
)  # fmt: skip
_IGNORED_REGION, _OTHERS = 0, 11
_FIELDS = "left, top, width, height, score, category, truncation, occlusion"


@register_source("visdrone:ROOT", "VisDrone-DET as downloaded: ROOT holds images/ and annotations/")
def open_visdrone(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations of all images of a split.

  Raises:
    DataError: a folder is missing, no image is left, or an entry is bad (policy stop).
  """
  root = to_path(parts[0])
  _check_folders(root)
  images = images_by_stem([root / "images"])
  files = {file.stem: file for file in sorted((root / "annotations").iterdir()) if file.suffix.lower() == ".txt"}
  report_unlabelled((image for stem, image in images.items() if stem not in files), ".txt", log)
  records = []
  for stem, file in files.items():
    labels = labels_of(images.get(stem, root / "images" / f"{stem}.jpg"), log)
    if labels is not None and _read(file, labels):
      records.append(labels.record(stem))
  return finish(NAMES, range(1, 1 + len(NAMES)), records, log, str(root))


def _check_folders(root: Path) -> None:
  if is_folder(root / "images") and is_folder(root / "annotations"):
    return
  inside = sorted(path.parent for path in root.glob("*/annotations") if is_folder(path)) if is_folder(root) else []
  hint = f" Did you mean {inside[0]}?" if inside else " The test-challenge split has no annotations."
  raise DataError(f"'{root}' is no split of VisDrone: expected the folders images and annotations in it.{hint}")


def _read(file: Path, labels: ImageLabels) -> bool:
  """Reads one annotation file; whether it could be read at all."""
  try:
    lines = split_lines(load_text(file))
  except Misfit as error:
    labels.log.report(file, None, f"it {error}", Check.LABEL_MALFORMED, "the image is left out")
    return False
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      left, top, width, height, score, category, *_ = _values(line)
    except Misfit as error:
      labels.log.report(file, number, f"{shown(line.strip())} {error}", Check.LABEL_MALFORMED, "the line is left out")
      continue
    place, box = Place(file, number), (left, top, left + width, top + height)
    if category in (_IGNORED_REGION, _OTHERS):
      labels.ignore(box, place)
    elif category.is_integer() and 1 <= category <= len(NAMES):
      labels.add(box, int(category) - 1, place, is_crowd=not score)
    else:
      reason = f"category {category:g} is none of 0 (ignored region), 1 to {len(NAMES)} and {_OTHERS} (others)"
      labels.log.report(file, number, reason, Check.LABEL_UNKNOWN_CLASS, "the line is left out")
  return True


def _values(line: str) -> list[float]:
  words = line.strip().rstrip(",").split(",")
  try:
    values = [float(word) for word in words]
  except ValueError:
    values = []
  if len(values) != 8 or "_" in line:
    raise Misfit(f"is not {_FIELDS}")
  if values[4] not in (0, 1):
    raise Misfit(f"has score {values[4]:g}, expected 0 or 1: is it a result, not the truth?")
  return values
