"""How much of each object is seen, from convex outlines in whole-number arithmetic.

Counting painted pixels would make the labels depend on Pillow's version; these counts do not.
"""

from __future__ import annotations

import numpy as np

from prn_jax.data_pipelines.traffic.view import SCALE, Point


def convex_hull(points: list[Point]) -> list[Point]:
  """Corners of the smallest convex polygon around the points (Andrew's monotone chain)."""
  ordered = sorted(set(points))
  if len(ordered) < 3:
    return ordered
  hull: list[Point] = []
  for direction in (ordered, ordered[::-1]):
    chain: list[Point] = []
    for x, y in direction:
      while len(chain) > 1:
        (ax, ay), (bx, by) = chain[-2], chain[-1]
        if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
          break
        chain.pop()
      chain.append((x, y))
    hull += chain[:-1]
  return hull


def row_spans(hull: list[Point]) -> tuple[int, list[int], list[int]]:
  """A convex polygon as rows of image pixels.

  Args:
    hull: its corners in canvas pixels, in order around it.

  Returns:
    The first row, and for each row its first column and the one after its last.
  """
  cells = [(x // SCALE, y // SCALE) for x, y in hull]
  rows = [y for _, y in cells]
  first, last = min(rows), max(rows)
  if first == last:
    columns = [x for x, _ in cells]
    return first, [min(columns)], [max(columns) + 1]
  # Around a convex polygon y rises once and falls once: the rising edges are one side, the falling ones the other.
  rising, falling = [0] * (last - first + 1), [0] * (last - first + 1)
  for (x0, y0), (x1, y1) in zip(cells, cells[1:] + cells[:1], strict=True):
    side = rising
    if y0 > y1:
      side, x0, y0, x1, y1 = falling, x1, y1, x0, y0
    steps, dx = y1 - y0, x1 - x0
    if steps:
      side[y0 - first : y1 - first + 1] = [x0 + dx * i // steps for i in range(steps + 1)]
  left, right = (falling, rising) if sum(falling) < sum(rising) else (rising, falling)
  return first, left, [x + 1 for x in right]


def visible_shares(outlines: list[list[Point]], width: int, height: int) -> list[float]:
  """Share of each outline's area that is inside the image and not behind a later one.

  Args:
    outlines: points of each object in canvas pixels, from far to near; an empty one hides nothing.
    width, height: size of the image in pixels.

  Returns:
    For each outline the share in [0, 1]; 0 for an empty one.
  """
  owner = np.zeros((height, width), np.int32)
  areas = [0] * (len(outlines) + 1)
  for number, points in enumerate(outlines, start=1):
    if not points:
      continue
    first, left, right = row_spans(convex_hull(points))
    areas[number] = sum(right) - sum(left)
    for row in range(max(first, 0), min(first + len(left), height)):
      a, b = left[row - first], right[row - first]
      if b > 0:
        owner[row, a if a > 0 else 0 : b] = number
  seen = np.bincount(owner.ravel(), minlength=len(areas)).tolist()
  return [seen[i] / areas[i] if areas[i] else 0.0 for i in range(1, len(areas))]
