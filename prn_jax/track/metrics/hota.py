"""HOTA: how well objects are detected and kept apart, over nineteen thresholds of overlap.

Source: Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021, sections 4 to 6.
"""

from __future__ import annotations

import numpy as np

from prn_jax.track.geometry import best_pairs
from prn_jax.track.metrics.matched import EPS, Matched

ALPHAS = np.arange(0.05, 0.99, 0.05)
KEYS = ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr")


def hota(data: Matched) -> dict[str, np.ndarray]:
  """The figures of `KEYS` at each of `ALPHAS`, (19,) float64 each, fractions."""
  truth_sizes, result_sizes, alignment = _alignment(data)
  shape = alignment.shape
  num_truth, num_result = truth_sizes.sum(), result_sizes.sum()
  tp, loc = np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS))
  pairs = [np.zeros((3, 0), np.int64)]  # threshold, truth and track of everything that was matched
  for frame in data.frames:
    if not frame.iou.size:
      continue
    rows, columns = best_pairs(alignment[frame.truth[:, None], frame.result[None, :]] * frame.iou)
    ious, truths, results = frame.iou[rows, columns], frame.truth[rows], frame.result[columns]
    taken = ious[None, :] >= ALPHAS[:, None] - EPS
    tp += taken.sum(axis=1)
    # One after the other, as the reference adds: the last digits depend on it.
    loc += [sum(ious[row].tolist()) for row in taken]
    which, pair = np.nonzero(taken)
    pairs.append(np.stack((which, truths[pair], results[pair])))
  found = {"DetRe": tp / np.maximum(1, num_truth), "DetPr": tp / np.maximum(1, num_result)}
  found["DetA"] = tp / np.maximum(1, num_truth + num_result - tp)
  either = {
    "AssA": lambda count: truth_sizes + result_sizes - count,
    "AssRe": lambda count: np.broadcast_to(truth_sizes, shape),
    "AssPr": lambda count: np.broadcast_to(result_sizes, shape),
  }
  sums = {key: np.zeros(len(ALPHAS)) for key in either}
  which, truths, results = np.concatenate(pairs, axis=1)
  for index in range(len(ALPHAS)):
    at = which == index
    count = np.bincount(truths[at] * shape[1] + results[at], minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    for key, sizes in either.items():
      sums[key][index] = np.sum(count * (count / np.maximum(1, sizes(count))))
  found |= {key: values / np.maximum(1, tp) for key, values in sums.items()}
  found["LocA"] = np.maximum(1e-10, loc) / np.maximum(1e-10, tp) if num_result else np.ones(len(ALPHAS))
  found["HOTA"] = np.sqrt(found["DetA"] * found["AssA"])
  return {key: found[key] for key in KEYS}


def _alignment(data: Matched) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Boxes of each truth (n, 1) and each track (1, m), and how well each two go together over the whole sequence (n, m):
  a Jaccard index that prefers, where several boxes overlap, the pair that lasts."""
  shared = np.zeros((data.num_truth, data.num_result))
  truth_sizes, result_sizes = np.zeros((data.num_truth, 1)), np.zeros((1, data.num_result))
  for frame in data.frames:
    either = frame.iou.sum(0)[None, :] + frame.iou.sum(1)[:, None] - frame.iou
    share = np.divide(frame.iou, either, out=np.zeros_like(frame.iou), where=either > EPS)
    shared[frame.truth[:, None], frame.result[None, :]] += share
    truth_sizes[frame.truth] += 1
    result_sizes[0, frame.result] += 1
  return truth_sizes, result_sizes, shared / (truth_sizes + result_sizes - shared)
