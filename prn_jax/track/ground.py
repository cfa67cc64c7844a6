"""Places on a flat road in metres, from pixels, and how fast something goes there.

A camera maps a plane onto its picture by a homography, which four places whose distances are known determine.
Source: Hartley and Zisserman, Multiple View Geometry in Computer Vision, 2004, algorithm 4.2 (normalised DLT).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from prn_jax.errors import PrnError

LEAST_PLACES = 4
KMH = 3.6  # kilometres an hour in a metre a second
SPAN_SEC = 0.5  # a speed is measured from so long before to so long after a time
LEAST_BOXES = 4
_FLAT = 1e-6  # of the singular values that a homography needs: below it, places lie on one line


class Speed(NamedTuple):
  """How fast something goes.

  Attributes:
    kmh: kilometres an hour.
    error_kmh: its standard error, from how far the places lie from a straight and even way. What a wrong calibration adds is
      not in it.
  """

  kmh: float
  error_kmh: float


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
  """The road.

  Attributes:
    matrix: (3, 3) float64, from (x, y, 1) in pixels to metres times a depth that is above 0 on the road.
    places_m: (n, 2) float64, the places that it is known by.
  """

  matrix: np.ndarray
  places_m: np.ndarray

  def metres(self, points_px: np.ndarray) -> np.ndarray:
    """(n, 2) pixels -> (n, 2) metres; NaN above the horizon, where no road is."""
    ends = np.column_stack((points_px, np.ones(len(points_px)))) @ self.matrix.T
    depth = np.where(ends[:, 2:] > 0, ends[:, 2:], np.nan)
    return np.asarray(ends[:, :2] / depth)

  def pixels(self, places_m: np.ndarray) -> np.ndarray:
    """(n, 2) metres -> (n, 2) pixels, of places before the camera."""
    ends = np.column_stack((places_m, np.ones(len(places_m)))) @ np.linalg.inv(self.matrix).T
    return np.asarray(ends[:, :2] / ends[:, 2:])

  def areas_m2(self, points_px: np.ndarray) -> np.ndarray:
    """(n,) float64: square metres of road that a pixel at each point shows; NaN above the horizon."""
    depths = np.column_stack((points_px, np.ones(len(points_px)))) @ self.matrix[2]
    return np.asarray(abs(np.linalg.det(self.matrix)) / np.where(depths > 0, depths, np.nan) ** 3)


def ground_of(pixels: np.ndarray, metres: np.ndarray) -> Ground:
  """The road through places that are known in both.

  Args:
    pixels, metres: (n, 2) float64 each, n at least 4; with more than four, the least squares of all.

  Raises:
    PrnError: there are fewer, three of four lie on one line, or the horizon runs between them.
  """
  if len(pixels) < LEAST_PLACES:
    raise PrnError(f"{len(pixels)} places; expected at least {LEAST_PLACES} to know the road by")
  (a, to_a), (b, to_b) = _normalised(pixels), _normalised(metres)
  rows = []
  for (x, y), (u, v) in zip(a, b, strict=True):
    rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
  _, sizes, axes = np.linalg.svd(np.array(rows), full_matrices=True)
  plain = axes[8].reshape(3, 3)
  if sizes[7] < _FLAT * sizes[0] or np.linalg.cond(plain) > 1 / _FLAT:
    raise PrnError("three of the places lie on one line, or two are the same; expected the corners of a quadrangle")
  matrix = np.linalg.inv(to_b) @ plain @ to_a
  depths = np.column_stack((pixels, np.ones(len(pixels)))) @ matrix[2]
  if depths[0] < 0:
    matrix, depths = -matrix, -depths
  if depths.min() <= 0:
    raise PrnError("the horizon runs between the places; are pixels and metres in the same order?")
  return Ground(matrix / np.linalg.norm(matrix), metres)


def _normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Points about the origin at a mean distance of the root of 2, and the matrix that brings them there."""
  middle = points.mean(axis=0)
  distance = float(np.hypot(*(points - middle).T).mean())
  if distance == 0:
    raise PrnError("all places are the same; expected the corners of a quadrangle")
  scale = 2**0.5 / distance
  matrix = np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])
  return scale * (points - middle), matrix


def speed_at(time_sec: float, times_sec: np.ndarray, places_m: np.ndarray) -> Speed | None:
  """The speed at a time, by the straight and even way that fits the places within half a second of it best.

  Args:
    time_sec: when.
    times_sec: (n,) float64, rising.
    places_m: (n, 2) float64; NaN where a place is not on the road.

  Returns:
    None where fewer than four places are near that time.
  """
  near = (np.abs(times_sec - time_sec) <= SPAN_SEC) & np.isfinite(places_m).all(axis=1)
  if near.sum() < LEAST_BOXES:
    return None
  t = times_sec[near] - times_sec[near].mean()
  places = places_m[near] - places_m[near].mean(axis=0)
  spread = float(t @ t)
  way = t @ places / spread  # metres per second along x and y
  speed = float(np.hypot(*way))
  off = places - np.outer(t, way)
  along = off @ way / speed if speed else np.hypot(*off.T)
  variance = float(along @ along) / (len(t) - 2)
  return Speed(KMH * speed, KMH * (variance / spread) ** 0.5)


def speeds_along(times_sec: np.ndarray, places: np.ndarray) -> np.ndarray:
  """The speed at each place of a way, as `speed_at` has it.

  Args:
    times_sec: (n,) float64, rising.
    places: (n, 2) float64, in any unit.

  Returns:
    (n,) float64, units a second; NaN where fewer than four places are near.
  """
  t = times_sec - times_sec.mean()
  columns = np.column_stack((np.ones_like(t), t, t * t, places, t[:, None] * places))
  sums = np.concatenate((np.zeros((1, 7)), np.cumsum(columns, axis=0)))
  low, high = np.searchsorted(t, t - SPAN_SEC - 1e-9), np.searchsorted(t, t + SPAN_SEC + 1e-9)
  n, st, stt, sx, sy, stx, sty = (sums[high] - sums[low]).T
  spread = stt - st * st / n
  with np.errstate(invalid="ignore", divide="ignore"):
    speeds = np.hypot(stx - st * sx / n, sty - st * sy / n) / spread
  return np.asarray(np.where((n >= LEAST_BOXES) & (spread > 0), speeds, np.nan))
