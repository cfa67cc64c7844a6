"""Identity (IDF1): boxes that carry the right identity, when every track stands for one object over the whole sequence.

Source: Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, 2016. The paper's
network flow with false tracks and misses has its optimum where the shared boxes of one-to-one pairs are most.
"""

from __future__ import annotations

import numpy as np

from prn_jax.track.geometry import best_pairs
from prn_jax.track.metrics.matched import Matched

THRESHOLD = 0.5


def identity(data: Matched) -> dict[str, float]:
  """IDF1, IDP, IDR, fractions, and the boxes IDTP, IDFP, IDFN."""
  shared = np.zeros((data.num_truth, data.num_result))
  for frame in data.frames:
    rows, columns = np.nonzero(frame.iou >= THRESHOLD)
    shared[frame.truth[rows], frame.result[columns]] += 1
  num_truth = sum(len(frame.truth) for frame in data.frames)
  num_result = sum(len(frame.result) for frame in data.frames)
  tp = float(shared[best_pairs(shared)].sum())
  fp, fn = num_result - tp, num_truth - tp
  return {
    "IDF1": tp / max(1.0, tp + 0.5 * fp + 0.5 * fn),
    "IDP": tp / max(1, num_result),
    "IDR": tp / max(1, num_truth),
    "IDTP": tp,
    "IDFP": fp,
    "IDFN": fn,
  }
