"""Ignored regions under every protocol: by hand, against direct loops, and against the official evaluators."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.convert.convert import convert
from prn_jax.data_pipelines.records import Object, Record, make_record
from prn_jax.detect.metrics import (
  BACKENDS,
  COCO,
  FIGURES,
  EvalData,
  Evaluation,
  ImageDetections,
  coco_metrics,
  collect,
  darknet_metrics,
  evaluate,
  explain,
  register_protocol,
  score,
  visdrone_metrics,
  voc_metrics,
  without_regions,
)
from prn_jax.detect.metrics.mistakes import assign
from prn_jax.detect.metrics.regions import as_crowds, share_of_all
from prn_jax.detect.metrics.visdrone import FIGURES as VISDRONE_FIGURES
from tests.cli.test_cli import json_line, prn
from tests.detect.metrics.scenes import found, random_data

BOX = (0.0, 0.0, 10.0, 10.0)
REGION = (50.0, 50.0, 100.0, 100.0)


def scene(objects: list[Object], rows: list, regions: list, num_classes: int = 2) -> EvalData:
  record = make_record(Path("1.jpg"), 1, (100, 100), objects, ignored_xyxy_px=regions)
  return collect([f"class {index}" for index in range(num_classes)], [record], {1: found(*rows)})


def with_regions(data: EvalData, seed: int) -> EvalData:
  """The same with up to three regions an image, of whole pixels, which may overlap."""
  rng = np.random.default_rng(seed)
  image = np.sort(rng.integers(0, data.num_images, int(rng.integers(0, 3 * data.num_images))))
  corners = rng.integers(0, 100, (len(image), 2))
  boxes = np.concatenate([corners, rng.integers(1, 90, (len(image), 2))], axis=1).astype(float)
  return dataclasses.replace(data, region_image=image, region_boxes_xywh_px=boxes)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_a_detection_in_a_region_counts_neither_way() -> None:
  """Of class 1 too, of which the region's image has no object; half a detection inside is enough at IoU .5."""
  objects = [Object(BOX, 0), Object((20, 20, 30, 30), 1)]
  rows = [
    ((60.0, 60.0, 70.0, 70.0), 0.9, 0),
    (BOX, 0.8, 0),
    ((45.0, 60.0, 55.0, 70.0), 0.9, 1),
    ((20.0, 20.0, 30.0, 30.0), 0.8, 1),
  ]
  data = scene(objects, rows, [REGION])
  assert coco_metrics(data).figures["AP50"] == pytest.approx(1)
  assert voc_metrics(data).mean_ap == 1
  # At IoU .55 and above the half detection of class 1 is wrong.
  assert coco_metrics(data).figures["AP75"] == pytest.approx((1 + 0.5) / 2)
  assert voc_metrics(data, iou_threshold=0.55).mean_ap == pytest.approx((1 + 0.5) / 2)
  assert visdrone_metrics(data).figures["AP"] == 1  # it is away before any IoU is asked
  assert coco_metrics(without_regions(data)).figures["AP50"] == pytest.approx(0.5)
  assert voc_metrics(without_regions(data)).mean_ap == pytest.approx(0.5)


def test_darknet_knows_no_regions() -> None:
  data = scene([Object(BOX, 0)], [((60.0, 60.0, 70.0, 70.0), 0.9, 0), (BOX, 0.8, 0)], [REGION], num_classes=1)
  assert (darknet_metrics(data).mean_ap, darknet_metrics(data).false_positives) == (0.5, 1)


def test_objects_in_regions() -> None:
  """They stay, and may be found, except under VisDrone's rule."""
  inside = (60.0, 60.0, 70.0, 70.0)
  data = scene([Object(BOX, 0), Object(inside, 0)], [(BOX, 0.9, 0)], [REGION], num_classes=1)
  assert coco_metrics(data).figures["AR100"] == pytest.approx(0.5)
  assert visdrone_metrics(data).figures["AR100"] == 1
  both = scene([Object(BOX, 0), Object(inside, 0)], [(BOX, 0.9, 0), (inside, 0.8, 0)], [REGION], num_classes=1)
  assert coco_metrics(both).figures["AR100"] == pytest.approx(1)
  result = visdrone_metrics(both)
  assert (result.num_dropped_truths, result.num_dropped_detections) == (1, 1)
  assert result.per_class[0].num_truths == 1


