"""Truths and detections for the tests of the metrics: hand-made, drawn at random, and published ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.data_pipelines.records import Object, Record, make_record
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.metrics import EvalData, ImageDetections, collect, read_coco_results

Row = tuple[float, float, float, float]


def truth(image_id: int | str, *objects: Object, size: tuple[int, int] | None = (100, 100)) -> Record:
  return make_record(Path(f"{image_id}.jpg"), image_id, size, objects)


def found(*rows: tuple[Row, float, int]) -> ImageDetections:
  """Rows of (box, score, class)."""
  boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
  return ImageDetections(boxes, np.array([row[1] for row in rows]), np.array([row[2] for row in rows], int))


def one_image(objects: Sequence[Object], rows: Sequence[tuple[Row, float, int]], num_classes: int = 2) -> EvalData:
  return collect([f"class {index}" for index in range(num_classes)], [truth(1, *objects)], {1: found(*rows)})


def random_data(seed: int, *, num_images: int = 12, num_classes: int = 3, is_difficult: bool = False) -> EvalData:
  """Scenes with crowd regions, equal scores, exact overlaps, classes without truths and images without either."""
  rng = np.random.default_rng(seed)
  truths, detections = [], {}
  for image_id in range(num_images):
    count = int(rng.integers(0, 7))
    corners = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 120, (count, 2))], axis=1).astype(float)
    classes = rng.integers(0, max(num_classes - 1, 1), count)
    truths.append(
      truth(
        image_id,
        *(
          Object(
            (box[0], box[1], box[2], box[3]),
            int(index),
            is_crowd=bool(rng.random() < 0.15),
            is_difficult=is_difficult and bool(rng.random() < 0.3),
            area_px=float((box[2] - box[0]) * (box[3] - box[1]) * rng.choice([0.6, 1.0])),
          )
          for box, index in zip(boxes, classes, strict=True)
        ),
        size=(200, 200),
      )
    )
    rows: list[tuple[Row, float, int]] = []
    for _ in range(int(rng.integers(0, 15))):
      if count and rng.random() < 0.8:
        pick = int(rng.integers(count))
        box, index = boxes[pick] + rng.choice([0, 0, 3, 8]) * rng.random(4), int(classes[pick])
      else:
        corner = rng.integers(0, 100, 2)
        box, index = np.concatenate([corner, corner + rng.integers(1, 60, 2)]), int(rng.integers(num_classes))
      box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
      rows.append((tuple(box.tolist()), float(rng.choice([0.1, 0.3, 0.5, rng.random()])), index))
    detections[image_id] = found(*rows)
  return collect([f"class {index}" for index in range(num_classes)], truths, detections)


def coco_val2014_100(folder: Path, tmp_path: Path) -> EvalData:
  """The published COCO case, through `coco:` and its results file; the images do not matter and are empty files."""
  annotations = folder / "instances_val2014_100.json"
  for image in json.loads(annotations.read_text())["images"]:
    (tmp_path / image["file_name"]).touch()
  dataset = open_spec(f"coco:{annotations}:{tmp_path}")
  records = [dataset[index] for index in range(len(dataset))]
  ids = [record.image_id for record in records]
  results = read_coco_results(folder / "instances_val2014_fakebbox100_results.json", dataset.category_ids, ids)
  return collect(dataset.names, records, results, missing="empty")


def padilla_case(folder: Path) -> EvalData:
  """The published VOC case: lines `class x y w h` and `class score x y w h`; corners are x, y, x+w, y+h."""

  def rows(path: Path) -> list[list[float]]:
    return [[float(word) for word in line.split()[1:]] for line in path.read_text().splitlines()]

  truths, detections = [], {}
  for path in sorted((folder / "gts").glob("*.txt")):
    truths.append(truth(path.stem, *(Object((x, y, x + w, y + h), 0) for x, y, w, h in rows(path))))
    lines = rows(folder / "dets" / path.name)
    detections[path.stem] = found(*(((x, y, x + w, y + h), score, 0) for score, x, y, w, h in lines))
  return collect(["object"], truths, detections)


def bdd100k_case(folder: Path, names: Sequence[str]) -> EvalData:
  """The published BDD100K case: Scalabel frames with box2d and the attribute crowd."""

  def box(label: dict[str, Any]) -> Row:
    return tuple(float(label["box2d"][key]) for key in ("x1", "y1", "x2", "y2"))

  truths, detections = [], {}
  for frame in json.loads((folder / "track_sample_anns.json").read_text()):
    labels = [label for label in frame["labels"] or [] if label["category"] in names]
    truths.append(
      truth(
        frame["name"],
        *(Object(box(one), names.index(one["category"]), is_crowd=bool(one["attributes"]["crowd"])) for one in labels),
        size=(1280, 720),
      )
    )
  for frame in json.loads((folder / "bbox_predictions.json").read_text()):
    labels = [label for label in frame["labels"] or [] if label["category"] in names]
    detections[frame["name"]] = found(*((box(one), one["score"], names.index(one["category"])) for one in labels))
  return collect(names, truths, detections, missing="empty")


def darknet_case(folder: Path) -> tuple[EvalData, list[dict[str, Any]]]:
  """Detections that entered the real `detector map`, and the 18 rows that it printed; boxes relative to the image."""
  content = json.loads((folder / "map.json").read_text())
  truths, detections = [], {}
  for name, image in content["images"].items():
    objects = [Object(_corners(row[1:]), int(row[0])) for row in image["truth"]]
    truths.append(truth(name, *objects, size=(1, 1)))
    rows = [
      (_corners(one["bbox"]), prob, int(index)) for one in image["detections"] for index, prob in one["prob"].items()
    ]
    detections[name] = found(*rows)
  return collect(["a", "b", "c"], truths, detections), content["results"]


def _corners(box_cxcywh: Sequence[float]) -> Row:
  x, y, w, h = box_cxcywh
  return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
