"""What the figures are computed from: tracks and truth of each frame with their overlaps, by MOTChallenge's rules.

Truth holds more than what is scored. Boxes of class 1 (pedestrian) with flag 1 count. A result that lies on a
distractor (person on a vehicle, standing person, distractor, reflection) is neither right nor wrong and is left out.

Source: Milan et al., MOT16: A Benchmark for Multi-Object Tracking, 2016, and trackeval's MotChallenge2DBox as the
benchmark runs it; checked against its figures.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax.track.geometry import best_pairs, iou_xyxy
from prn_jax.track.motchallenge import BoxTable, TrackFileError

PEDESTRIAN = 1
DISTRACTORS = (2, 7, 8, 12)
LAST_CLASS = 13
_LIES_ON = 0.5
EPS = float(np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
  """One frame: identities counted from 0 without gaps, and overlaps.

  Attributes:
    truth: (n,) int64, identities of the truth.
    result: (m,) int64, identities of the tracks.
    iou: (n, m) float64.
  """

  truth: np.ndarray
  result: np.ndarray
  iou: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Matched:
  """A sequence ready to be scored.

  Attributes:
    frames: one per frame, with boxes or without.
    num_truth: identities in the truth that count.
    num_result: identities in the tracks that count.
  """

  frames: list[Frame]
  num_truth: int
  num_result: int


def matched(result: BoxTable, truth: BoxTable) -> Matched:
  """Brings tracks and truth together.

  Raises:
    TrackFileError: an identity twice in a frame, a class that the rules do not know, a result of another class than
      pedestrian, or no truth that counts.
  """
  for table in (result, truth):
    table.check_ids()
  _check_classes(result, truth)
  num_frames = int(max(result.frames.max(initial=0), truth.frames.max(initial=0)))
  pairs = [_kept(*pair) for pair in zip(result.by_frame(num_frames), truth.by_frame(num_frames), strict=True)]
  numbers = [np.unique(np.concatenate([pair[side] for pair in pairs] or [np.zeros(0, int)])) for side in (0, 1)]
  if not len(numbers[1]):
    raise TrackFileError(f"{truth.file} holds no box that counts: none has class {PEDESTRIAN} and flag 1.")
  frames = [
    Frame(np.searchsorted(numbers[1], true), np.searchsorted(numbers[0], found), iou) for found, true, iou in pairs
  ]
  return Matched(frames, len(numbers[1]), len(numbers[0]))


def of_one_class(result: BoxTable, truth: BoxTable) -> tuple[BoxTable, BoxTable]:
  """Tracks and truth in which every object is one that counts, whatever its class.

  A result that lies on a box of flag 0, which stands for what is too small or hidden, is neither right nor wrong.
  """
  counts = truth.scores.astype(np.int64) != 0
  return (
    dataclasses.replace(result, classes=np.full(len(result), PEDESTRIAN)),
    dataclasses.replace(truth, classes=np.where(counts, PEDESTRIAN, DISTRACTORS[0])),
  )


def _kept(result: BoxTable, truth: BoxTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Identities of the tracks and the truth of one frame that count, and the overlaps of these."""
  iou = iou_xyxy(truth.boxes_xyxy_px, result.boxes_xyxy_px)
  is_found = np.ones(len(result), bool)
  if iou.size:
    close = np.where(iou < _LIES_ON - EPS, 0, iou)
    rows, columns = best_pairs(close)
    lies_on = (close[rows, columns] > EPS) & np.isin(truth.classes[rows], DISTRACTORS)
    is_found[columns[lies_on]] = False
  is_true = (truth.scores.astype(np.int64) != 0) & (truth.classes == PEDESTRIAN)
  return result.ids[is_found], truth.ids[is_true], iou[is_true][:, is_found]


def _check_classes(result: BoxTable, truth: BoxTable) -> None:
  if len(wrong := np.flatnonzero(result.classes > PEDESTRIAN)):
    raise TrackFileError(
      f"{result.where(wrong[0])}: class is {result.classes[wrong[0]]}, but MOTChallenge scores pedestrians, class "
      f"{PEDESTRIAN}, alone. Leave boxes of other classes out, or score all alike with --all-classes."
    )
  if len(wrong := np.flatnonzero((truth.classes < 1) | (truth.classes > LAST_CLASS))):
    raise TrackFileError(
      f"{truth.where(wrong[0])}: class is {truth.classes[wrong[0]]}; expected one of MOTChallenge's, 1 to {LAST_CLASS}. "
      "Is this a file of truth?"
    )
