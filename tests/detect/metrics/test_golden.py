"""Published figures, reproduced: COCO to 1e-9, VOC exactly, BDD100K to 1e-6, all rows of Darknet's `detector map`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from prn_jax.detect.metrics import (
  BACKENDS,
  COCO_CATEGORY_IDS,
  FIGURES,
  CocoRow,
  ImageDetections,
  coco_metrics,
  coco_rows,
  darknet_image_id,
  darknet_metrics,
  voc_metrics,
)
from tests.detect.metrics.scenes import bdd100k_case, coco_val2014_100, darknet_case, padilla_case


@pytest.mark.parametrize("backend", BACKENDS)
def test_coco(shared: Path, tmp_path: Path, backend: str) -> None:
  folder = shared / "data" / "eval_golden" / "coco_val2014_100"
  expected = json.loads((folder / "expected.json").read_text())["bbox"]
  result = coco_metrics(coco_val2014_100(folder, tmp_path), backend=backend)
  assert list(result.figures) == list(FIGURES)
  for name in FIGURES:
    assert result.figures[name] == pytest.approx(expected[name], abs=1e-9), name


def test_bdd100k_has_inclusive_widths(shared: Path) -> None:
  folder = shared / "data" / "eval_golden" / "bdd100k_scalabel"
  expected = json.loads((folder / "expected.json").read_text())["detection"]
  config = tomllib.loads((folder / "det_configs.toml").read_text())
  names = [part["name"] for group in config["categories"] for part in group.get("subcategories", [group])]
  data = bdd100k_case(folder, names)
  result = coco_metrics(data, pixels="inclusive")
  for name in FIGURES:
    assert 100 * result.figures[name] == pytest.approx(expected[name], abs=1e-6), name
  for row in result.per_class:
    ours = row.figures["AP"] if row.figures["AP"] == -1 else 100 * row.figures["AP"]
    assert ours == pytest.approx(expected[f"AP/{row.name}"], abs=1e-6), row.name
  assert 100 * coco_metrics(data).figures["AP"] < expected["AP"] - 0.5  # the option matters


@pytest.mark.parametrize("iou_threshold", ["0.1", "0.3", "0.5", "0.75"])
def test_voc(shared: Path, iou_threshold: str) -> None:
  folder = shared / "data" / "eval_golden" / "voc_ap_padilla_case1"
  expected = json.loads((folder / "expected.json").read_text())
  data = padilla_case(folder)
  for interpolation, key in (("11", "AP_11point"), ("every", "AP_every_point")):
    result = voc_metrics(data, interpolation=interpolation, iou_threshold=float(iou_threshold), pixels="inclusive")
    assert result.mean_ap == pytest.approx(expected[key][iou_threshold], abs=1e-10)  # given with 10 digits


def test_darknet_detector_map(shared: Path) -> None:
  data, rows = darknet_case(shared / "golden" / "map_eval")
  assert len(rows) == 18
  for row in rows:
    got = darknet_metrics(
      data, points=row["points"], iou_threshold=row["iou_thresh"], conf_threshold=row["conf_thresh"]
    )
    assert {
      "iou_thresh": row["iou_thresh"],
      "points": row["points"],
      "conf_thresh": row["conf_thresh"],
      "ap_percent": [round(100 * one.ap, 2) for one in got.per_class],
      "tp": [one.true_positives for one in got.per_class],
      "fp": [one.false_positives for one in got.per_class],
      "mAP": round(got.mean_ap, 6),
      "precision": f"{got.precision:.2f}",
      "recall": f"{got.recall:.2f}",
      "f1": f"{got.f1:.2f}",
      "TP": got.true_positives,
      "FP": got.false_positives,
      "FN": got.false_negatives,
      "avg_iou_percent": round(100 * got.average_iou, 2),
      "detections_count": got.num_detections,
      "unique_truth_count": got.num_truths,
    } == row


def test_darknet_coco_results(shared: Path) -> None:
  """`detector valid` ran with another NMS threshold than `detector map`, so it wrote more rows and lacks a few."""
  folder = shared / "golden" / "map_eval"
  written = json.loads((folder / "coco_results.json").read_text())
  expected = {(row["image_id"], row["category_id"], row["score"]): row for row in written}
  num_equal = num_close = num_absent = 0
  for name, image in json.loads((folder / "map.json").read_text())["images"].items():
    size = (image["image_w"], image["image_h"])
    scale = np.array([*size, *size], np.float32)
    boxes = np.array([one["bbox"] for one in image["detections"]], np.float32) * scale
    center, half = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64) / 2  # C divides in double
    corners = np.concatenate([center - half, center + half], axis=1).astype(np.float32)
    index = [(i, int(c), p) for i, one in enumerate(image["detections"]) for c, p in one["prob"].items()]
    detections = ImageDetections(
      corners[[row[0] for row in index]], [row[2] for row in index], np.array([row[1] for row in index])
    )
    for row in coco_rows(darknet_image_id(name), detections, size):
      theirs = expected.get((row.image_id, row.category_id, row.score))
      num_absent += theirs is None
      if theirs is not None:
        # map.json holds 8 digits of its float32 numbers, which need 9: centre and corner may be off by one last bit
        # each, and that of 39 (the height in pixels) is 3.8e-6.
        assert row.box_xywh_px == pytest.approx(theirs["bbox"], abs=7.7e-6)
        num_equal += row.to_json() == theirs
        num_close += row.to_json() != theirs
  assert (num_equal, num_close, num_absent) == (3517, 28, 48)


def test_category_ids() -> None:
  assert len(COCO_CATEGORY_IDS) == 80
  assert (COCO_CATEGORY_IDS[0], COCO_CATEGORY_IDS[11], COCO_CATEGORY_IDS[-1]) == (1, 13, 90)


def test_coco_row_keys() -> None:
  row = CocoRow(7, 3, (0.0, 1.0, 2.0, 3.0), 0.5)
  assert row.to_json() == {"image_id": 7, "category_id": 3, "bbox": [0.0, 1.0, 2.0, 3.0], "score": 0.5}
