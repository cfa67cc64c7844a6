"""Polygons in pixels: which points are in them, and how far from their border."""

from __future__ import annotations

import numpy as np

GRID = 64  # cells along the longer side of a polygon's surrounding box


def depths_px(corners_px: np.ndarray, points_px: np.ndarray) -> np.ndarray:
  """How deep points lie in a polygon.

  Args:
    corners_px: (m, 2) float64, in either direction of turn.
    points_px: (n, 2) float64.

  Returns:
    (n,) float64, pixels to the border: above 0 inside, below 0 outside.
  """
  starts, ends = corners_px, np.roll(corners_px, -1, axis=0)
  ways = ends - starts
  offsets = points_px[:, None] - starts  # (n, m, 2)
  shares = np.clip((offsets * ways).sum(-1) / (ways * ways).sum(-1), 0, 1)
  nearest = np.hypot(*np.moveaxis(offsets - shares[..., None] * ways, -1, 0)).min(axis=1)
  x, y = points_px[:, :1], points_px[:, 1:]
  is_between = (starts[:, 1] > y) != (ends[:, 1] > y)
  rises = np.where(ways[:, 1] == 0, 1.0, ways[:, 1])  # of a level edge, which is between nothing
  crossings = is_between & (x < starts[:, 0] + (y - starts[:, 1]) / rises * ways[:, 0])
  return np.asarray(np.where(crossings.sum(axis=1) % 2 == 1, nearest, -nearest))


def points_inside(corners_px: np.ndarray) -> np.ndarray:
  """(k, 2) float64: the middles of those cells of an even grid over a polygon that lie inside."""
  low, high = corners_px.min(axis=0), corners_px.max(axis=0)
  step = float((high - low).max()) / GRID
  x, y = (np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True))
  grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
  return grid[depths_px(corners_px, grid) > 0]


def crosses_itself(corners_px: np.ndarray) -> bool:
  """Whether two edges of a polygon that are no neighbours meet."""
  count = len(corners_px)
  ends = np.roll(corners_px, -1, axis=0)
  for i in range(count):
    for j in range(i + 2, count - (i == 0)):
      a, b, c, d = corners_px[i], ends[i], corners_px[j], ends[j]
      if _turn(a, b, c) * _turn(a, b, d) <= 0 and _turn(c, d, a) * _turn(c, d, b) <= 0:
        return True
  return False


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
  """Above 0 where a, b, c turn to the right, as y goes down."""
  return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