@pytest.mark.parametrize(("width", "is_gone"), [(9.0, False), (10.0, True), (11.0, True)])
def test_half_in_several_regions(width: float, is_gone: bool) -> None:
  """20 px wide, `width` of them in two regions that overlap: 5 px counted twice would be too many."""
  regions = [(0.0, 0.0, 7.0, 50.0), (2.0, 0.0, width, 50.0)]
  data = scene([], [((0.0, 0.0, 20.0, 10.0), 0.9, 0)], regions)
  assert (visdrone_metrics(data).num_dropped_detections == 1) is is_gone


def test_at_most_500_detections_of_all_classes() -> None:
  far = [((float(i % 90), 20.0, float(i % 90) + 1, 21.0), 0.9, 1) for i in range(499)]
  for more, expected in (([], 1.0), ([((0.0, 30.0, 1.0, 31.0), 0.9, 1)], 0.0)):
    data = scene([Object(BOX, 0)], [*far, *more, (BOX, 0.5, 0)], [])
    figures = visdrone_metrics(data).figures
    assert (figures["AP"], figures["AR500"], figures["AR100"]) == (expected, expected, 0)


def test_objects_that_need_not_be_found_under_visdrone() -> None:
  """Those of score 0: a detection half inside counts neither way, and an object that counts comes first."""
  objects = [Object((0, 0, 50, 50), 0, is_crowd=True), Object(BOX, 0)]
  data = scene(objects, [((20.0, 20.0, 30.0, 30.0), 0.9, 0), (BOX, 0.8, 0), (BOX, 0.7, 0)], [], num_classes=1)
  result = visdrone_metrics(data)
  assert result.figures["AP"] == 1
  assert result.per_class[0].num_truths == 1


def test_mistakes_and_curves_leave_regions_out() -> None:
  data = scene([Object(BOX, 0)], [((60.0, 60.0, 70.0, 70.0), 0.9, 0), (BOX, 0.8, 0)], [REGION])
  assert assign(data).det_verdict.tolist() == ["not counted", "right"]
  assert assign(without_regions(data)).det_verdict.tolist() == ["no object", "right"]


def test_explain_names_regions_where_there_are_some() -> None:
  data = scene([Object(BOX, 0)], [((60.0, 60.0, 70.0, 70.0), 0.9, 0), (BOX, 0.8, 0)], [REGION], num_classes=1)
  text = explain(data).text()
  assert "ignored regions: hold nothing that is wrong -> are not there" in text
  assert "1 ignored regions" in text
  assert "ignored regions" not in explain(without_regions(data)).text()


# -- what is said ------------------------------------------------------------------------------------------------------


def test_which_rule_was_taken_is_said() -> None:
  data = scene([Object(BOX, 0)], [((60.0, 60.0, 70.0, 70.0), 0.9, 0), (BOX, 0.8, 0)], [REGION], num_classes=1)
  for protocol, words, metric, pair in (
    ("coco", "as a crowd of every class", "AP", (1, 0.5)),
    ("voc", "VOC knows none; what is wrong", "mAP", (1, 0.5)),
    ("darknet", "Darknet knows none; detections in them are wrong", "mAP", (0.5, 0.5)),
    ("visdrone", "half or more lies in them are taken away first", "AP", (1, 0.5)),
  ):
    result = evaluate(data, protocol, compare_regions=True)
    assert result.without_regions is not None
    assert (result.metrics[metric], result.without_regions[metric]) == pytest.approx(pair)
    text = result.text()
    assert "1 ignored regions: " in text
    assert words in text
    content = result.to_json()["ignored_regions"]
    assert (content["count"], content["metrics_without"]) == (1, result.without_regions)
    assert words in content["rule"]
    plain = evaluate(without_regions(data), protocol, compare_regions=True)
    assert plain.to_json().keys() == {"metrics", "images", "detections", "protocol"}
    assert "ignored" not in plain.text()
  assert "  AP     1.0000  0.5000" in evaluate(data, "coco", compare_regions=True).text()
  json.dumps(evaluate(data, "visdrone").to_json())


def test_a_protocol_of_an_extension_says_that_it_does_not_look() -> None:
  register_protocol("test_only", ratings=("x",))(
    lambda data, settings: Evaluation("test_only", {"x": 1.0}, data.num_images, data.num_detections, ())
  )
  try:
    result = evaluate(scene([], [], [REGION]), "test_only")
    assert "1 ignored regions: this protocol does not look at them" in result.text()
  finally:
    del importlib.import_module("prn_jax.detect.metrics.protocols")._PROTOCOLS["test_only"]


