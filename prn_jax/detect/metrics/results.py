"""Detections as COCO's results JSON: writing them as Darknet's `detector valid` does, and reading anybody's."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import Detected, EvalError, ImageDetections, ImageId
from prn_jax.files.disk import write_text
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Misfit, number_of, shown, whole_of
from prn_jax.labels import COCO_CATEGORY_IDS

T = TypeVar("T")


class CocoRow(NamedTuple):
  """One line of COCO's results: box x, y, width, height in pixels."""

  image_id: ImageId
  category_id: int
  box_xywh_px: tuple[float, float, float, float]
  score: float

  def to_json(self) -> dict[str, Any]:
    """The row with COCO's keys."""
    x, y, width, height = self.box_xywh_px
    return {
      "image_id": self.image_id,
      "category_id": self.category_id,
      "bbox": [x, y, width, height],
      "score": self.score,
    }


def darknet_image_id(path: str | Path) -> int:
  """The image's number: the digits that its file name starts with, 0 without any (C's `atoi`)."""
  found = re.match(r"\s*[+-]?\d+", Path(path).name)
  return int(found[0]) if found else 0


def coco_rows(
  image_id: ImageId,
  detections: Detected,
  size: tuple[int, int],
  category_ids: Sequence[int] = COCO_CATEGORY_IDS,
) -> list[CocoRow]:
  """Detections of one image as Darknet writes them: clipped to the image, rows with a score above 0, 6 decimals.

  Args:
    image_id: COCO's number of the image, or any id.
    detections: one row per box and class; corners in pixels.
    size: (width, height) of the image in pixels.
    category_ids: the number of every class.

  Raises:
    EvalError: a class without category id.

  Source: AlexeyAB/darknet `src/detector.c:print_cocos`; differs: a box wholly outside the image gets size 0 there, not
  a negative one.
  """
  boxes = np.asarray(detections.boxes_xyxy_px, np.float32).reshape(-1, 4)
  scores, classes = np.asarray(detections.scores, np.float32), np.asarray(detections.classes)
  if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < len(category_ids):
    raise EvalError(
      f"image '{image_id}': classes {classes.min()}..{classes.max()} need as many category ids, but {len(category_ids)} are given"
    )
  clipped = np.clip(boxes, 0, np.array([size[0], size[1], size[0], size[1]], np.float32))
  xywh = np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1)
  rows = []
  for (x, y, w, h), score, index in zip(xywh.tolist(), scores.tolist(), classes.tolist(), strict=True):
    if score > 0:
      box = (round(x, 6), round(y, 6), round(w, 6), round(h, 6))
      rows.append(CocoRow(image_id, int(category_ids[int(index)]), box, round(score, 6)))
  return rows


def write_coco_results(path: Path, rows: Iterable[CocoRow]) -> None:
  """Writes results in Darknet's layout, one row per line, numbers with 6 decimals; the file appears whole or not."""
  lines = [
    f'{{"image_id":{json.dumps(row.image_id)}, "category_id":{row.category_id}, '
    f'"bbox":[{", ".join(f"{value:f}" for value in row.box_xywh_px)}], "score":{row.score:f}}}'
    for row in rows
  ]
  write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read_coco_results(
  source: Path | Sequence[Mapping[str, Any]], category_ids: Sequence[int], image_ids: Collection[ImageId]
) -> dict[ImageId, ImageDetections]:
  """COCO results by image; images that do not occur have no entry.

  Args:
    source: the JSON file, or its content.
    category_ids: the data set's number of every class, in the order of the names.
    image_ids: the data set's images.

  Returns:
    Detections in the file's order, corners in float64.

  Raises:
    EvalError: no list of results; a row without the keys, of an unknown image or category, or with a box that is not
      four numbers.
  """
  where = str(source) if isinstance(source, Path) else "results"
  content = _read(source) if isinstance(source, Path) else source
  index_of = {category: index for index, category in enumerate(category_ids)}
  known = set(image_ids)
  columns: dict[ImageId, list[tuple[NDArray[np.float64], float, int]]] = {}
  for number, row in enumerate(content):
    place = f"{where}, row {number}"
    try:
      image_id, category, xywh, score = _row(row, known)
    except Misfit as error:
      raise EvalError(
        f"{place}: {shown(row)} is no result: {error}. Expected image_id, category_id, bbox and score"
      ) from None
    if image_id not in known:
      raise EvalError(f"{place}: image_id {shown(image_id)} is not among the data set's {len(known)} images")
    if category not in index_of:
      raise EvalError(f"{place}: category_id {category} is not among the data set's {len(index_of)} categories")
    columns.setdefault(image_id, []).append((xywh, score, index_of[category]))
  return {image_id: _detections(rows) for image_id, rows in columns.items()}


def _detections(rows: Sequence[tuple[NDArray[np.float64], float, int]]) -> ImageDetections:
  xywh = np.array([row[0] for row in rows])
  corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
  return ImageDetections(corners, np.array([row[1] for row in rows]), np.array([row[2] for row in rows]), xywh)


def _row(row: Any, known: Collection[ImageId]) -> tuple[ImageId, int, NDArray[np.float64], float]:
  """Image, category, box and score of a result, whose numbers some tools write as text.

  An image's id is what the data set calls it: 17 and "17" are one where only one of them is known.
  """
  if not isinstance(row, Mapping):
    raise Misfit("it has no keys")
  missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
  if missing:
    raise Misfit(f"it has no {missing[0]}")
  box = row["bbox"]
  if not isinstance(box, Sequence | np.ndarray) or isinstance(box, str) or len(box) != 4:
    raise Misfit(f"bbox is {shown(box)}; expected four numbers x, y, width, height")
  values = [_field("bbox", number_of, value) for value in (*box,)]
  score = _field("score", number_of, row["score"])
  category = _field("category_id", whole_of, row["category_id"])
  image_id = row["image_id"]
  if not isinstance(image_id, int | str) or isinstance(image_id, bool):
    image_id = _field("image_id", whole_of, image_id)
  if image_id not in known:
    with contextlib.suppress(Misfit):
      other = whole_of(image_id) if isinstance(image_id, str) else str(image_id)
      image_id = other if other in known else image_id
  return image_id, category, np.array(values, np.float64), score


def _field(key: str, check: Callable[[Any], T], value: Any) -> T:
  try:
    return check(value.item() if isinstance(value, np.generic) else value)
  except Misfit as error:
    raise Misfit(f"{key} {error}") from None


def _read(path: Path) -> Sequence[Mapping[str, Any]]:
  root = read_json(path, EvalError, MAX_DATA_BYTES)
  if not isinstance(root.raw, list):
    raise EvalError(f"{path} holds no list of results; expected [{{image_id, category_id, bbox, score}}, ...]")
  return root.raw
