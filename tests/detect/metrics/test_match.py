"""The matching rules by hand, and equality with the official evaluators on random scenes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.records import Object
from prn_jax.detect.metrics import BACKENDS, COCO, COCO50, DARKNET, FIGURES, VOC, coco_metrics, score
from prn_jax.detect.metrics.match import (
  AbsentClass,
  Curve,
  Interpolation,
  Matching,
  Pixels,
  Special,
  average_precision,
  find_pairs,
  match,
  pair_overlap,
  prepare,
)
from tests.detect.metrics.scenes import one_image, random_data

BOX = (0.0, 0.0, 10.0, 10.0)


def status(data, rules, threshold=0.5):
  prepared = prepare(data, rules)
  return match(prepared, rules, threshold, find_pairs(prepared, rules)).status.tolist()


@given(seed=st.integers(0, 10_000), num_classes=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_our_rules_equal_the_official_evaluators(seed: int, num_classes: int) -> None:
  data = random_data(seed, num_classes=num_classes)
  official = {backend: coco_metrics(data, backend=backend) for backend in BACKENDS}
  for other in official.values():
    for name in FIGURES:
      assert other.figures[name] == pytest.approx(official["pycocotools"].figures[name], abs=1e-12), name
  for rules, name in ((COCO, "AP"), (COCO50, "AP50")):
    ours = score(data, rules)
    expected = official["pycocotools"].figures[name]
    assert (-1 if np.isnan(ours.mean) else ours.mean) == pytest.approx(expected, abs=1e-12)
    for index, row in enumerate(official["pycocotools"].per_class):
      ap = ours.ap[:, index].mean()
      assert (-1 if np.isnan(ap) else ap) == pytest.approx(row.figures[name], abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_average_precision_is_a_share_and_falls_with_the_threshold(seed: int) -> None:
  data = random_data(seed, is_difficult=True)
  for rules in (COCO, VOC, DARKNET):
    means = [score(data, dataclasses.replace(rules, iou_thresholds=(t,))).mean for t in (0.3, 0.5, 0.75)]
    if not np.isnan(means).any():
      assert all(0 <= mean <= 1 for mean in means)
      # Not of Darknet's rules: a detection whose overlap with a taken truth falls below the threshold may then be one
      # that overlaps a difficult object, which Darknet drops, and the precision rises.
      assert means[0] >= means[2] or rules.matching is Matching.BEST_FREE or rules is DARKNET
  plain = random_data(seed, is_difficult=False)
  low, high = (score(plain, dataclasses.replace(DARKNET, iou_thresholds=(t,))).mean for t in (0.3, 0.75))
  assert np.isnan([low, high]).any() or low >= high


def test_the_second_best_truth_counts_for_coco_alone() -> None:
  # Two objects side by side; both detections overlap the first most. IoU with the second: 60 / 140.
  objects = [Object((0, 0, 10, 10), 0), Object((4, 0, 14, 10), 0)]
  rows = [((0.0, 0.0, 10.0, 10.0), 0.9, 0), ((1.0, 0.0, 11.0, 10.0), 0.8, 0)]
  data = one_image(objects, rows)
  low = 0.4
  assert status(data, COCO50, low) == [1, 1]
  assert status(data, VOC, low) == [1, 0]
  assert status(data, DARKNET, low) == [1, 0]


def test_the_higher_score_takes_the_truth() -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.3, 0), (BOX, 0.8, 0), (BOX, 0.8, 0)])
  for rules in (COCO50, VOC, DARKNET):
    assert status(data, rules) == [0, 1, 0]


def test_an_overlap_equal_to_the_threshold() -> None:
  data = one_image([Object(BOX, 0)], [((0.0, 0.0, 10.0, 5.0), 0.9, 0)])  # IoU exactly .5
  assert status(data, COCO50) == [1]
  assert status(data, VOC) == [1]
  assert status(data, DARKNET) == [0]


def test_crowd_regions_take_any_number_by_their_inside() -> None:
  # Boxes of 100 in a crowd region of 10,000: IoU .01, but wholly inside.
  objects = [Object((0, 0, 100, 100), 0, is_crowd=True)]
  data = one_image(objects, [(BOX, 0.9, 0), (BOX, 0.8, 0), ((95.0, 0.0, 105.0, 10.0), 0.7, 0)])
  assert status(data, COCO50) == [-1, -1, -1]  # the last is half inside: exactly .5
  assert status(data, dataclasses.replace(COCO50, crowd=Special.IGNORE)) == [0, 0, 0]
  assert status(data, dataclasses.replace(COCO50, crowd=Special.DROP)) == [0, 0, 0]


def test_a_counted_truth_comes_before_a_crowd_region() -> None:
  objects = [Object((0, 0, 100, 100), 0, is_crowd=True), Object((0, 0, 10, 11), 0)]
  assert status(one_image(objects, [(BOX, 0.9, 0), (BOX, 0.8, 0)]), COCO50) == [1, -1]


def test_difficult_objects() -> None:
  objects = [Object(BOX, 0, is_difficult=True), Object((0, 0, 10, 8), 0)]
  rows = [(BOX, 0.9, 0), (BOX, 0.8, 0)]
  data = one_image(objects, rows)
  assert status(data, VOC) == [-1, -1]  # the difficult one overlaps most
  assert status(data, DARKNET) == [1, 0]  # the other one suffices
  assert status(data, COCO50) == [1, 1]  # difficult objects count like any
  assert status(data, dataclasses.replace(VOC, difficult=Special.DROP)) == [1, 0]
  assert status(data, dataclasses.replace(COCO50, difficult=Special.REGION)) == [1, -1]


def test_limits_on_detections() -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.3, 0), (BOX, 0.8, 0), (BOX, 0.5, 1)])
  assert status(data, dataclasses.replace(COCO50, max_detections=1)) == [1, 0]
  assert status(data, dataclasses.replace(COCO50, score_threshold=0.3)) == [1, 0]
  assert prepare(data, dataclasses.replace(COCO50, score_threshold=0.3)).det_scores.tolist() == [0.8, 0.5]


def test_clipping_and_rounding() -> None:
  data = one_image([], [((-3.0, 2.26, 120.0, 40.0), 0.9, 0)])
  clipped = prepare(data, dataclasses.replace(COCO50, is_clipped=True))
  np.testing.assert_allclose(clipped.det_boxes_xyxy_px, [[0, 2.26, 100, 40]], atol=1e-6)
  rounded = prepare(data, dataclasses.replace(COCO50, round_px=0.5))
  np.testing.assert_array_equal(rounded.det_boxes_xyxy_px, [[-3, 2.5, 120, 40]])


def test_overlaps_by_hand() -> None:
  a, b = np.array([[0.0, 0, 2, 2]] * 2), np.array([[1.0, 1, 2, 2]] * 2)
  is_region = np.array([False, True])
  # One of seven, and one of a's four; with both ends inclusive: 2*2 of 3*3 + 3*3 - 4.
  np.testing.assert_allclose(pair_overlap(a, b, is_region, Pixels.CONTINUOUS), [1 / 7, 1 / 4])
  np.testing.assert_allclose(pair_overlap(a, b, is_region, Pixels.INCLUSIVE), [4 / 14, 4 / 9])
  empty = np.zeros((2, 4))
  np.testing.assert_array_equal(pair_overlap(empty, empty, is_region, Pixels.CONTINUOUS), [0, 0])


# To a thousandth of a pixel: of a box 1e-12 wide, x + width - x is another width. Coordinates up to 100 are off by 100
# epsilon at most, so that a side of a thousandth is off by 1e5 epsilon of itself; an area has two, an overlap two areas.
ROUNDING = 4 * 100 / 0.001 * np.finfo(np.float64).eps


@given(
  st.lists(st.lists(st.integers(0, 50_000).map(lambda n: n / 1000), min_size=4, max_size=4), min_size=2, max_size=2)
)
def test_overlap_is_symmetric_and_a_share(boxes: list[list[float]]) -> None:
  one, other = (np.array([box]) for box in boxes)
  no = np.array([False])
  forth = pair_overlap(one, other, no, Pixels.CONTINUOUS)
  back = pair_overlap(other, one, no, Pixels.CONTINUOUS)
  np.testing.assert_allclose(forth, back, atol=1e-12)
  assert 0 <= forth[0] <= 1 + ROUNDING


def test_interpolations_by_hand() -> None:
  # Right, wrong, right, of 4 objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2; envelope 1, 2/3, 2/3.
  curve = Curve(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 4)
  assert average_precision(curve, Interpolation.AREA) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
  # Recalls 0, .1, .2 at 1; .3, .4, .5 at 2/3; the rest is not reached.
  assert average_precision(curve, Interpolation.VOC_11) == pytest.approx((3 + 3 * 2 / 3) / 11)
  # 26 recalls from 0 to .25, 25 from .26 to .5.
  assert average_precision(curve, Interpolation.DARKNET_101) == pytest.approx((26 + 25 * 2 / 3) / 101)
  assert average_precision(curve, Interpolation.COCO_101) == pytest.approx((26 + 25 * 2 / 3) / 101)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 10))
def test_darknet_area_is_voc_area(is_right: list[bool], num_missed: int) -> None:
  """The loop of `detector.c:validate_detector_map`, as it stands there."""
  curve = Curve(-np.arange(len(is_right), dtype=float), np.array(is_right), sum(is_right) + num_missed)
  if not curve.num_truths:
    return
  last_recall, last_precision, area = curve.recall[-1], curve.precision[-1], 0.0
  for rank in range(len(is_right) - 2, -1, -1):
    delta_recall, last_recall = last_recall - curve.recall[rank], curve.recall[rank]
    last_precision = max(last_precision, curve.precision[rank])
    area += delta_recall * last_precision
  area += last_recall * last_precision
  assert average_precision(curve, Interpolation.AREA) == pytest.approx(area, abs=1e-12)


def test_a_recall_of_exactly_three_tenths() -> None:
  curve = Curve(np.array([0.9, 0.8, 0.7]), np.array([True, True, True]), 10)
  assert average_precision(curve, Interpolation.DARKNET_11) == pytest.approx(4 / 11)
  assert average_precision(curve, Interpolation.VOC_11) == pytest.approx(3 / 11)


def test_undefined_and_empty_curves() -> None:
  nothing = np.zeros(0)
  for interpolation in Interpolation:
    assert np.isnan(average_precision(Curve(nothing, nothing.astype(bool), 0), interpolation))
    assert average_precision(Curve(nothing, nothing.astype(bool), 5), interpolation) == 0.0
    assert np.isnan(average_precision(Curve(np.ones(1), np.zeros(1, bool), 0), interpolation))


def test_classes_without_truths_are_skipped_or_zero() -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.9, 0), (BOX, 0.9, 1)])
  assert score(data, COCO50).mean == pytest.approx(1)
  assert score(data, dataclasses.replace(COCO50, absent_class=AbsentClass.ZERO)).mean == pytest.approx(0.5)
  nothing = one_image([], [(BOX, 0.9, 0)])
  assert np.isnan(score(nothing, COCO50).mean)
  assert score(nothing, DARKNET).mean == 0.0
