"""What the metrics refuse, and what they make of empty things."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.records import Object
from prn_jax.detect.metrics import (
  BACKENDS,
  COCO_CATEGORY_IDS,
  NO_DETECTIONS,
  CocoRow,
  EvalError,
  ImageDetections,
  coco_metrics,
  coco_rows,
  collect,
  darknet_image_id,
  darknet_metrics,
  evaluate,
  explain,
  read_coco_results,
  voc_metrics,
  write_coco_results,
)
from prn_jax.detect.metrics import coco as coco_module
from tests.detect.metrics.scenes import found, one_image, truth

BOX = (0.0, 0.0, 10.0, 10.0)
NAMES = ["cat", "dog"]


def test_columns_are_sorted_by_image_and_keep_their_order() -> None:
  truths = [truth(9, Object(BOX, 1)), truth(2), truth("a", Object(BOX, 0))]
  data = collect(NAMES, truths, {"a": found((BOX, 0.2, 0), (BOX, 0.9, 1)), 9: found((BOX, 0.5, 1)), 2: NO_DETECTIONS})
  assert data.image_ids == (2, 9, "a")
  assert data.det_image.tolist() == [1, 2, 2]
  assert data.det_scores.tolist() == [0.5, 0.2, 0.9]
  assert data.truth_image.tolist() == [1, 2]
  assert (data.num_images, data.num_detections, data.num_classes) == (3, 3, 2)


def test_numpy_and_lists_are_accepted() -> None:
  detections = {1: ImageDetections([[0, 0, 10, 10]], [0.5], [1]), 2: ImageDetections([], [], [])}
  data = collect(NAMES, [truth(1), truth(2)], detections)
  assert data.det_boxes_xyxy_px.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
  ("detections", "message"),
  [
    ({1: found((BOX, float("nan"), 0))}, r"1 detections have a score that is not finite; the first is detection 0 of image '1': \[nan\]"),
    ({1: found((BOX, 0.5, 0), ((0, 0, float("inf"), 1), 0.5, 0))}, r"have a box that is not finite; the first is detection 1 of image '1'"),
    ({1: found(((5, 0, 2, 1), 0.5, 0))}, r"1 detections have x2 < x1 or y2 < y1; the first, in image '1', is \[5\.0, 0\.0, 2\.0, 1\.0\]"),
    ({1: found((BOX, 0.5, 2))}, r"a detection of image '1' has class 2, but there are 2 classes, 0\.\.1\. Do the names belong"),
    ({1: found((BOX, 0.5, -1))}, r"a detection of image '1' has class -1"),
    ({1: ImageDetections(np.zeros((1, 3)), [0.5], [0])}, r"detections of image '1': boxes has shape \(1, 3\); expected \(1, 4\)"),
    ({1: ImageDetections(np.zeros((2, 4)), [0.5], [0])}, r"boxes has shape \(2, 4\); expected \(1, 4\)"),
    ({1: ImageDetections(np.zeros((1, 4)), [0.5], [0, 1])}, r"classes has shape \(2,\); expected \(1,\)"),
    ({1: found(), 12: found(), 13: found()}, r"2 of 3 images with detections are unknown to the data set \(nearest: '1'\): 12, 13\. Do the"),
    ({"x": found()}, r"1 of 1 images with detections are unknown to the data set \(which holds e\.g\. '1'\): 'x'"),
    ({}, r"1 of 1 images have no entry among the detections, the first is '1'\. Give an entry without rows"),
  ],
)  # fmt: skip
def test_bad_detections(detections: dict[int | str, ImageDetections], message: str) -> None:
  with pytest.raises(EvalError, match=message):
    collect(NAMES, [truth(1, Object(BOX, 0))], detections)


def test_bad_truths() -> None:
  with pytest.raises(EvalError, match="the data set holds no images; there is nothing to evaluate"):
    collect(NAMES, [], {})
  with pytest.raises(EvalError, match="image '1' occurs twice in the data set"):
    collect(NAMES, [truth(1), truth(1)], {1: found()})
  with pytest.raises(EvalError, match="a truth of image '1' has class 5, but there are 2 classes"):
    collect(NAMES, [truth(1, Object(BOX, 5))], {1: found()})


def test_images_without_entry() -> None:
  truths = [truth(1, Object(BOX, 0)), truth(2, Object(BOX, 0))]
  detections = {1: found((BOX, 0.9, 0))}
  assert coco_metrics(collect(NAMES, truths, detections, missing="empty")).figures["AR100"] == pytest.approx(0.5)
  left = collect(NAMES, truths, detections, missing="leave_out")
  assert left.image_ids == (1,)
  assert coco_metrics(left).figures["AR100"] == pytest.approx(1)
  with pytest.raises(EvalError, match="none of 2 images has detections; there is nothing to evaluate"):
    collect(NAMES, truths, {}, missing="leave_out")


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_things_have_defined_figures(backend: str) -> None:
  nothing_found = one_image([Object(BOX, 0)], [])
  assert coco_metrics(nothing_found, backend=backend).figures["AP"] == 0.0
  nothing_there = one_image([], [(BOX, 0.9, 0)])
  assert set(coco_metrics(nothing_there, backend=backend).figures.values()) == {-1.0}
  neither = one_image([], [])
  assert set(coco_metrics(neither, backend=backend).figures.values()) == {-1.0}
  crowd = one_image([Object(BOX, 0, is_crowd=True)], [(BOX, 0.9, 0)])
  assert coco_metrics(crowd, backend=backend).figures["AP"] == -1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_official_evaluators_are_silent(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
  coco_metrics(one_image([Object(BOX, 0)], [(BOX, 0.9, 0)]), backend=backend)
  assert capfd.readouterr() == ("", "")


def test_empty_things_under_the_other_protocols() -> None:
  neither = one_image([], [])
  assert np.isnan(voc_metrics(neither).mean_ap)
  result = darknet_metrics(neither)
  assert (result.mean_ap, result.precision, result.recall, result.f1, result.average_iou) == (0, 0, 0, 0, 0)
  assert evaluate(neither, "voc").metrics == {"mAP": None}
  assert explain(neither).to_json()["figure"] is None


def test_classes_without_truths_have_no_figure() -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.9, 0), (BOX, 0.5, 1)])
  rows = coco_metrics(data).per_class
  assert (rows[0].num_truths, rows[0].num_detections, rows[0].figures["AP"]) == (1, 1, pytest.approx(1))
  assert (rows[1].num_truths, rows[1].num_detections, rows[1].figures["AP"]) == (0, 1, -1)
  assert np.isnan(voc_metrics(data).ap["class 1"])
  assert darknet_metrics(data).per_class[1].ap == 0.0


def test_backends_are_chosen_by_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.9, 0)])
  assert coco_metrics(data).backend == "hotcoco"
  installed = {"faster_coco_eval", "pycocotools"}
  monkeypatch.setattr(coco_module.importlib.util, "find_spec", lambda name: name in installed or None)
  assert coco_metrics(data).backend == "faster_coco_eval"
  installed.remove("faster_coco_eval")
  assert coco_metrics(data).backend == "pycocotools"
  with pytest.raises(EvalError, match="COCO's figures need hotcoco, which is not installed; try `pip install hotcoco`"):
    coco_metrics(data, backend="hotcoco")
  installed.clear()
  with pytest.raises(EvalError, match="need hotcoco or faster_coco_eval or pycocotools, which is not installed"):
    coco_metrics(data)


def test_unknown_names_are_errors() -> None:
  data = one_image([Object(BOX, 0)], [])
  with pytest.raises(EvalError, match=r"COCO backend 'hotcocos' is unknown \(did you mean 'hotcoco'\?\)"):
    coco_metrics(data, backend="hotcocos")
  with pytest.raises(EvalError, match=r"protocol 'voc08' is unknown \(did you mean 'voc.*'\?\); expected one of coco"):
    evaluate(data, "voc08")
  with pytest.raises(EvalError, match=r"protocol 'coco5' is unknown \(did you mean 'coco50'\?\)"):
    explain(data, reference="coco5")


def test_results_go_to_a_file_and_back(tmp_path: Path) -> None:
  size = (100, 60)
  boxes = [[-5.0, 2.0, 30.5, 70.0], [200.0, 0.0, 210.0, 10.0], [1.0, 1.0, 2.0, 2.0]]
  rows = coco_rows(42, ImageDetections(boxes, [0.5, 0.25, 0.0], [0, 79, 3]), size)
  assert rows == [
    CocoRow(42, 1, (0.0, 2.0, 30.5, 58.0), 0.5),
    CocoRow(42, 90, (100.0, 0.0, 0.0, 10.0), 0.25),
  ]
  path = tmp_path / "out" / "results.json"
  write_coco_results(path, rows)
  assert path.read_text() == (
    '[\n{"image_id":42, "category_id":1, "bbox":[0.000000, 2.000000, 30.500000, 58.000000], "score":0.500000},\n'
    '{"image_id":42, "category_id":90, "bbox":[100.000000, 0.000000, 0.000000, 10.000000], "score":0.250000}\n]\n'
  )
  back = read_coco_results(path, COCO_CATEGORY_IDS, [42])
  np.testing.assert_array_equal(back[42].boxes_xyxy_px, [[0, 2, 30.5, 60], [100, 0, 100, 10]])
  np.testing.assert_array_equal(back[42].classes, [0, 79])
  write_coco_results(path, [])
  assert json.loads(path.read_text()) == []
  assert [path.name for path in path.parent.iterdir()] == ["results.json"]


def test_category_ids_must_suffice() -> None:
  with pytest.raises(EvalError, match=r"image '1': classes 0\.\.1 need as many category ids, but 1 are given"):
    coco_rows(1, found((BOX, 0.5, 0), (BOX, 0.5, 1)), (10, 10), [7])


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"image_id": 2}, r"row 0: image_id 2 is not among the data set's 1 images"),
    ({"category_id": 9}, r"row 0: category_id 9 is not among the data set's 2 categories"),
    (
      {"bbox": [1, 2, 3]},
      r"row 0: .* is no result: bbox is \[1, 2, 3\]; expected four numbers x, y, width, height\. Exp",
    ),
    ({"bbox": None}, r"row 0: .* is no result: bbox is None; expected four numbers"),
    ({"bbox": "1234"}, r"row 0: .* is no result: bbox is '1234'; expected four numbers"),
    ({"bbox": [1, 2, 3, {}]}, r"row 0: .* is no result: bbox is \{\}; expected a finite number"),
    ({"score": "high"}, r"row 0: .* is no result: score is 'high'; expected a finite number"),
    ({"image_id": [1]}, r"row 0: .* is no result: image_id is \[1\]; expected a whole number"),
    ({"category_id": None}, r"row 0: .* is no result: category_id is None; expected a whole number"),
  ],
)
def test_bad_results(row: dict[str, object], message: str) -> None:
  good = {"image_id": 1, "category_id": 5, "bbox": [0, 0, 1, 1], "score": 0.5}
  with pytest.raises(EvalError, match=message):
    read_coco_results([good | row], [5, 6], [1])


def test_results_of_tools_that_write_numbers_as_text() -> None:
  rows = [{"image_id": "1", "category_id": "5", "bbox": ["0", 0, 1.0, "1"], "score": "0.5"}]
  plain = [{"image_id": 1, "category_id": 5.0, "bbox": [0, 0, 1, 1], "score": 0.5}]
  for image_ids in ([1], ["1"]):
    read, expected = (read_coco_results(each, [5, 6], image_ids) for each in (rows, plain))
    assert list(read) == list(expected) == image_ids
    np.testing.assert_array_equal(read[image_ids[0]].boxes_xyxy_px, expected[image_ids[0]].boxes_xyxy_px)


def test_results_with_nan_scores_are_refused(tmp_path: Path) -> None:
  path = tmp_path / "results.json"
  path.write_text('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": NaN}]')
  with pytest.raises(EvalError, match=r"results\.json, row 0: .* is no result: score is nan; expected a finite number"):
    read_coco_results(path, [1, 2], [1])


def test_files_that_are_no_results(tmp_path: Path) -> None:
  path = tmp_path / "results.json"
  with pytest.raises(EvalError, match=r"results\.json cannot be read: No such file"):
    read_coco_results(path, [1], [1])
  path.write_text("{}")
  with pytest.raises(EvalError, match=r"results\.json holds no list of results"):
    read_coco_results(path, [1], [1])


@pytest.mark.parametrize(("name", "number"), [("a/000000000139.jpg", 139), ("12_3.png", 12), ("dog.jpg", 0)])
def test_darknet_reads_numbers_from_file_names(name: str, number: int) -> None:
  assert darknet_image_id(name) == number
