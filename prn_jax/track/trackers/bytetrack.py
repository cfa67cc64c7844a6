"""ByteTrack: boxes of high score are paired with tracks first, those of low score with the tracks that are left.

Paper: Zhang, Sun, Jiang, Yu, Weng, Yuan, Luo, Liu and Wang, ByteTrack: Multi-Object Tracking by Associating Every Detection
Box, ECCV 2022, algorithm 1. Filter noise is that of DeepSORT (Wojke, Bewley and Paulus, 2017), as in the authors' program,
and so are the overlaps of each pairing and its weight by score.
Differs from the paper: nothing. As in the authors' program a track counts from its second box, those of the first
frame at once, and of a lost and a living track that lie on each other the younger one ends.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax.track.geometry import iou_xyxy, pairs_above
from prn_jax.track.trackers import kalman
from prn_jax.track.trackers.tracker import (
  Found,
  Tracked,
  cxcyah_to_xyxy,
  others,
  overlaps,
  seen,
  still_followed,
  xyxy_to_cxcyah,
)

PLACE, SPEED = 1 / 20, 1 / 160
"""Standard deviations of place and of speed a frame, as shares of the object's height."""
_SHAPE = np.array([1e-2, 1e-5, 1e-1])
"""Standard deviations of width by height: of a step and of its speed, and of a measurement."""
_SAME = 0.85
_TRACK = np.dtype([
  ("id", np.int64), ("mean", np.float64, 8), ("cov", np.float64, (8, 8)), ("class", np.int64), ("confirmed", np.bool_),
  ("lost", np.float64), ("age", np.float64),
])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ByteTrackOptions:
  """Settings.

  Attributes:
    low_score: boxes below it are not looked at.
    high_score: boxes from it on are paired first.
    new_score: boxes below it begin no track.
    min_iou: least overlap of a prediction and its box, times the box's score, in the first pairing.
    low_iou: least overlap with a box of low score.
    new_iou: least overlap, times score, of a track's second box.
    max_lost: frames after which a track ends that is not found again.
    is_per_class: a track takes boxes of its class alone.
  """

  low_score: float = 0.1
  high_score: float = 0.5
  new_score: float = 0.6
  min_iou: float = 0.2
  low_iou: float = 0.5
  new_iou: float = 0.3
  max_lost: float = 30
  is_per_class: bool = False


