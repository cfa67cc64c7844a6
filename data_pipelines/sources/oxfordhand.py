"""VGG's hands (Oxford, 2011) as they are downloaded: `oxfordhand:ROOT:SPLIT`, SPLIT training, validation, test or trainval.

ROOT (hand_dataset) holds SPLIT_dataset/SPLIT_data/ with images/*.jpg and annotations/*.mat; trainval is training and
validation together, which is what detectors are usually trained on. A .mat holds `boxes`, a cell of one struct a hand, whose
first four fields of two numbers are the corners of a turned box, each as row, column: y before x. Further fields are not
looked at. The hand's box is the rectangle around the corners, clipped to the image; the corners stay as its outline.
Corners are taken as places in pixels as they stand. (MATLAB counts from 1; the data does not say which corner of a pixel
is meant, and other readers leave them as they are too.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.image_labels import Points, box_of, images_by_stem, labels_of, report_unlabelled
from prn_jax.data_pipelines.reading.matlab import load_mat
from prn_jax.data_pipelines.records import DataError, Place, ProblemLog, RecordList, finish, image_ids_of
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import load_bytes
from prn_jax.files.values import Misfit, shown

_SPLITS = {name: (name,) for name in ("training", "validation", "test")} | {"trainval": ("training", "validation")}
_MAX_MAT_BYTES = 1 << 20  # those of the set have some thousand


@register_source("oxfordhand:ROOT:SPLIT", "VGG's hands as downloaded; SPLIT is training, validation, trainval or test")
def open_oxfordhand(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations of one split.

  Raises:
    DataError: a folder is missing, no image is left, or an entry is bad (policy stop).
  """
  root, split = to_path(parts[0]), parts[1]
  if split not in _SPLITS:
    known = ", ".join(_SPLITS)
    raise DataError(
      f"data 'oxfordhand:{parts[0]}:{split}': no split '{split}'{did_you_mean(split, _SPLITS)}; it has {known}"
    )
  images: list[Path] = []
  files: list[Path] = []
  for name in _SPLITS[split]:
    folder = root / f"{name}_dataset" / f"{name}_data"
    for needed in (folder / "images", folder / "annotations"):
      if not is_folder(needed):
        raise DataError(f"'{root}' is no root of VGG's hands (hand_dataset): there is no folder {needed}")
    found = images_by_stem([folder / "images"])
    mats = {file.stem: file for file in sorted((folder / "annotations").iterdir()) if file.suffix.lower() == ".mat"}
    report_unlabelled((image for stem, image in found.items() if stem not in mats), ".mat", log)
    images += [found.get(stem, folder / "images" / f"{stem}.jpg") for stem in mats]
    files += mats.values()
  records = []
  for image, file, image_id in zip(images, files, image_ids_of(images), strict=True):
    labels = labels_of(image, log)
    if labels is None:
      continue
    try:
      hands = _corners(load_bytes(file, _MAX_MAT_BYTES))
    except Misfit as error:
      log.report(file, None, f"it {error}", Check.LABEL_MALFORMED, "the image is left out")
      continue
    for number, corners in enumerate(hands, 1):
      rings = (np.array(corners),) if log.keep_polygons else ()
      labels.add(box_of(corners), 0, Place(file, None, f"hand {number}: "), rings=rings, turned=True)
    records.append(labels.record(image_id))
  return finish(("hand",), (0,), records, log, f"{root}, split '{split}',")


def _corners(data: bytes) -> list[Points]:
  """The four corners of every hand in a .mat file."""
  variables = load_mat(data)
  if not isinstance(hands := variables.get("boxes"), list):
    raise Misfit(f"holds no cell 'boxes', but {', '.join(map(shown, variables)) or 'nothing'}")
  return [_quadrilateral(hand[0] if isinstance(hand, list) and hand else None) for hand in hands]


def _quadrilateral(hand: object) -> Points:
  fields = hand.values() if isinstance(hand, dict) else ()
  corners = [value.ravel().tolist() for value in fields if isinstance(value, np.ndarray) and value.size == 2]
  if len(corners) < 4:
    raise Misfit(f"holds a hand with {len(corners)} corners; expected four of two numbers, row and column")
  return [(float(x), float(y)) for y, x in corners[:4]]
