"""Curves, the confusion matrix and the worst mistakes, by hand and by what must hold for any data."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.records import Object
from prn_jax.detect.metrics import (
  COCO50,
  Special,
  Verdict,
  assign,
  compute_curves,
  confusion_matrix,
  missed_objects,
  score,
  wrong_detections,
)
from tests.detect.metrics.scenes import one_image, random_data

BOX = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def scene():
  """Cats at BOX and FAR, a dog at (20, 20); a cat found twice, a dog taken for a cat, a loose box, a ghost."""
  objects = [Object(BOX, 0), Object(FAR, 0), Object((20, 20, 30, 30), 1)]
  rows = [
    (BOX, 0.9, 0),
    ((1.0, 0.0, 11.0, 10.0), 0.8, 0),  # the first cat again
    ((20.0, 20.0, 30.0, 30.0), 0.7, 0),  # the dog
    ((57.0, 50.0, 67.0, 60.0), 0.6, 0),  # 30 of 170 of the second cat
    ((80.0, 80.0, 90.0, 90.0), 0.5, 1),  # nothing
    (FAR, 0.2, 0),  # right, but below the confidence
  ]
  return one_image(objects, rows)


def test_verdicts() -> None:
  result = assign(scene(), conf_threshold=0.25)
  assert result.det_verdict.tolist() == ["right", "duplicate", "wrong class", "loose box", "no object"]
  assert result.det_truth.tolist() == [0, 0, 2, 1, -1]
  assert result.truth_verdict.tolist() == ["right", "missed", "wrong class"]
  assert result.truth_det.tolist() == [0, -1, 2]


def test_confusion_matrix() -> None:
  matrix = confusion_matrix(assign(scene(), conf_threshold=0.25))
  assert matrix.names == ("class 0", "class 1", "background")
  # Rows: cat, dog, background; columns: detected as cat, as dog, missed.
  assert matrix.counts.tolist() == [[1, 0, 1], [1, 0, 0], [2, 1, 0]]
  assert json.loads(json.dumps(matrix.to_json()))["counts"][2] == [2, 1, 0]
  lower = confusion_matrix(assign(scene(), conf_threshold=0.1))
  assert lower.counts.tolist() == [[2, 0, 0], [1, 0, 0], [2, 1, 0]]


def test_mistakes_are_sorted_by_how_bad_they_are() -> None:
  result = assign(scene(), conf_threshold=0.25)
  wrong = wrong_detections(result)
  assert [(mistake.verdict, mistake.name, mistake.other_name, mistake.score) for mistake in wrong] == [
    (Verdict.DUPLICATE, "class 0", "class 0", 0.8),
    (Verdict.WRONG_CLASS, "class 0", "class 1", 0.7),
    (Verdict.LOOSE_BOX, "class 0", "class 0", 0.6),
    (Verdict.NO_OBJECT, "class 1", None, 0.5),
  ]
  assert wrong[2].iou == pytest.approx(30 / 170)
  assert wrong[0].box_xyxy_px == (1, 0, 11, 10)
  missed = missed_objects(result)
  assert [(mistake.verdict, mistake.name, mistake.other_name, mistake.score) for mistake in missed] == [
    (Verdict.MISSED, "class 0", None, None),
    (Verdict.WRONG_CLASS, "class 1", "class 0", 0.7),
  ]
  assert wrong_detections(result, 1) == wrong[:1]
  assert missed[0].to_json()["verdict"] == "missed"


def test_larger_objects_come_first() -> None:
  data = one_image([Object((0, 0, 5, 5), 0), Object((0, 0, 50, 50), 1)], [])
  assert [mistake.name for mistake in missed_objects(assign(data))] == ["class 1", "class 0"]


def test_what_need_not_be_found_is_no_mistake() -> None:
  objects = [Object((0, 0, 100, 100), 0, is_crowd=True), Object(FAR, 1, is_difficult=True)]
  result = assign(one_image(objects, [(BOX, 0.9, 0), (FAR, 0.8, 1)]))
  assert result.det_verdict.tolist() == ["not counted"] * 2
  assert result.truth_verdict.tolist() == ["not counted"] * 2
  assert not wrong_detections(result)
  assert not missed_objects(result)
  assert not confusion_matrix(result).counts.any()


@given(seed=st.integers(0, 10_000), conf=st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=40, deadline=None)
def test_the_matrix_adds_up(seed: int, conf: float) -> None:
  data = random_data(seed, is_difficult=True)
  result = assign(data, conf_threshold=conf)
  matrix = confusion_matrix(result)
  counted = ~(data.truth_is_crowd | data.truth_is_difficult)
  assert matrix.counts[:-1].sum(axis=1).tolist() == np.bincount(data.truth_classes[counted], minlength=3).tolist()
  used = result.det_verdict != Verdict.NOT_COUNTED
  assert matrix.counts[:, :-1].sum() == used.sum()
  # The diagonal holds the right detections of AP50 above the confidence.
  rules = dataclasses.replace(COCO50, score_threshold=conf, difficult=Special.IGNORE)
  right = [int(curve.is_right.sum()) for curve in score(data, rules).curves]
  assert np.diag(matrix.counts)[:-1].tolist() == right


def test_pr_curve_by_hand() -> None:
  # Right, wrong, right of 4 objects.
  objects = [Object((x, 0, x + 10, 10), 0) for x in (0, 20, 40, 60)]
  rows = [((0.0, 0.0, 10.0, 10.0), 0.9, 0), ((0.0, 80.0, 10.0, 90.0), 0.8, 0), ((20.0, 0.0, 30.0, 10.0), 0.7, 0)]
  curves = compute_curves(one_image(objects, rows))
  pr = curves.pr[0]
  assert pr.num_truths == 4
  np.testing.assert_allclose(pr.precision[[0, 25, 26, 50, 51, 100]], [1, 1, 2 / 3, 2 / 3, 0, 0])
  np.testing.assert_allclose(pr.scores[[0, 25, 26, 50]], [0.9, 0.9, 0.7, 0.7])
  assert np.isnan(pr.scores[51])
  assert pr.ap == pytest.approx((26 + 25 * 2 / 3) / 101)
  assert np.isnan(curves.pr[1].ap)
  assert np.isnan(curves.pr[1].precision).all()


def test_f1_curve_by_hand() -> None:
  objects = [Object((x, 0, x + 10, 10), 0) for x in (0, 20, 40, 60)]
  rows = [((0.0, 0.0, 10.0, 10.0), 0.9, 0), ((0.0, 80.0, 10.0, 90.0), 0.8, 0), ((20.0, 0.0, 30.0, 10.0), 0.7, 0)]
  curve = compute_curves(one_image(objects, rows)).confidence
  assert curve.at(0.0) == pytest.approx((2 / 3, 1 / 2, 4 / 7))
  assert curve.at(0.75) == pytest.approx((1 / 2, 1 / 4, 2 / 6))
  assert curve.at(0.85) == pytest.approx((1, 1 / 4, 2 / 5))
  precision, recall, f1 = curve.at(1.0)
  assert np.isnan(precision)
  assert (recall, f1) == (0, 0)
  assert curve.best_f1 == pytest.approx(4 / 7)
  assert curve.best_confidence == 0.0
  assert curve.at(0.9)[1] == 0  # a score must exceed the confidence


def test_curves_of_nothing() -> None:
  curves = compute_curves(one_image([], []))
  assert curves.confidence.best_f1 == 0.0
  content = json.loads(json.dumps(curves.to_json(), allow_nan=False))
  assert content["classes"][0]["ap"] is None
  assert content["all"]["precision"] == [None] * 101
  assert confusion_matrix(assign(one_image([], []))).counts.sum() == 0


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_curves_fall_and_stay_shares(seed: int) -> None:
  curves = compute_curves(random_data(seed))
  for pr in curves.pr:
    if pr.num_truths:
      assert (np.diff(pr.precision) <= 1e-12).all()
      assert ((pr.precision >= 0) & (pr.precision <= 1)).all()
  assert (np.diff(np.nan_to_num(curves.confidence.recall)) <= 0).all()
  assert ((curves.confidence.f1 >= 0) & (curves.confidence.f1 <= 1)).all()
