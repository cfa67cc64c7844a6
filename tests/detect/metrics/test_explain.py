"""Where the differences between protocols come from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.records import Object
from prn_jax.detect.metrics import PROTOCOLS, coco_metrics, darknet_metrics, explain, voc_metrics
from prn_jax.detect.metrics.explain import Change, Explanation
from tests.detect.metrics.scenes import one_image, random_data

BOX = (0.0, 0.0, 10.0, 10.0)


def change(result: Explanation, what: str, after: str) -> Change:
  return next(one for one in result.changes if (one.what, one.after) == (what, after))


@given(seed=st.integers(0, 10_000), reference=st.sampled_from(sorted(PROTOCOLS)))
@settings(max_examples=20, deadline=None)
def test_walks_add_up_to_the_difference(seed: int, reference: str) -> None:
  # One class only, so that every protocol is defined as soon as there is a truth.
  data = random_data(seed, num_classes=1, is_difficult=True)
  if (data.truth_is_crowd | data.truth_is_difficult).all():
    return
  result = explain(data, reference=reference)
  assert {walk.protocol for walk in result.walks} == set(PROTOCOLS) - {reference}
  for walk in result.walks:
    assert result.figure + sum(one.effect for one in walk.changes) == pytest.approx(walk.figure, abs=1e-9)
    assert walk.figure == result.figures[walk.protocol]
    if walk.changes:
      assert walk.changes[-1].figure == pytest.approx(walk.figure, abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_figures_are_those_of_the_protocols(seed: int) -> None:
  data = random_data(seed, is_difficult=False)
  figures = explain(data).figures
  if not len(data.truth_classes) or data.truth_is_crowd.all():
    return
  official = coco_metrics(data).figures
  assert figures["coco"] == pytest.approx(official["AP"], abs=1e-12)
  assert figures["coco50"] == pytest.approx(official["AP50"], abs=1e-12)
  assert figures["voc07"] == voc_metrics(data, interpolation="11").mean_ap
  assert figures["voc"] == voc_metrics(data).mean_ap
  for name, points in (("darknet", 0), ("darknet11", 11), ("darknet101", 101)):
    assert figures[name] == darknet_metrics(data, points=points).mean_ap


def test_each_cause_shows_under_its_name() -> None:
  # A crowd region full of detections that score above the right one; class 1 has no truths.
  objects = [Object(BOX, 0), Object((50, 50, 100, 100), 0, is_crowd=True)]
  rows = [((60.0 + 5 * i, 60.0, 70.0 + 5 * i, 70.0), 0.9, 0) for i in range(3)]
  result = explain(one_image(objects, [*rows, (BOX, 0.5, 0)]))
  assert result.figure == pytest.approx(1)
  assert change(result, "crowd regions", "are not there").figure == pytest.approx(1 / 4)
  assert change(result, "classes without truths", "zero").figure == pytest.approx(1 / 2)
  assert change(result, "score to exceed", "0.5").figure == pytest.approx(0)
  assert change(result, "detections per image and class", "1").figure == pytest.approx(0)
  assert change(result, "difficult objects", "are not there").effect == 0
  assert [abs(one.effect) for one in result.changes] == sorted(
    (abs(one.effect) for one in result.changes), reverse=True
  )


def test_rounding_inclusive_pixels_and_strictness_show() -> None:
  # IoU exactly .5; half a pixel more or less decides.
  result = explain(one_image([Object(BOX, 0)], [((0.0, 0.0, 10.0, 5.0), 0.9, 0)], num_classes=1))
  assert change(result, "IoU equal to the threshold", "is too little").figure == 0
  assert change(result, "width of a box", "x2 - x1 + 1").figure == pytest.approx(1)
  loose = explain(one_image([Object(BOX, 0)], [((0.0, 0.0, 10.0, 4.6), 0.9, 0)], num_classes=1))
  assert loose.figure == 0
  assert change(loose, "boxes rounded to", "1 px").figure == pytest.approx(1)
  outside = one_image([Object(BOX, 0)], [((-11.0, 0.0, 10.0, 10.0), 0.9, 0)], num_classes=1)
  assert change(explain(outside), "boxes clipped to the image", "yes").effect == pytest.approx(1)


def test_difficult_objects_and_points_show() -> None:
  objects = [Object(BOX, 0), Object((50, 50, 60, 60), 0, is_difficult=True)]
  result = explain(one_image(objects, [(BOX, 0.9, 0)], num_classes=1))
  assert result.figures["coco50"] == pytest.approx(51 / 101)
  assert change(result, "difficult objects", "count neither way").figure == pytest.approx(1)
  assert change(result, "precision over recall by", "11 points (VOC2007)").figure == pytest.approx(6 / 11)
  assert "0 crowd regions, 1 difficult objects" in result.facts


def test_text_and_json() -> None:
  objects = [Object(BOX, 0), Object((50, 50, 100, 100), 0, is_crowd=True)]
  result = explain(one_image(objects, [(BOX, 0.9, 0), ((60.0, 60.0, 70.0, 70.0), 0.95, 0)]))
  text = result.text()
  assert "  COCO AP50               1.0000   <- reference\n" in text
  assert "  1 of 2 classes without truths\n" in text
  assert "From COCO AP50 (1.0000) to Darknet, area (0.2500): -0.7500" in text
  assert "  crowd regions: take any box inside -> are not there" in text
  assert "without effect here: " in text
  assert max(len(line) for line in text.splitlines()) <= 120
  content = json.loads(json.dumps(result.to_json(), allow_nan=False))
  assert set(content["figures"]) == set(PROTOCOLS)
  assert content["walks"][0]["changes"][0]["what"]