def test_prn_eval_says_what_became_of_regions(tmp_path: Path) -> None:
  """Drawn scenes with a region over the left half of each: more of them is right, and the command says by which rule."""
  done = convert("synthetic:traffic:6@valid", tmp_path / "set", "coco")
  annotations = Path(done.spec.split(":")[1])
  content = json.loads(annotations.read_text())
  for image in content["images"]:
    image["ignored_regions"] = [[0, 0, image["width"] / 2, image["height"]]]
  annotations.write_text(json.dumps(content))
  arguments = ["traffic-tiny-prn", "--data", done.spec, "--protocol", "visdrone"]
  result = prn("eval", *arguments, "--out", tmp_path / "out", "--json")
  values = json_line(result)
  regions = values["ignored_regions"]
  assert regions["count"] == 6
  assert regions["rule"].startswith("objects and detections of which half or more")
  assert values["metrics"].keys() == regions["metrics_without"].keys() == set(VISDRONE_FIGURES)
  assert values["metrics"] != regions["metrics_without"]
  assert json.loads((tmp_path / "out" / "visdrone.json").read_text())["ignored_regions"] == regions


# -- against the official evaluators ---------------------------------------------------------------------------------


def crowds_of_every_class(data: EvalData) -> EvalData:
  """By loops: every region once for every class, whether it was detected or not."""
  records, detections = [], {}
  for image, image_id in enumerate(data.image_ids):
    objects = []
    for row in np.flatnonzero(data.truth_image == image):
      x, y, w, h = data.truth_boxes_xywh_px[row]
      objects.append(
        Object(
          (x, y, x + w, y + h),
          int(data.truth_classes[row]),
          bool(data.truth_is_crowd[row]),
          area_px=float(data.truth_area_px[row]),
          box_xywh_px=(x, y, w, h),
        )
      )
    for row in np.flatnonzero(data.region_image == image):
      x, y, w, h = data.region_boxes_xywh_px[row]
      objects += [
        Object((x, y, x + w, y + h), index, is_crowd=True, area_px=w * h, box_xywh_px=(x, y, w, h))
        for index in range(data.num_classes)
      ]
    records.append(make_record(Path("x.jpg"), image_id, (200, 200), objects))
    rows = data.det_image == image
    detections[image_id] = ImageDetections(
      data.det_boxes_xyxy_px[rows], data.det_scores[rows], data.det_classes[rows], data.det_boxes_xywh_px[rows]
    )
  return collect(data.names, records, detections)


