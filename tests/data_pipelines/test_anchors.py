"""Anchors: the IoU of sizes by hand, clusters that are known, and what cannot be clustered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.doctor.anchors import Metric, _whitened_means, box_sizes, fit_anchors, iou_wh, score_anchors
from prn_jax.data_pipelines.records import DataError, Object, RecordList, make_record
from prn_jax.data_pipelines.spec import open_spec


def test_iou_of_sizes_by_hand() -> None:
  # Sharing a corner, 2x3 and 4x1 overlap in 2x1 = 2; their union is 6 + 4 - 2 = 8.
  iou = iou_wh(np.array([[2.0, 3.0], [4.0, 1.0]]), np.array([[4.0, 1.0], [2.0, 3.0], [1.0, 1.0]]))
  np.testing.assert_allclose(iou, [[2 / 8, 1, 1 / 6], [1, 2 / 8, 1 / 4]])


def test_figures_by_hand() -> None:
  # 10x10 fits exactly; 10x5 has IoU 50 / 100 with 10x10; 2x2 has IoU 4 / 100 with it and 1 with 2x2.
  found = score_anchors(np.array([[10.0, 10.0], [10.0, 5.0], [2.0, 2.0]]), np.array([[2.0, 2.0], [10.0, 10.0]]))
  assert found.mean_iou == pytest.approx((1 + 0.5 + 1) / 3)
  assert found.recall == {0.25: 1.0, 0.5: 1.0, 0.75: pytest.approx(2 / 3)}
  assert found.counts.tolist() == [1, 2]
  assert found.cfg_line() == "anchors = 2,2,  10,10"
  assert found.cfg_line(32) == "anchors = 0.0625,0.0625,  0.3125,0.3125"
  assert found.to_json()["anchors"] == [[2.0, 2.0], [10.0, 10.0]]
  assert found.to_json()["recall"]["0.5"] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_well_separated_clusters_are_found(seed: int) -> None:
  rng = np.random.default_rng(seed)
  centres = np.array([[10, 20], [40, 30], [60, 150], [200, 90], [300, 310]], float)
  sizes = np.concatenate([centre * rng.uniform(0.95, 1.05, (200, 2)) for centre in centres])
  found = fit_anchors(rng.permutation(sizes), 5, seed=seed)
  np.testing.assert_allclose(found.sizes_wh_px, centres, rtol=0.02)  # by ascending area
  assert found.counts.tolist() == [200] * 5
  assert found.mean_iou > 0.94


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_properties(seed: int, num: int) -> None:
  sizes = np.random.default_rng(seed).lognormal(3, 1, (60, 2))
  found = fit_anchors(sizes, num, num_restarts=2)
  assert (np.diff(found.sizes_wh_px.prod(1)) >= 0).all()
  assert found.counts.sum() == found.num_boxes == 60
  assert 0 < found.mean_iou <= 1
  assert found.recall[0.25] >= found.recall[0.5] >= found.recall[0.75]
  again = fit_anchors(sizes, num, num_restarts=2)
  np.testing.assert_array_equal(found.sizes_wh_px, again.sizes_wh_px)


def test_a_large_data_set_is_sampled_and_refined_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr("prn_jax.data_pipelines.doctor.anchors.MAX_SAMPLE", 300)
  sizes = np.random.default_rng(0).lognormal(3, 1, (3000, 2))
  sampled = fit_anchors(sizes, 6)
  monkeypatch.undo()
  assert sampled.num_boxes == 3000
  assert sampled.mean_iou > fit_anchors(sizes, 6).mean_iou - 0.01


def data(*boxes: tuple[float, float, float, float], crowd: bool = False) -> RecordList:
  objects = [Object(box, 0, is_crowd=crowd and number == 0) for number, box in enumerate(boxes)]
  return RecordList(("a",), (0,), (make_record(Path("1.jpg"), 1, (200, 100), objects),))


def test_sizes_are_those_in_the_network() -> None:
  boxes = data((0, 0, 100, 50), (0, 0, 20, 10), crowd=True)
  np.testing.assert_allclose(box_sizes(boxes, (416, 416)), [[41.6, 41.6]])  # the crowd region is left out
  np.testing.assert_allclose(box_sizes(boxes, (416, 416), "letterbox"), [[41.6, 20.8]])  # scale 416 / 200


def test_too_few_boxes() -> None:
  with pytest.raises(DataError, match=r"3 anchors cannot be found: the 2 boxes have 1 different sizes"):
    fit_anchors(np.array([[3.0, 4.0], [3.0, 4.0]]), 3)
  with pytest.raises(DataError, match=r"0 anchors cannot be found"):
    fit_anchors(np.array([[3.0, 4.0]]), 0)
  with pytest.raises(DataError, match=r"the 1 images of the data set have no boxes; anchors are for detection"):
    box_sizes(data(), (416, 416))


def test_real_data_beats_the_anchors_of_coco(shared: Path) -> None:
  sizes = box_sizes(open_spec(f"voc:{shared / 'data' / 'bccd' / 'BCCD'}:trainval", "skip"), (416, 416))
  tiny = np.array([[10, 14], [23, 27], [37, 58], [81, 82], [135, 169], [344, 319]], float)  # yolov3-tiny.cfg
  found = fit_anchors(sizes, 6)
  assert score_anchors(sizes, tiny).mean_iou < 0.75
  assert found.mean_iou > 0.86
  assert found.recall[0.5] > 0.99


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0.05, 1.5))
def test_whitened_anchors_are_as_good_as_kmeans_leaves_them(seed: int, num: int, spread: float) -> None:
  sizes = np.random.default_rng(seed).lognormal(3, spread, (120, 2))
  found = fit_anchors(sizes, num, seed=seed, metric="whitened-l2")
  assert found.sizes_wh_px.shape == (num, 2)
  assert (found.sizes_wh_px > 0).all()
  again = fit_anchors(sizes, num, seed=seed, metric=Metric.WHITENED_L2)
  np.testing.assert_array_equal(found.sizes_wh_px, again.sizes_wh_px)
  means = _whitened_means(sizes, num, 10, np.random.default_rng(seed))
  best = iou_wh(sizes, means).max(1)
  assert found.mean_iou >= np.where(best > 0.2, best, 0).mean() - 0.01  # the anchors are rounded


def test_boxes_of_one_width_give_no_anchor_without_width() -> None:
  sizes = np.stack([np.full(40, 0.04), np.linspace(2, 30, 40)], 1)
  for metric in Metric:
    assert (fit_anchors(sizes, 3, metric=metric).sizes_wh_px > 0).all()
