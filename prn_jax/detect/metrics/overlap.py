"""Overlap of two boxes, row by row."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Pixels(StrEnum):
  """How wide is a box from x1 to x2?"""

  CONTINUOUS = "continuous"  # x2 - x1
  INCLUSIVE = "inclusive"  # x2 - x1 + 1: both are pixels of the box


def pair_overlap(
  a_xywh_px: NDArray[np.float64], b_xywh_px: NDArray[np.float64], is_b_region: NDArray[np.bool_], pixels: Pixels
) -> NDArray[np.float64]:
  """Overlap row by row: (n,) intersection over union, or over the area of `a` where `is_b_region`.

  The operations are those of COCO's mask API (`bbIou`), to the last bit.

  Args:
    a_xywh_px, b_xywh_px: (n, 4) float64 corner and size.
    is_b_region: (n,) bool.
    pixels: whether a box from 3 to 5 is 2 or 3 wide.
  """
  extra = 1.0 if pixels is Pixels.INCLUSIVE else 0.0
  a_size, b_size = a_xywh_px[:, 2:] + extra, b_xywh_px[:, 2:] + extra
  low = np.maximum(a_xywh_px[:, :2], b_xywh_px[:, :2])
  high = np.minimum(a_xywh_px[:, :2] + a_size, b_xywh_px[:, :2] + b_size)
  intersection = np.prod(np.maximum(high - low, 0), axis=1)
  a_area, b_area = np.prod(a_size, axis=1), np.prod(b_size, axis=1)
  union = np.where(is_b_region, a_area, a_area + b_area - intersection)
  return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