class ByteTrack:
  """See the head of the file."""

  def __init__(self, options: ByteTrackOptions = ByteTrackOptions()) -> None:
    self.options = options
    self._tracks = np.zeros(0, _TRACK)
    self._num_begun = 0
    self._is_first = True

  def update(self, found: Found, steps: float = 1.0) -> Tracked:
    """See `Tracker.update`."""
    o = self.options
    t = self._tracks = still_followed(self._tracks, steps, o.max_lost)
    self._predict(steps)
    high = np.flatnonzero(found.scores >= o.high_score)
    low = np.flatnonzero((found.scores >= o.low_score) & (found.scores < o.high_score))
    living = t["lost"] == 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    old = np.flatnonzero(t["confirmed"])
    old, high = self._pair(old, high, found, o.min_iou, pairs, is_weighted=True)
    old, _ = self._pair(old[living[old]], low, found, o.low_iou, pairs)
    _, high = self._pair(np.flatnonzero(~t["confirmed"]), high, found, o.new_iou, pairs, is_weighted=True)
    at, rows = (np.concatenate(side) for side in zip(*pairs, strict=True))
    t["lost"] += steps
    t["age"] += steps
    self._correct(at, found[rows])
    self._begin(found, high[found.scores[high] >= o.new_score])
    shown = self._tracks[at]
    result = seen(shown["id"], cxcyah_to_xyxy(shown["mean"]), rows, found)
    if self._is_first:
      result = self._all_of_the_first(found)
    stays = (self._tracks["lost"] <= o.max_lost) & (self._tracks["confirmed"] | (self._tracks["lost"] == 0))
    self._tracks = self._tracks[stays]
    self._tracks = self._tracks[~self._is_double()]
    return result

  def _pair(
    self,
    tracks: np.ndarray,
    rows: np.ndarray,
    found: Found,
    lowest: float,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    *,
    is_weighted: bool = False,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Pairs some tracks with some boxes; returns those of both that are left."""
    t, some = self._tracks[tracks], found[rows]
    scores = overlaps(cxcyah_to_xyxy(t["mean"]), t["class"], some, self.options.is_per_class)
    at, columns = pairs_above(scores * some.scores if is_weighted else scores, lowest)
    pairs.append((tracks[at], rows[columns]))
    return tracks[others(len(tracks), at)], rows[others(len(rows), columns)]

  def _predict(self, steps: float) -> None:
    t = self._tracks
    t["mean"][t["lost"] > 0, 7] = 0  # of a lost object the height stays
    t["mean"], t["cov"] = kalman.predict(t["mean"], t["cov"], _step_noise(t["mean"][:, 3]), steps)

  def _correct(self, at: np.ndarray, found: Found) -> None:
    t = self._tracks
    height = PLACE * t["mean"][at, 3]
    noise = np.column_stack((height, height, np.full(len(at), _SHAPE[2]), height)) ** 2
    measured = xyxy_to_cxcyah(found.boxes_xyxy_px)
    t["mean"][at], t["cov"][at] = kalman.correct(t["mean"][at], t["cov"][at], measured, noise)
    t["class"][at], t["lost"][at], t["confirmed"][at] = found.classes, 0, True

  def _begin(self, found: Found, rows: np.ndarray) -> None:
    new = np.zeros(len(rows), _TRACK)
    new["id"] = self._num_begun + 1 + np.arange(len(rows))
    new["mean"][:, : kalman.MEASURED] = xyxy_to_cxcyah(found.boxes_xyxy_px[rows])
    place, speed = 2 * PLACE * new["mean"][:, 3], 10 * SPEED * new["mean"][:, 3]
    shape, shape_speed = np.full(len(rows), _SHAPE[0]), np.full(len(rows), _SHAPE[1])
    new["cov"] = kalman.diagonal(np.column_stack((place, place, shape, place, speed, speed, shape_speed, speed)) ** 2)
    new["class"], new["confirmed"] = found.classes[rows], self._is_first
    self._num_begun += len(rows)
    self._tracks = np.concatenate((self._tracks, new))

  def _all_of_the_first(self, found: Found) -> Tracked:
    self._is_first = False
    rows = np.flatnonzero(found.scores >= max(self.options.high_score, self.options.new_score))
    return seen(self._tracks["id"], found.boxes_xyxy_px[rows], rows, found)

  def _is_double(self) -> np.ndarray:
    """(n,) bool: of a lost track and a living one at the same place, the one that is younger."""
    t = self._tracks
    living, lost = (np.flatnonzero(t["confirmed"] & ((t["lost"] > 0) == side)) for side in (False, True))
    boxes = cxcyah_to_xyxy(t["mean"])
    is_same = iou_xyxy(boxes[living], boxes[lost]) > _SAME
    if self.options.is_per_class:
      is_same &= t["class"][living][:, None] == t["class"][lost][None, :]
    here, there = np.nonzero(is_same)
    spans = t["age"] - t["lost"]  # from its first to its last box
    is_older = spans[living[here]] > spans[lost[there]]
    is_double = np.zeros(len(t), bool)
    is_double[np.where(is_older, lost[there], living[here])] = True
    return is_double


def _step_noise(heights: np.ndarray) -> np.ndarray:
  """(n, 8) float64, variances that a frame adds."""
  place, speed = PLACE * heights, SPEED * heights
  shape, shape_speed = np.full(len(heights), _SHAPE[0]), np.full(len(heights), _SHAPE[1])
  return np.column_stack((place, place, shape, place, speed, speed, shape_speed, speed)) ** 2
