"""Numbers as text with as few digits as give the same box when it is read: float32 corners come back to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from prn_jax.data_pipelines.records import EDGE_TOLERANCE_PX

_RELATIVE_DIGITS = (6, 9, 12)  # Darknet's own tools write 6
_PIXEL_DIGITS = (0, 1, 2, 3, 6, 9)
_NEAREST = 3  # steps of the last bit in which a centre and a size are tried


def same_float32(value: float, wanted: float) -> bool:
  """Whether a number becomes the float32 `wanted`."""
  return float(np.float32(value)) == wanted


def relative_text(low_px: float, high_px: float, side_px: int) -> tuple[str, str, bool]:
  """Centre and size of one side of a box, as shares of the image's.

  Args:
    low_px, high_px: the ends, each a float32.
    side_px: width or height of the image.

  Returns:
    The two numbers as text, and whether `label_txt` reads the two ends from them as they are. A low end within some
    1e-10 of 0, but not 0, may not come back.
  """
  centre, size = (low_px + high_px) / 2 / side_px, (high_px - low_px) / side_px

  def is_read(one: str, other: str) -> bool:
    middle, whole = float(one), float(other)
    low, high = (middle - whole / 2) * side_px, (middle + whole / 2) * side_px
    is_held = whole > 0 and low >= min(low_px, -EDGE_TOLERANCE_PX) and high <= max(high_px, side_px + EDGE_TOLERANCE_PX)
    return is_held and same_float32(low, low_px) and same_float32(high, high_px)

  for one, other in _relative_texts(centre, size):
    if is_read(one, other):
      return one, other, True
  return repr(centre), repr(size), False


def _relative_texts(centre: float, size: float) -> Iterator[tuple[str, str]]:
  for digits in _RELATIVE_DIGITS:
    yield f"{centre:.{digits}f}", f"{size:.{digits}f}"
  yield repr(centre), repr(size)
  for one in _around(centre):
    for other in _around(size):
      yield repr(one), repr(other)


def _around(value: float) -> Iterator[float]:
  """The value and its nearest neighbours."""
  yield value
  low = high = value
  for _ in range(_NEAREST):
    low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    yield low
    yield high


def pixel_text(value: float, is_read: Callable[[float], bool]) -> tuple[str, bool]:
  """A number of pixels with as few decimals as `is_read` accepts, and whether it accepts any."""
  for digits in _PIXEL_DIGITS:
    text = f"{value:.{digits}f}"
    if is_read(float(text)):
      return text, True
  return repr(value), is_read(value)
