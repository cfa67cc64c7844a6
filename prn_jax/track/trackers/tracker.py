"""What every tracker takes and gives, and what they share."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from prn_jax.track.geometry import iou_xyxy


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
  """The boxes that a detector found in a frame.

  Attributes:
    boxes_xyxy_px: (n, 4) float64.
    scores: (n,) float64 in [0, 1].
    classes: (n,) int64.
  """

  boxes_xyxy_px: np.ndarray
  scores: np.ndarray
  classes: np.ndarray

  def __len__(self) -> int:
    return len(self.scores)

  def __getitem__(self, index: Any) -> Found:
    """Some of the boxes, by anything that indexes an array."""
    return Found(self.boxes_xyxy_px[index], self.scores[index], self.classes[index])


@dataclasses.dataclass(frozen=True, eq=False)
class Tracked:
  """The objects that are seen in a frame, in the order of their ids.

  Attributes:
    ids: (m,) int64, from 1; an id belongs to one object for ever.
    boxes_xyxy_px: (m, 4) float64, where the tracker takes the object to be.
    rows: (m,) int64, which of the frame's boxes each one is.
    found: what was found in the frame.
  """

  ids: np.ndarray
  boxes_xyxy_px: np.ndarray
  rows: np.ndarray
  found: Found

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def scores(self) -> np.ndarray:
    """(m,) float64: the score of each one's box."""
    return self.found.scores[self.rows]

  @property
  def classes(self) -> np.ndarray:
    """(m,) int64: the class of each one's box, which may change from frame to frame."""
    return self.found.classes[self.rows]


class Tracker(Protocol):
  """Follows objects; holds the state of one video."""

  def update(self, found: Found, steps: float = 1.0) -> Tracked:
    """Takes the next frame.

    Args:
      found: its boxes.
      steps: how many frames of constant rate have passed since the last one: 1, or what the times of the frames say.

    Returns:
      what is seen of the confirmed tracks.
    """
    ...


def overlaps(boxes_xyxy: np.ndarray, classes: np.ndarray, found: Found, is_per_class: bool) -> np.ndarray:
  """(n, m) float64: IoU of tracks and boxes; 0 between two classes if they are kept apart."""
  iou = iou_xyxy(boxes_xyxy, found.boxes_xyxy_px)
  return np.where(classes[:, None] == found.classes[None, :], iou, 0) if is_per_class else iou


def others(count: int, taken: np.ndarray) -> np.ndarray:
  """The numbers below `count` that are not among `taken`, ascending."""
  is_free = np.ones(count, bool)
  is_free[taken] = False
  return np.flatnonzero(is_free)


def still_followed(tracks: np.ndarray, steps: float, max_lost: float) -> np.ndarray:
  """Tracks, records with a field "lost", that would still be followed if the frames between had come without boxes."""
  return tracks[tracks["lost"] + steps - 1 <= max_lost]


def seen(ids: np.ndarray, boxes_xyxy: np.ndarray, rows: np.ndarray, found: Found) -> Tracked:
  """`Tracked` in the order of the ids."""
  order = np.argsort(ids)
  return Tracked(ids[order], boxes_xyxy[order], rows[order], found)


def xyxy_to_cxcyar(boxes_xyxy: np.ndarray) -> np.ndarray:
  """Centre, area and width by height: what SORT's filter measures."""
  low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
  sides = np.maximum(high - low, 1e-3)  # a box without a side has no shape
  return np.column_stack(((low + high) / 2, sides[:, 0] * sides[:, 1], sides[:, 0] / sides[:, 1]))


def cxcyar_to_xyxy(states: np.ndarray) -> np.ndarray:
  """The boxes of `xyxy_to_cxcyar`, of the first four columns."""
  width = np.sqrt(np.maximum(states[:, 2] * states[:, 3], 0))
  height = np.divide(states[:, 2], width, out=np.zeros_like(width), where=width > 0)
  half = np.column_stack((width, height)) / 2
  return np.concatenate((states[:, :2] - half, states[:, :2] + half), axis=1)


def xyxy_to_cxcyah(boxes_xyxy: np.ndarray) -> np.ndarray:
  """Centre, width by height, and height: what ByteTrack's filter measures."""
  low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
  sides = np.maximum(high - low, 1e-3)
  return np.column_stack(((low + high) / 2, sides[:, 0] / sides[:, 1], sides[:, 1]))


def cxcyah_to_xyxy(states: np.ndarray) -> np.ndarray:
  """The boxes of `xyxy_to_cxcyah`, of the first four columns."""
  half = np.column_stack((states[:, 2] * states[:, 3], states[:, 3])) / 2
  return np.concatenate((states[:, :2] - half, states[:, :2] + half), axis=1)
