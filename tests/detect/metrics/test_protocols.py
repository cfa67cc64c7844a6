"""What is particular to VOC and to Darknet's `detector map`, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prn_jax.data_pipelines.records import Object
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.metrics import ImageDetections, collect, darknet_metrics, voc_metrics
from tests.detect.metrics.scenes import found, one_image, truth

BOX = (0.0, 0.0, 10.0, 10.0)


def test_voc_from_files_has_the_devkits_overlap(tmp_path: Path) -> None:
  """Truth 1..10 by 1..10 in the XML, detected as 1..10 by 1..5: 50 of 100 pixels, both ends counted."""
  corners = "<xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>10</ymax>"
  for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
    (tmp_path / folder).mkdir(parents=True)
  (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\n")
  (tmp_path / "Annotations" / "a.xml").write_text(
    f"<annotation><object><name>dog</name><bndbox>{corners}</bndbox></object></annotation>"
  )
  Image.new("RGB", (20, 20)).save(tmp_path / "JPEGImages" / "a.jpg")
  dataset = open_spec(f"voc:{tmp_path}:val")
  ours = collect(dataset.names, [dataset[0]], {"a": found(((0, 0, 10, 5), 0.9, dataset.names.index("dog")))})
  devkit = collect(["dog"], [truth("a", Object((1, 1, 10, 10), 0))], {"a": found(((1, 1, 10, 5), 0.9, 0))})
  for threshold, expected in ((0.5, 1.0), (0.51, 0.0)):
    assert voc_metrics(ours, iou_threshold=threshold).mean_ap == expected
    assert voc_metrics(devkit, iou_threshold=threshold, pixels="inclusive").mean_ap == expected


def test_real_voc_detections(shared: Path) -> None:
  """45 photos with the detections that came with them, under both interpolations."""
  root = shared / "data" / "voc_sample"
  dataset = open_spec(f"voc:{root}:all")
  records = [dataset[index] for index in range(len(dataset))]
  detections = {}
  for record in records:
    path = root / "detections_abs_xyx2y2" / f"{record.image_id}.txt"
    rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    boxes = [[float(value) for value in row[2:]] for row in rows]
    detections[record.image_id] = ImageDetections(boxes, [float(row[1]) for row in rows], [int(row[0]) for row in rows])
  data = collect(dataset.names, records, detections)
  result = voc_metrics(data, interpolation="11")
  assert data.num_detections == 194
  # Single objects, found with the only detection of their class.
  assert result.ap["cat"] == result.ap["sofa"] == pytest.approx(1)
  assert 0.6 < voc_metrics(data).mean_ap < result.mean_ap < 0.7


def test_printed_figures_follow_memory_not_scores() -> None:
  """Both detections fit the one object; the first in memory is right, although the second scores higher."""
  rows = [((0.0, 0.0, 10.0, 8.0), 0.4, 0), (BOX, 0.9, 0)]
  data = one_image([Object(BOX, 0)], rows, num_classes=1)
  result = darknet_metrics(data)
  assert (result.true_positives, result.false_positives, result.false_negatives) == (1, 1, 0)
  assert result.average_iou == pytest.approx(0.8 / 2)
  assert result.mean_ap == 1.0  # the curve follows the scores
  # Above .5 only the second is left, but the first has the object already.
  strict = darknet_metrics(data, conf_threshold=0.5)
  assert (strict.true_positives, strict.false_positives, strict.false_negatives) == (0, 1, 1)


def test_difficult_objects_leave_the_curve_but_spoil_the_printed_precision() -> None:
  objects = [Object(BOX, 0), Object((50, 50, 60, 60), 0, is_difficult=True)]
  data = one_image(objects, [((50.0, 50.0, 60.0, 60.0), 0.9, 0), (BOX, 0.8, 0)], num_classes=1)
  result = darknet_metrics(data)
  assert result.mean_ap == 1.0
  assert (result.num_detections, result.num_truths) == (1, 1)
  assert (result.true_positives, result.false_positives) == (1, 1)
  assert (result.precision, result.recall) == (0.5, 1.0)
  assert result.f1 == pytest.approx(2 / 3)


def test_crowd_regions_are_not_in_darknets_labels() -> None:
  data = one_image([Object(BOX, 0, is_crowd=True)], [(BOX, 0.9, 0)], num_classes=1)
  assert darknet_metrics(data).num_truths == 0
  assert darknet_metrics(data).false_positives == 1


def test_scores_of_zero_do_not_enter() -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.0, 0)], num_classes=1)
  assert darknet_metrics(data).num_detections == 0
