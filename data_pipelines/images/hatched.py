"""How ignored regions look in pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LINES_PX = 8  # between the lines


def hatched(pixels: NDArray[np.uint8], regions_xyxy_px: NDArray[Any]) -> NDArray[np.uint8]:
  """The picture (h, w, 3) with regions (m, 4), corners in its pixels, greyed and hatched."""
  pixels = pixels.copy()
  rows, columns = np.indices(pixels.shape[:2])
  lines = (rows + columns) % LINES_PX == 0
  is_ignored = np.zeros_like(lines)
  for x1, y1, x2, y2 in np.round(regions_xyxy_px).clip(0).astype(int):
    is_ignored[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
  pixels[is_ignored] = pixels[is_ignored] // 2 + 64
  pixels[is_ignored & lines] = 230
  return pixels
