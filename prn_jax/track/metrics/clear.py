"""CLEAR MOT: misses, false boxes and switches of identity, counted frame by frame.

Source: Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics, 2008; mostly
tracked and lost (MT, ML): Li, Huang and Nevatia, 2009. As in trackeval a frame in which nothing was found, or nothing is
true, interrupts no track (Frag).
"""

from __future__ import annotations

import numpy as np

from prn_jax.track.geometry import best_pairs
from prn_jax.track.metrics.matched import EPS, Frame, Matched

THRESHOLD = 0.5
_NONE = -1
_STAYS = 1000.0  # a pair of the frame before outweighs any overlap


def clear_mot(data: Matched) -> dict[str, float]:
  """MOTA (1 is best, below 0 is possible), MOTP (mean overlap), and counts: IDSW switches, CLR_FP, CLR_FN, CLR_TP
  boxes, MT, ML, PT objects tracked for more than 80%, less than 20%, else, Frag interruptions."""
  state = _State(data.num_truth)
  tp = fp = fn = 0
  overlap = 0.0
  for frame in data.frames:
    state.lengths[frame.truth] += 1
    if not frame.iou.size:
      fp, fn = fp + len(frame.result), fn + len(frame.truth)
      continue
    rows, columns = state.pairs(frame)
    state.take(frame.truth[rows], frame.result[columns])
    tp, fp, fn = tp + len(rows), fp + len(frame.result) - len(rows), fn + len(frame.truth) - len(rows)
    overlap += sum(frame.iou[rows, columns].tolist())
  ratios = state.num_matched / state.lengths
  mostly, partly = int(np.sum(ratios > 0.8)), int(np.sum(ratios >= 0.2))
  found = {"MOTA": (tp - fp - state.switches) / max(1, tp + fn), "MOTP": overlap / max(1, tp)}
  counts = {"IDSW": state.switches, "CLR_FP": fp, "CLR_FN": fn, "CLR_TP": tp}
  counts |= {"MT": mostly, "ML": data.num_truth - partly, "PT": partly - mostly}
  counts["Frag"] = int(np.sum(np.maximum(state.num_begun - 1, 0)))
  return found | {key: float(value) for key, value in counts.items()}


class _State:
  """What is known of every object of the truth."""

  def __init__(self, num_truth: int) -> None:
    self.lengths = np.zeros(num_truth, np.int64)
    self.num_matched = np.zeros(num_truth, np.int64)
    self.num_begun = np.zeros(num_truth, np.int64)  # times that it began to be tracked
    self.switches = 0
    self._now = np.full(num_truth, _NONE)  # the track in the last frame in which there were both
    self._last = np.full(num_truth, _NONE)  # the last track that it had

  def pairs(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    stays = frame.result[None, :] == self._now[frame.truth][:, None]
    scores = np.where(frame.iou < THRESHOLD - EPS, 0, _STAYS * stays + frame.iou)
    rows, columns = best_pairs(scores)
    is_pair = scores[rows, columns] > EPS
    return rows[is_pair], columns[is_pair]

  def take(self, truths: np.ndarray, results: np.ndarray) -> None:
    last = self._last[truths]
    self.switches += int(np.sum((last != _NONE) & (last != results)))
    self.num_matched[truths] += 1
    was_tracked = self._now != _NONE
    self._last[truths] = results
    self._now[:] = _NONE
    self._now[truths] = results
    self.num_begun += ~was_tracked & (self._now != _NONE)
