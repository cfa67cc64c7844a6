"""Trackers: filters against the textbook, what every tracker keeps to, and marks on real detections."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from prn_jax.track import motchallenge
from prn_jax.track.metrics.evaluate import evaluate
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.trackers import kalman
from prn_jax.track.trackers.bytetrack import ByteTrack, ByteTrackOptions
from prn_jax.track.trackers.ocsort import OcSort, OcSortOptions
from prn_jax.track.trackers.sort import Sort, SortOptions
from prn_jax.track.trackers.tracker import (
  Found,
  Tracked,
  Tracker,
  cxcyah_to_xyxy,
  cxcyar_to_xyxy,
  xyxy_to_cxcyah,
  xyxy_to_cxcyar,
)

Make = Callable[..., Tracker]
MAKERS: dict[str, Make] = {
  "sort": lambda **o: Sort(SortOptions(**o)),
  "bytetrack": lambda **o: ByteTrack(ByteTrackOptions(**o)),
  "ocsort": lambda **o: OcSort(OcSortOptions(**o)),
}
MARKS = {"sort": "SORTTracker", "bytetrack": "ByteTrackTracker", "ocsort": "OCSORTTracker"}
every = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in MAKERS.items()])


def found(boxes: Sequence[Sequence[float]], score: float = 0.9, classes: Sequence[int] = ()) -> Found:
  return Found(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), score), np.array(classes or [0] * len(boxes)))


def box(x: float, y: float, side: float = 20) -> list[float]:
  return [x, y, x + side, y + side]


def follow(tracker: Tracker, frames: Sequence[Found]) -> list[Tracked]:
  return [tracker.update(frame) for frame in frames]


def crowd(seed: int, num_frames: int = 40) -> list[Found]:
  """Objects that come, go, are missed and jitter, among boxes that are none."""
  rng = np.random.default_rng(seed)
  starts, speeds = rng.uniform(0, 400, (8, 2)), rng.uniform(-6, 6, (8, 2))
  frames = []
  for t in range(num_frames):
    centers = starts + t * speeds + rng.normal(0, 1, (8, 2))
    boxes = np.concatenate((centers, centers + rng.uniform(25, 35, (8, 1))), axis=1)[rng.random(8) > 0.2]
    noise = rng.uniform(0, 400, (2, 2))
    boxes = np.concatenate((boxes, np.concatenate((noise, noise + 15), axis=1)))
    frames.append(Found(boxes, rng.uniform(0.05, 1, len(boxes)), rng.integers(0, 3, len(boxes))))
  return frames


def test_the_filter_is_the_textbook_s() -> None:
  """Of each track by itself, with matrices written out and the gain by an inverse."""
  rng = np.random.default_rng(0)
  for size in (7, 8):
    root = rng.normal(size=(5, size, size))
    mean, cov = rng.normal(size=(5, size)), root @ np.swapaxes(root, 1, 2)
    step, noise, measured = rng.random((5, size)), rng.random(4), rng.normal(size=(5, 4))
    ahead = kalman.predict(mean, cov, step)
    after = kalman.correct(*ahead, measured, noise)
    f = np.eye(size)
    f[range(size - 4), range(4, size)] = 1
    h = np.eye(4, size)
    for i in range(5):
      m, p = f @ mean[i], f @ cov[i] @ f.T + np.diag(step[i])
      np.testing.assert_allclose(ahead[1][i], p, atol=1e-12)
      gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + np.diag(noise))
      np.testing.assert_allclose(after[0][i], m + gain @ (measured[i] - h @ m), atol=1e-9)
      np.testing.assert_allclose(after[1][i], (np.eye(size) - gain @ h) @ p, atol=1e-9)


def test_boxes_come_back_from_the_states_of_filters() -> None:
  boxes = np.array([[1, 2, 4, 10], [0, 0, 100, 3.5]])
  np.testing.assert_allclose(cxcyar_to_xyxy(xyxy_to_cxcyar(boxes)), boxes)
  np.testing.assert_allclose(cxcyah_to_xyxy(xyxy_to_cxcyah(boxes)), boxes)
  assert np.isfinite(xyxy_to_cxcyar(np.zeros((1, 4)))).all()


@every
@pytest.mark.parametrize("seed", range(3))
def test_every_box_has_one_id_and_ids_are_never_used_again(make: Make, seed: int) -> None:
  frames = crowd(seed)
  results = follow(make(), frames)
  again = follow(make(), frames)
  last: dict[int, int] = {}
  for t, (result, same) in enumerate(zip(results, again, strict=True)):
    assert result.ids.tolist() == same.ids.tolist()
    assert np.array_equal(result.boxes_xyxy_px, same.boxes_xyxy_px)
    assert len(set(result.rows.tolist())) == len(result) == len(set(result.ids.tolist()))
    assert result.ids.tolist() == sorted(result.ids.tolist())
    assert np.isfinite(result.boxes_xyxy_px).all()
    for number in result.ids.tolist():
      assert number >= 1
      assert t - last.get(number, t) <= 31
      last[number] = t
  assert last


@every
def test_two_that_pass_each_other_keep_their_ids(make: Make) -> None:
  frames = [found([box(4 * t, 0), box(200 - 4 * t, 12)]) for t in range(50)]
  results = follow(make(), frames)
  assert results[-1].ids.tolist() == [1, 2]
  assert results[-1].boxes_xyxy_px[:, 0] == pytest.approx([196, 4], abs=1.5)


@every
@pytest.mark.parametrize(("gap", "stays"), [(8, True), (40, False)])
def test_who_is_found_again_keeps_the_id_for_a_second(make: Make, gap: int, stays: bool) -> None:
  frames = [found([box(3 * t, 0)] if t < 12 or t >= 12 + gap else []) for t in range(14 + gap)]
  frames += [found([box(3 * t, 0)]) for t in range(14 + gap, 20 + gap)]
  results = follow(make(), frames)
  assert results[11].ids.tolist() == [1]
  assert results[12].ids.tolist() == []
  assert results[-1].ids.tolist() == ([1] if stays else [2])
  assert results[12 + gap].ids.tolist() == ([1] if stays else [])


@every
def test_times_of_frames_decide_where_objects_are_looked_for(make: Make) -> None:
  """Every second frame is missing: with its time the tracker sees the same speed, and goes on after a longer gap."""
  tracker = make()
  for t in range(12):
    tracker.update(found([box(3 * t, 0)]))
  result = tracker.update(found([box(3 * 21, 0)]), steps=10)
  assert result.ids.tolist() == [1]
  assert tracker.update(found([]), steps=10).ids.tolist() == []
  tracker.update(found([]), steps=25)
  for t in range(4):
    result = tracker.update(found([box(3 * (56 + t), 0)]))
  assert result.ids.tolist() == [2]


@every
def test_classes_are_kept_apart_where_that_is_asked(make: Make) -> None:
  frames = [found([box(3 * t, 0)], classes=[int(t >= 8)]) for t in range(16)]
  assert follow(make(), frames)[-1].ids.tolist() == [1]
  result = follow(make(is_per_class=True), frames)
  assert (result[7].ids.tolist(), result[-1].ids.tolist()) == ([1], [2])
  assert result[-1].classes.tolist() == [1]


@every
def test_an_object_counts_when_it_is_seen_often_enough(make: Make) -> None:
  frames = [found([]), *[found([])] * 5, found([box(0, 0)]), found([]), *[found([box(0, 0)])] * 3]
  results = follow(make(), frames)
  assert [len(result) for result in results[:8]] == [0] * 8
  assert len(results[-1]) == 1


def test_bytetrack_goes_on_with_boxes_of_low_score() -> None:
  frames = [found([box(3 * t, 0)], 0.9 if t < 10 else 0.2) for t in range(20)]
  assert [r.ids.tolist() for r in follow(ByteTrack(), frames)] == [[1]] * 20
  assert follow(OcSort(), frames)[-1].ids.tolist() == []
  low = [found([box(3 * t, 0)], 0.2) for t in range(20)]
  assert all(not len(r) for r in follow(ByteTrack(), low))


def test_ocsort_finds_again_who_stood_still_behind_something() -> None:
  """The filter, which went on, is where nobody is; the last box that was seen is not. The filter then forgets the way
  that it took alone: its speed is no more 3 px a frame."""
  frames = [found([box(3 * t, 0, 40)]) for t in range(12)] + [found([])] * 12 + [found([box(33, 0, 40)])] * 3
  sort, ocsort = Sort(), OcSort()
  assert follow(sort, frames)[-1].ids.tolist() == [2]
  assert follow(ocsort, frames)[-1].ids.tolist() == [1]
  assert 0 < ocsort._tracks["mean"][0, 4] < 1


@pytest.mark.slow  # 1,050 frames with 37 boxes each: about 3 s for each tracker and its figures
@pytest.mark.parametrize("name", MAKERS)
def test_marks_on_real_detections_are_reached(shared: Path, name: str) -> None:
  """HOTA and IDF1 of another library's tracker of that name on the same boxes; and the speed of ours."""
  folder = shared / "data/mot"
  boxes = motchallenge.read(folder / "det.txt.gz")
  frames = [Found(f.boxes_xyxy_px, 1 / (1 + np.exp(-f.scores)), f.classes) for f in boxes.by_frame(1050)]
  tracker = MAKERS[name]()
  began = time.process_time()
  results = follow(tracker, frames)
  seconds = time.process_time() - began
  lines = [
    motchallenge.line_of(t, int(number), xyxy, 1, -1)
    for t, result in enumerate(results, start=1)
    for number, xyxy in zip(result.ids, result.boxes_xyxy_px.tolist(), strict=True)
  ]
  truth: BoxTable = motchallenge.read(folder / "gt.txt.gz")
  figures = evaluate(motchallenge.parse("".join(lines)), truth)
  mark = json.loads((folder / "trackers_on_det.json").read_text())[MARKS[name]]
  assert figures["HOTA"] > mark["HOTA"]
  assert figures["IDF1"] > mark["IDF1"]
  assert len(lines) / seconds > 1000
