"""Numbers as text with as few digits as give the same box when it is read: float32 corners come back to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.records import EDGE_TOLERANCE_PX

_RELATIVE_DIGITS = (6, 9, 12)  # Darknet's own tools write 6
_PIXEL_DIGITS = (0, 1, 2, 3, 6, 9)
_NEAREST = 3  # steps of the last bit in which a centre and a size are tried

Texts = list[list[str]]


def relative_texts(boxes_xyxy_px: NDArray[np.float32], size: tuple[int, int]) -> tuple[Texts, int]:
  """Centre x, y and width, height of every box as shares of the image.

  Args:
    boxes_xyxy_px: (n, 4) corners.
    size: (width, height) of the image.

  Returns:
    Four numbers for each box, and how many boxes `label_txt` does not read from them to the last bit: those with an end
    closer to 0 than some 1e-8 of the side that is not 0.
  """
  low, high = boxes_xyxy_px[:, :2].astype(np.float64), boxes_xyxy_px[:, 2:].astype(np.float64)
  side = np.array(size, np.float64)
  centre, whole = (low + high) / 2 / side, (high - low) / side

  def is_read(digits: int) -> NDArray[np.bool_]:
    return _are_read(_rounded(centre, digits), _rounded(whole, digits), low, high, side)

  texts, is_open = _shortest(np.concatenate([centre, whole], axis=1), _RELATIVE_DIGITS, is_read, 2)
  inexact = set()
  for row, axis in np.argwhere(is_open).tolist():
    pair = _nearest(low[row, axis], high[row, axis], side[axis])
    if pair is None:
      inexact.add(row)
      pair = float(centre[row, axis]), float(whole[row, axis])
    texts[row][axis], texts[row][2 + axis] = map(repr, pair)
  return texts, len(inexact)


def pixel_texts(boxes_xyxy_px: NDArray[np.float32], shift: Sequence[int]) -> tuple[Texts, int]:
  """Corners as a file counts them, `shift` (4,) more than ours.

  Returns:
    Four numbers for each box, and how many boxes do not come back to the last bit when `shift` is taken away.
  """
  shifts = np.array(shift, np.float64)
  values = boxes_xyxy_px.astype(np.float64) + shifts

  def is_read(digits: int) -> NDArray[np.bool_]:
    return (_rounded(values, digits) - shifts).astype(np.float32) == boxes_xyxy_px

  texts, is_open = _shortest(values, _PIXEL_DIGITS, is_read, 1)
  for row, column in np.argwhere(is_open).tolist():
    texts[row][column] = repr(float(values[row, column]))
  is_wrong = is_open & ((values - shifts).astype(np.float32) != boxes_xyxy_px)
  return texts, int(is_wrong.any(axis=1).sum())


def _shortest(
  values: NDArray[np.float64], options: Sequence[int], is_read: Callable[[int], NDArray[np.bool_]], together: int
) -> tuple[Texts, NDArray[np.bool_]]:
  """The texts of all values with the fewest decimals that `is_read` accepts, and where none was.

  Args:
    values: (n, 4).
    options: numbers of decimals, rising.
    is_read: a number of decimals -> (n, 4 / together), whether the values come back.
    together: how many columns are judged as one: 2 for columns i and i + 2.
  """
  decimals = np.full((len(values), 4 // together), -1)
  for digits in options:
    is_open = decimals < 0
    if not is_open.any():
      break
    decimals[is_open & is_read(digits)] = digits
  every = np.tile(decimals, together)
  scale = 10.0 ** np.maximum(every, 0)
  rows = zip((np.rint(values * scale) / scale).tolist(), every.tolist(), strict=True)
  return [[f"{v:.{max(d, 0)}f}" for v, d in zip(*row, strict=True)] for row in rows], decimals < 0


def _rounded(values: NDArray[np.float64], digits: int) -> NDArray[np.float64]:
  """What reading the values with so many decimals gives: whole numbers and powers of ten are exact, and so is their
  division as far as a float can be."""
  scale = 10.0**digits
  return np.rint(values * scale) / scale


def _are_read(
  centre: NDArray[np.float64],
  whole: NDArray[np.float64],
  low: NDArray[np.float64],
  high: NDArray[np.float64],
  side: NDArray[np.float64],
) -> NDArray[np.bool_]:
  """Whether `label_txt` reads these ends, and takes them: it refuses what is too far outside."""
  start, end = (centre - whole / 2) * side, (centre + whole / 2) * side
  is_held = (whole > 0) & (start >= np.minimum(low, -EDGE_TOLERANCE_PX))
  is_held &= end <= np.maximum(high, side + EDGE_TOLERANCE_PX)
  return is_held & (start.astype(np.float32) == low) & (end.astype(np.float32) == high)


def _nearest(low: float, high: float, side: float) -> tuple[float, float] | None:
  """The centre and size that are read as these ends, among those nearest to the true ones; None where there are none."""
  centre, whole = (low + high) / 2 / side, (high - low) / side
  arrays = [np.array(value) for value in (low, high, side)]
  for one in _around(centre):
    for other in _around(whole):
      if _are_read(np.array(one), np.array(other), *arrays):
        return one, other
  return None


def _around(value: float) -> Iterator[float]:
  """The value and its nearest neighbours."""
  value = float(value)
  yield value
  low = high = value
  for _ in range(_NEAREST):
    low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    yield low
    yield high