@given(seed=st.integers(0, 10_000), num_classes=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_regions_are_crowds_of_every_class_to_all_backends(seed: int, num_classes: int) -> None:
  data = with_regions(random_data(seed, num_classes=num_classes), seed)
  expected = coco_metrics(crowds_of_every_class(data), backend="pycocotools").figures
  for backend in BACKENDS:
    figures = coco_metrics(data, backend=backend).figures
    for name in FIGURES:
      assert figures[name] == pytest.approx(expected[name], abs=1e-12), (backend, name)
  ours = score(data, COCO).mean
  assert (-1 if np.isnan(ours) else ours) == pytest.approx(expected["AP"], abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_without_regions_nothing_changes(seed: int) -> None:
  data = random_data(seed, is_difficult=True)
  assert as_crowds(data) is data
  plain = without_regions(with_regions(data, seed))
  for protocol in ("coco", "voc07", "voc", "darknet"):
    assert evaluate(plain, protocol).metrics == evaluate(data, protocol).metrics


# -- VisDrone's rule by direct loops ---------------------------------------------------------------------------------


def overlap(a: np.ndarray, b: np.ndarray, is_region: bool) -> float:
  width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  inside = max(width, 0) * max(height, 0)
  whole = a[2] * a[3] if is_region else a[2] * a[3] + b[2] * b[3] - inside
  return inside / whole if whole > 0 else 0.0


def visdrone_by_loops(data: EvalData) -> dict[str, float]:
  """The written rule, step by step; boxes of whole pixels are measured in a mask."""
  side = 400
  images = []
  for image in range(data.num_images):
    mask = np.zeros((side, side), bool)
    for x, y, w, h in data.region_boxes_xywh_px[data.region_image == image].astype(int):
      mask[y : y + h, x : x + w] = True

    def is_left(box: np.ndarray, mask: np.ndarray = mask) -> bool:
      x, y, w, h = box.astype(int)
      return not mask.any() or w * h == 0 or mask[y : y + h, x : x + w].sum() / (w * h) < 0.5

    truths = [t for t in np.flatnonzero(data.truth_image == image) if is_left(data.truth_boxes_xywh_px[t])]
    dets = [d for d in np.flatnonzero(data.det_image == image) if is_left(data.det_boxes_xywh_px[d])]
    dets = sorted(dets, key=lambda d: -data.det_scores[d])[:500]
    images.append((truths, dets))
  table: dict[tuple[int, float], tuple[float, list[float]]] = {}
  thresholds = np.linspace(0.5, 0.95, 10)
  for index in range(data.num_classes):
    total = sum(data.truth_classes[t] == index and not data.truth_is_crowd[t] for truths, _ in images for t in truths)
    if not total:
      continue
    for threshold in thresholds:
      hits: list[tuple[float, int, int]] = []  # score, rank in its image, 1 right or 0 wrong
      for truths, dets in images:
        counted = [t for t in truths if data.truth_classes[t] == index and not data.truth_is_crowd[t]]
        others = [t for t in truths if data.truth_classes[t] == index and data.truth_is_crowd[t]]
        free = set(counted)
        for rank, d in enumerate(dets):
          if data.det_classes[d] != index:
            continue
          box = data.det_boxes_xywh_px[d]
          best, best_iou = None, min(threshold, 1 - 1e-10)
          for t in counted:
            iou = overlap(box, data.truth_boxes_xywh_px[t], False)
            if t in free and iou >= best_iou:
              best, best_iou = t, iou
          if best is not None:
            free.remove(best)
            hits.append((data.det_scores[d], rank, 1))
          elif not any(overlap(box, data.truth_boxes_xywh_px[t], True) >= min(threshold, 1 - 1e-10) for t in others):
            hits.append((data.det_scores[d], rank, 0))
      recalls = [sum(is_right for _, rank, is_right in hits if rank < most) / total for most in (1, 10, 100, 500)]
      hits.sort(key=lambda hit: -hit[0])
      right, area, points = 0, 0.0, []
      for number, (_, _, is_right) in enumerate(hits, 1):
        right += is_right
        points.append((right / total, right / number))
      last = 0.0
      for place, (recall, _) in enumerate(points):
        area += (recall - last) * max(precision for _, precision in points[place:])
        last = recall
      table[index, threshold] = area, recalls
  if not table:
    return {}
  ap = {threshold: np.mean([table[key][0] for key in table if key[1] == threshold]) for threshold in thresholds}
  figures = {"AP": np.mean(list(ap.values())), "AP50": ap[thresholds[0]], "AP75": ap[thresholds[5]]}
  for column, most in enumerate((1, 10, 100, 500)):
    figures[f"AR{most}"] = np.mean([recalls[column] for _, recalls in table.values()])
  return {name: float(value) for name, value in figures.items()}


@given(seed=st.integers(0, 10_000), num_classes=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_visdrone_is_the_written_rule(seed: int, num_classes: int) -> None:
  data = with_regions(random_data(seed, num_classes=num_classes), seed)
  # Whole pixels, so that the mask is the area; scores that differ, since ties are nobody's rule.
  rng = np.random.default_rng(seed)
  scores = rng.permutation(data.num_detections) / max(data.num_detections, 1)
  data = dataclasses.replace(data, det_boxes_xywh_px=np.round(data.det_boxes_xywh_px), det_scores=scores)
  figures, expected = visdrone_metrics(data).figures, visdrone_by_loops(data)
  if not expected:
    assert all(np.isnan(value) for value in figures.values())
    return
  assert list(figures) == list(VISDRONE_FIGURES)
  for name, value in expected.items():
    assert figures[name] == pytest.approx(value, abs=1e-12), name


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_share_in_overlapping_regions_is_that_of_a_mask(seed: int) -> None:
  data = with_regions(random_data(seed), seed)
  boxes = np.round(data.det_boxes_xywh_px)
  share = share_of_all(data.det_image, boxes, data)
  for row, (x, y, w, h) in enumerate(boxes.astype(int).tolist()):
    mask = np.zeros((400, 400), bool)
    for a, b, c, d in data.region_boxes_xywh_px[data.region_image == data.det_image[row]].astype(int).tolist():
      mask[b : b + d, a : a + c] = True
    expected = mask[y : y + h, x : x + w].mean() if w * h else 0.0
    assert share[row] == pytest.approx(expected, abs=1e-12)


def test_regions_of_records_come_through_collect() -> None:
  record: Record = make_record(Path("1.jpg"), "b", (9, 9), [], ignored_xyxy_px=[(1, 2, 3, 5), (0, 0, 4.5, 4)])
  other = make_record(Path("2.jpg"), "a", (9, 9), [])
  data = collect(["x"], [record, other], {"a": found(), "b": found()})
  assert data.region_image.tolist() == [1, 1]
  assert data.region_boxes_xywh_px.tolist() == [[1, 2, 2, 3], [0, 0, 4.5, 4]]
