"""COCO: OUT/annotations/instances_SPLIT.json and OUT/images/SPLIT/.

Objects that are difficult (VOC) carry `"ignore": 1`, as in the JSON files of VOC that Detectron published; our reader
takes it for what it is, and others pass over it. Ignored regions stand in their image as `"ignored_regions"`,
[x, y, width, height] each, a key of our own that others pass over too. Image ids that are numbers stay; others are counted from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prn_jax.data_pipelines.convert.layout import Layout, Target, Texts, Written, boxes_xywh_px, to_xywh, without
from prn_jax.data_pipelines.convert.losses import Loss, Losses
from prn_jax.data_pipelines.convert.pictures import Header
from prn_jax.data_pipelines.records import Record


class Coco(Layout):
  """Writes one split as COCO's JSON."""

  kind = "coco"
  loses: ClassVar = {"small": "within the first pixel, where they would look relative to the image"}

  def __init__(self, target: Target, losses: Losses) -> None:
    super().__init__(target, losses)
    self._images: list[dict[str, Any]] = []
    self._annotations: list[dict[str, Any]] = []

  @property
  def image_folder(self) -> str:
    return f"images/{self.target.split}"

  def add(self, record: Record, header: Header, file_name: str) -> Written:
    boxes = boxes_xywh_px(record)
    # What `sources/coco.py` takes for shares of the image.
    is_small = ((boxes >= 0) & (boxes <= 1)).all(axis=1)
    record = without(record, {Loss.TOO_SMALL: is_small}, self.losses)
    boxes = boxes_xywh_px(record)
    areas = boxes[:, 2] * boxes[:, 3] if record.area_px is None else record.area_px
    has_number = isinstance(record.image_id, int)
    self.losses.add(Loss.IMAGE_ID, not has_number)
    image_id = record.image_id if has_number else len(self._images) + 1
    width, height = header.size
    entry: dict[str, Any] = {"id": image_id, "file_name": file_name, "width": width, "height": height}
    if len(record.ignored_xyxy_px):
      entry["ignored_regions"] = to_xywh(record.ignored_xyxy_px).tolist()
    self._images.append(entry)
    rows = zip(
      np.array(self.target.category_ids)[record.classes].tolist(),
      boxes.tolist(),
      areas.tolist(),
      record.is_crowd.tolist(),
      record.is_difficult.tolist(),
      record.polygons_px or [()] * len(boxes),
      strict=True,
    )
    for category, box, area, is_crowd, is_difficult, rings in rows:
      number = len(self._annotations) + 1
      entry = {"id": number, "image_id": image_id, "category_id": category, "bbox": box, "area": area}
      entry |= {"iscrowd": int(is_crowd), "segmentation": [ring.ravel().tolist() for ring in rings]}
      self._annotations.append(entry | ({"ignore": 1} if is_difficult else {}))
    return Written({}, record)

  def own_texts(self) -> Texts:
    pairs = zip(self.target.category_ids, self.target.names, strict=True)
    content = {
      "info": {"description": "written by prn data convert"},
      "licenses": [],
      "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in pairs],
      "images": self._images,
      "annotations": self._annotations,
    }
    return {_annotations(self.target.split): json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"}

  @classmethod
  def shared_texts(cls, names: Sequence[str], splits: Sequence[str]) -> Texts:
    return {}

  @classmethod
  def folders(cls, split: str) -> tuple[str, ...]:
    return (f"images/{split}",)

  @classmethod
  def own_files(cls, split: str) -> tuple[str, ...]:
    return (_annotations(split),)

  @classmethod
  def files(cls, folder: Path, split: str) -> Iterator[Path]:
    yield folder / _annotations(split)
    yield from (folder / "images" / split).iterdir()

  @classmethod
  def spec(cls, folder: Path, split: str) -> str:
    return f"coco:{folder / _annotations(split)}:{folder / 'images' / split}"


def _annotations(split: str) -> str:
  return f"annotations/instances_{split}.json"
