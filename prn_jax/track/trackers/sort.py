"""SORT: a Kalman filter for every object, and the best sum of overlaps between predictions and boxes.

Paper: Bewley, Ge, Ott, Ramos and Upcroft, Simple Online and Realtime Tracking, ICIP 2016. Filter noise is that of the
authors' program.
Differs from the paper: a track that is lost is kept for 30 frames instead of one (`max_lost`), and one that was confirmed
stays so, so that an object that is found again is seen at once; boxes below `min_score` are not looked at, and only those of
`new_score` begin a track.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax.track.geometry import pairs_above
from prn_jax.track.trackers import kalman
from prn_jax.track.trackers.tracker import (
  Found,
  Tracked,
  cxcyar_to_xyxy,
  others,
  overlaps,
  seen,
  still_followed,
  xyxy_to_cxcyar,
)

STEP_NOISE = np.array([1, 1, 1, 1, 1e-2, 1e-2, 1e-4])
"""Variances of x, y, area, shape, and of the speed of the first three, in pixels."""
BOX_NOISE = np.array([1, 1, 10, 10.0])
FIRST_NOISE = np.array([10, 10, 10, 10, 1e4, 1e4, 1e4])
"""Nothing is known of the speed of an object that was seen once."""
_TRACK = np.dtype([
  ("id", np.int64), ("mean", np.float64, 7), ("cov", np.float64, (7, 7)), ("class", np.int64), ("hits", np.int64),
  ("lost", np.float64),
])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SortOptions:
  """Settings.

  Attributes:
    min_score: boxes below it are not looked at.
    new_score: boxes below it begin no track.
    min_iou: least overlap of a prediction and its box.
    min_hits: frames in a row that an object is found in before it counts as one.
    max_lost: frames after which a track ends that is not found again.
    is_per_class: a track takes boxes of its class alone.
  """

  min_score: float = 0.5
  new_score: float = 0.5
  min_iou: float = 0.3
  min_hits: int = 3
  max_lost: float = 30
  is_per_class: bool = False


def predict(tracks: np.ndarray, steps: float) -> None:
  """Moves SORT's filters on; tracks are records with the fields "mean" and "cov"."""
  shrinks = tracks["mean"][:, 2] + steps * tracks["mean"][:, 6] <= 0
  tracks["mean"][shrinks, 6] = 0  # nothing has an area below 0
  tracks["mean"], tracks["cov"] = kalman.predict(tracks["mean"], tracks["cov"], STEP_NOISE, steps)


def forget_new(tracks: np.ndarray, missed: np.ndarray, min_hits: int) -> None:
  """Counts anew for those of the missed tracks that were not confirmed yet."""
  tracks["hits"][missed[tracks["hits"][missed] < min_hits]] = 0


class Sort:
  """See the head of the file."""

  def __init__(self, options: SortOptions = SortOptions()) -> None:
    self.options = options
    self._tracks = np.zeros(0, _TRACK)
    self._num_begun = 0
    self._num_frames = 0

  def update(self, found: Found, steps: float = 1.0) -> Tracked:
    """See `Tracker.update`."""
    o = self.options
    self._num_frames += 1
    self._tracks = still_followed(self._tracks, steps, o.max_lost)
    predict(self._tracks, steps)
    rows = np.flatnonzero(found.scores >= o.min_score)
    iou = overlaps(cxcyar_to_xyxy(self._tracks["mean"]), self._tracks["class"], found[rows], o.is_per_class)
    tracks, columns = pairs_above(iou, o.min_iou)
    self._tracks["lost"] += steps
    self._correct(tracks, found[rows[columns]])
    forget_new(self._tracks, others(len(self._tracks), tracks), o.min_hits)
    free = rows[others(len(rows), columns)]
    begun = self._begin(found, free[found.scores[free] >= o.new_score])
    at, rows = np.concatenate((tracks, begun[0])), np.concatenate((rows[columns], begun[1]))
    is_shown = (self._tracks["hits"][at] >= o.min_hits) | (self._num_frames <= o.min_hits)
    shown = self._tracks[at[is_shown]]
    result = seen(shown["id"], cxcyar_to_xyxy(shown["mean"]), rows[is_shown], found)
    self._tracks = self._tracks[self._tracks["lost"] <= o.max_lost]
    return result

  def _correct(self, at: np.ndarray, found: Found) -> None:
    t = self._tracks
    measured = xyxy_to_cxcyar(found.boxes_xyxy_px)
    t["mean"][at], t["cov"][at] = kalman.correct(t["mean"][at], t["cov"][at], measured, BOX_NOISE)
    t["class"][at], t["lost"][at] = found.classes, 0
    t["hits"][at] += 1

  def _begin(self, found: Found, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    new = np.zeros(len(rows), _TRACK)
    new["id"] = self._num_begun + 1 + np.arange(len(rows))
    new["mean"][:, : kalman.MEASURED] = xyxy_to_cxcyar(found.boxes_xyxy_px[rows])
    new["cov"] = np.diag(FIRST_NOISE)
    new["class"], new["hits"] = found.classes[rows], 1
    self._num_begun += len(rows)
    at = len(self._tracks) + np.arange(len(rows))
    self._tracks = np.concatenate((self._tracks, new))
    return at, rows
