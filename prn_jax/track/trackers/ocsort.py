"""OC-SORT: SORT that trusts what was seen over what the filter believes.

Paper: Cao, Pang, Weng, Khirodkar and Kitani, Observation-Centric SORT: Rethinking SORT for Robust Multi-Object Tracking,
CVPR 2023: re-update of the filter along a straight way when an object is found again (ORU, section 4.1), its direction
as part of the pairing (OCM, 4.2), and a second pairing with the last box that was seen (OCR, 4.3). Filter noise is SORT's.
Differs from the paper: a track that was confirmed stays so, as in our SORT; boxes below `min_score` are not looked at,
and only those of `new_score` begin a track.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax.track.geometry import pairs_above
from prn_jax.track.trackers import kalman
from prn_jax.track.trackers.sort import BOX_NOISE, FIRST_NOISE, STEP_NOISE, forget_new, predict
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

_KEPT = 4  # boxes behind a track, the last first
_TRACK = np.dtype([
  ("id", np.int64), ("mean", np.float64, 7), ("cov", np.float64, (7, 7)), ("class", np.int64), ("hits", np.int64),
  ("lost", np.float64), ("boxes", np.float64, (_KEPT, 4)), ("ages", np.float64, _KEPT),
  ("saved_mean", np.float64, 7), ("saved_cov", np.float64, (7, 7)),
])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class OcSortOptions:
  """Settings.

  Attributes:
    min_score: boxes below it are not looked at.
    new_score: boxes below it begin no track.
    min_iou: least overlap of a prediction, or the last box, and a box.
    min_hits: frames in a row that an object is found in before it counts as one.
    max_lost: frames after which a track ends that is not found again.
    direction: weight of the direction (lambda of eq. 5).
    direction_steps: frames between the boxes that give it (delta t), 1 to 3.
    is_per_class: a track takes boxes of its class alone.
  """

  min_score: float = 0.5
  new_score: float = 0.5
  min_iou: float = 0.3
  min_hits: int = 3
  max_lost: float = 30
  direction: float = 0.2
  direction_steps: int = 3
  is_per_class: bool = False


class OcSort:
  """See the head of the file."""

  def __init__(self, options: OcSortOptions = OcSortOptions()) -> None:
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
    some = found[rows]
    tracks, columns = self._pairs(some)
    last = self._pairs_with_last(some, others(len(self._tracks), tracks), others(len(rows), columns))
    tracks, columns = np.concatenate((tracks, last[0])), np.concatenate((columns, last[1]))
    self._tracks["lost"] += steps
    self._tracks["ages"] += steps
    self._take(tracks, some[columns])
    forget_new(self._tracks, others(len(self._tracks), tracks), o.min_hits)
    free = others(len(rows), columns)
    begun = self._begin(some, free[some.scores[free] >= o.new_score])
    at, columns = np.concatenate((tracks, begun[0])), np.concatenate((columns, begun[1]))
    is_shown = (self._tracks["hits"][at] >= o.min_hits) | (self._num_frames <= o.min_hits)
    at, columns = at[is_shown], columns[is_shown]
    result = seen(self._tracks["id"][at], some.boxes_xyxy_px[columns], rows[columns], found)
    self._tracks = self._tracks[self._tracks["lost"] <= o.max_lost]
    return result

  def _pairs(self, some: Found) -> tuple[np.ndarray, np.ndarray]:
    """Pairs by overlap with the prediction, and direction."""
    t = self._tracks
    iou = overlaps(cxcyar_to_xyxy(t["mean"]), t["class"], some, self.options.is_per_class)
    tracks, columns = pairs_above(np.where(iou > 0, iou + self._directions(some), 0), -np.inf)
    is_near = iou[tracks, columns] >= self.options.min_iou
    return tracks[is_near], columns[is_near]

  def _pairs_with_last(self, some: Found, tracks: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t = self._tracks[tracks]
    at, among = pairs_above(
      overlaps(t["boxes"][:, 0], t["class"], some[columns], self.options.is_per_class), self.options.min_iou
    )
    return tracks[at], columns[among]

  def _directions(self, some: Found) -> np.ndarray:
    """(n, m): how well each box lies in the direction of each track, weighted by its score."""
    t = self._tracks
    centers = (t["boxes"][..., :2] + t["boxes"][..., 2:]) / 2
    known = np.isfinite(t["ages"])
    # The box that is `direction_steps` older than the last, or the oldest after it.
    is_behind = known & (t["ages"] - t["ages"][:, :1] <= self.options.direction_steps)
    before = np.maximum(is_behind.sum(axis=1) - 1, 0)
    past = centers[np.arange(len(t)), before]
    way = _unit(centers[:, 0] - past)
    to_box = _unit((some.boxes_xyxy_px[:, :2] + some.boxes_xyxy_px[:, 2:])[None] / 2 - past[:, None])
    angles = np.arccos(np.clip(np.einsum("nd,nmd->nm", way, to_box), -1, 1))
    scores = (np.pi / 2 - angles) / np.pi * some.scores[None, :]
    return self.options.direction * np.where((before > 0)[:, None], scores, 0)

  def _take(self, at: np.ndarray, found: Found) -> None:
    t = self._tracks
    self._walk_again(at, found)
    measured = xyxy_to_cxcyar(found.boxes_xyxy_px)
    t["mean"][at], t["cov"][at] = kalman.correct(t["mean"][at], t["cov"][at], measured, BOX_NOISE)
    t["boxes"][at] = np.concatenate((found.boxes_xyxy_px[:, None], t["boxes"][at, :-1]), axis=1)
    t["ages"][at] = np.concatenate((np.zeros((len(at), 1)), t["ages"][at, :-1]), axis=1)
    t["saved_mean"][at], t["saved_cov"][at] = t["mean"][at], t["cov"][at]
    t["class"][at], t["lost"][at] = found.classes, 0
    t["hits"][at] += 1

  def _walk_again(self, at: np.ndarray, found: Found) -> None:
    """ORU: the filter of an object that is found again goes the straight way from its last box to this one."""
    t = self._tracks
    for index, box in zip(at, found.boxes_xyxy_px, strict=True):
      gap = t["lost"][index]
      num_steps = round(gap)
      if num_steps < 2:
        continue
      mean, cov = t["saved_mean"][index][None], t["saved_cov"][index][None]
      first, last = _sides(t["boxes"][index, 0]), _sides(box)
      for step in range(1, num_steps + 1):
        mean, cov = kalman.predict(mean, cov, STEP_NOISE, gap / num_steps)
        if step < num_steps:  # the last is the box itself
          x, y, width, height = first + (last - first) * step / num_steps
          between = np.array([[x, y, width * height, width / height]])
          mean, cov = kalman.correct(mean, cov, between, BOX_NOISE)
      t["mean"][index], t["cov"][index] = mean[0], cov[0]

  def _begin(self, found: Found, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    new = np.zeros(len(rows), _TRACK)
    new["id"] = self._num_begun + 1 + np.arange(len(rows))
    new["mean"][:, : kalman.MEASURED] = xyxy_to_cxcyar(found.boxes_xyxy_px[rows])
    new["cov"] = np.diag(FIRST_NOISE)
    new["boxes"], new["ages"] = found.boxes_xyxy_px[rows][:, None], np.inf
    new["ages"][:, 0] = 0
    new["saved_mean"], new["saved_cov"] = new["mean"], new["cov"]
    new["class"], new["hits"] = found.classes[rows], 1
    self._num_begun += len(rows)
    at = len(self._tracks) + np.arange(len(rows))
    self._tracks = np.concatenate((self._tracks, new))
    return at, rows


def _unit(ways: np.ndarray) -> np.ndarray:
  """The ways, (..., 2), with length 1; 0 stays."""
  return ways / (np.linalg.norm(ways, axis=-1, keepdims=True) + 1e-6)


def _sides(box_xyxy: np.ndarray) -> np.ndarray:
  """Centre, width and height."""
  low, high = box_xyxy[:2], box_xyxy[2:]
  return np.concatenate(((low + high) / 2, np.maximum(high - low, 1e-3)))
