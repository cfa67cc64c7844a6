"""Boxes against boxes, and pairs of the best sum."""

from __future__ import annotations

import numpy as np

_EPS = float(np.finfo(np.float64).eps)


def iou_xyxy(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
  """Overlap of every box in `a` with every box in `b`.

  Args:
    a_xyxy: (n, 4) float64, left, top, right, bottom.
    b_xyxy: (m, 4) float64, in the same unit.

  Returns:
    (n, m) float64 in [0, 1]; 0 where a box is empty.
  """
  low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
  high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
  sides = np.maximum(high - low, 0)
  both = sides[..., 0] * sides[..., 1]
  a_area, b_area = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a_xyxy, b_xyxy))
  either = a_area[:, None] + b_area[None, :] - both
  is_real = (a_area[:, None] > _EPS) & (b_area[None, :] > _EPS) & (either > _EPS)
  return np.divide(both, either, out=np.zeros_like(both), where=is_real)


def best_pairs(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of rows and columns, none used twice, as many as fit, whose scores have the greatest sum.

  Args:
    scores: (n, m), finite.

  Returns:
    rows and columns, (min(n, m),) each, rows ascending.
  """
  from scipy.optimize import linear_sum_assignment  # 0.1 s to import

  rows, columns = linear_sum_assignment(scores, maximize=True)
  return rows, columns


def pairs_above(scores: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray]:
  """`best_pairs` without those whose score is below `lowest`: they are paired, but not taken."""
  if not scores.size:
    empty = np.zeros(0, np.int64)
    return empty, empty
  rows, columns = best_pairs(scores)
  is_taken = scores[rows, columns] >= lowest
  return rows[is_taken], columns[is_taken]
