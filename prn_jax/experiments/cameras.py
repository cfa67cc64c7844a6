"""Splits COCO annotations by camera, since frames of one camera are nearly equal."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from pathlib import Path

from prn_jax.errors import PrnError
from prn_jax.files.disk import write_text
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Node


def split_by_camera(annotations: Path, cameras: Path, valid: Collection[str], out: Path) -> tuple[Path, Path]:
  """Writes train.json and valid.json into `out`.

  Args:
    annotations: COCO annotations.
    cameras: a CSV with the columns `stem`, an image's name without its ending, and `scene_group`, its camera.
    valid: cameras of the validation set; the others are for training.
    out: folder.

  Raises:
    PrnError: a file cannot be read, an image has no camera, or one of the parts is empty.
  """
  try:
    root = read_json(annotations, max_bytes=MAX_DATA_BYTES)
    _check(root)
    data = root.raw
    with cameras.open(newline="", encoding="utf-8") as file:
      camera_of = {row["stem"]: row["scene_group"] for row in csv.DictReader(file)}
  except PrnError:
    raise
  except OSError as error:
    raise PrnError(f"cannot read '{error.filename}': {error.strerror}. Give the folder of the data set.") from None
  except (ValueError, KeyError) as error:
    raise PrnError(f"'{annotations}' or '{cameras}' is not what was expected: {error}.") from None
  is_valid: dict[int, bool] = {}
  for image in data["images"]:
    stem = Path(image["file_name"]).stem
    if stem not in camera_of:
      raise PrnError(f"image '{image['file_name']}' of '{annotations}' has no row in '{cameras}'; expected its camera.")
    is_valid[image["id"]] = camera_of[stem] in valid
  if len(set(is_valid.values())) < 2:
    raise PrnError(
      f"cameras {', '.join(sorted(valid))} leave one part without images; '{cameras}' has "
      f"{', '.join(sorted(set(camera_of.values())))}."
    )
  paths = []
  for name, wanted in (("train.json", False), ("valid.json", True)):
    part = data | {
      "images": [one for one in data["images"] if is_valid[one["id"]] == wanted],
      "annotations": [one for one in data["annotations"] if is_valid[one["image_id"]] == wanted],
    }
    write_text(out / name, json.dumps(part))
    paths.append(out / name)
  return paths[0], paths[1]


def _check(root: Node) -> None:
  """Raises PrnError unless all that is read here is there."""
  for image in root["images"].items():
    image["file_name"].text()
    image["id"].whole()
  known = {image["id"] for image in root.raw["images"]}
  for annotation in root["annotations"].items():
    if annotation["image_id"].whole() not in known:
      raise annotation["image_id"].fault(f"is {annotation['image_id'].whole()}, which no image has")
