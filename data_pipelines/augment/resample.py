"""Crop, resize and flip in one pass over the pixels, and the same for boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ONE = 256  # weights are whole 256ths: a byte times a weight, plus the other, plus a half, fits 16 bits
_BLOCK_VALUES = 240_000  # numbers worked on at a time: they stay in the core's cache (twice as fast as all at once)


@dataclass(frozen=True)
class Crop:
  """The part of an image that fills the output; it may reach beyond the image.

  Attributes:
    left, top, width, height: corner and size in pixels of the image, continuous.
    flip: whether left and right change places after cropping.
  """

  left: float
  top: float
  width: float
  height: float
  flip: bool = False

  def boxes_to_output(self, boxes_xyxy_px: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes (n, 4) in pixels of the image -> (n, 4) in pixels of an output of (width, height) = size, not clipped."""
    scale = np.array([size[0] / self.width, size[1] / self.height] * 2)
    boxes = (boxes_xyxy_px.astype(np.float64) - [self.left, self.top] * 2) * scale
    if self.flip:
      boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
    return boxes


@dataclass(frozen=True)
class Window:
  """A rectangle of whole pixels of the output: left, top inside it, right, bottom just beyond."""

  left: int
  top: int
  right: int
  bottom: int


@dataclass(frozen=True)
class _Axis:
  """For the pixels `start` to `stop` of the window that lie on the image: two source indices and the upper's weight."""

  start: int
  stop: int
  lower: NDArray[np.intp]
  upper: NDArray[np.intp]
  weight: NDArray[np.uint16]


def resample(
  image: NDArray[np.uint8],
  crop: Crop,
  size: tuple[int, int],
  window: Window | None = None,
  fill: tuple[int, int, int] | None = None,
) -> NDArray[np.uint8]:
  """The crop of an image at another size, bilinear.

  Pixel centres lie at half, and scaling down does not smooth, both as in OpenCV's INTER_LINEAR, which Darknet trains
  with; its inference does not smooth either. Interpolation is in whole numbers, within 2 levels of the exact value and without bias.

  Args:
    image: (H, W, 3) uint8.
    crop: what fills the output.
    size: width and height of the whole output.
    window: the part of the output that is wanted; by default all of it.
    fill: colour outside the image; by default the image's mean.

  Returns:
    (height, width, 3) uint8 of the window.
  """
  window = window or Window(0, 0, *size)
  if crop.width == size[0] and crop.height == size[1] and crop.left % 1 == crop.top % 1 == 0:
    return _moved(image, int(crop.left), int(crop.top), crop.flip, window, fill, size[0])
  height, width = image.shape[:2]
  columns = _axis(crop.left, crop.width, size[0], width, window.left, window.right, crop.flip)
  rows = _axis(crop.top, crop.height, size[1], height, window.top, window.bottom, False)
  output = np.empty((window.bottom - window.top, window.right - window.left, 3), np.uint8)
  if columns.stop - columns.start < output.shape[1] or rows.stop - rows.start < output.shape[0]:
    _fill(output, image, fill)
  if columns.start < columns.stop and rows.start < rows.stop:
    _bilinear(image, columns, rows, output[rows.start : rows.stop, columns.start : columns.stop])
  return output


def _moved(
  image: NDArray[np.uint8],
  left: int,
  top: int,
  flip: bool,
  window: Window,
  fill: tuple[int, int, int] | None,
  width: int,
) -> NDArray[np.uint8]:
  """`resample` of a crop as large as its output that starts at a whole pixel: every pixel is one of the image's."""
  if flip:
    image, left = image[:, ::-1], image.shape[1] - width - left
  first_row, first_column = top + window.top, left + window.left
  rows, columns = window.bottom - window.top, window.right - window.left
  seen = image[max(0, first_row) : max(0, first_row + rows), max(0, first_column) : max(0, first_column + columns)]
  if seen.shape[:2] == (rows, columns):
    return seen.copy()
  output = np.empty((rows, columns, 3), np.uint8)
  _fill(output, image, fill)
  down, right = max(0, -first_row), max(0, -first_column)
  output[down : down + seen.shape[0], right : right + seen.shape[1]] = seen
  return output


def _fill(output: NDArray[np.uint8], image: NDArray[np.uint8], fill: tuple[int, int, int] | None) -> None:
  colour = np.array(mean_colour(image) if fill is None else fill, np.uint8)
  output.reshape(output.shape[0], -1)[...] = np.tile(colour, output.shape[1])  # whole rows: far faster than pixels


def mean_colour(image: NDArray[np.uint8]) -> tuple[int, int, int]:
  """Mean of each channel, rounded; of every second, third, ... row where an image has more than 200,000 pixels."""
  rows = image[:: max(1, image.shape[0] * image.shape[1] // 100_000)]
  counts = np.array(Image.fromarray(rows).histogram()).reshape(3, 256)  # ten times as fast as rows.mean((0, 1))
  red, green, blue = np.rint(counts @ np.arange(256) / (rows.shape[0] * rows.shape[1])).astype(int)
  return int(red), int(green), int(blue)


def _axis(origin: float, extent: float, target: int, source: int, first: int, last: int, flip: bool) -> _Axis:
  """Where the output pixels `first` to `last` of `target` lie on an image of `source` pixels, along one axis."""
  pixels = np.arange(first, last)
  centres = origin + ((target - 1 - pixels if flip else pixels) + 0.5) * (extent / target)
  inside = np.flatnonzero((centres >= 0) & (centres < source))
  start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
  at = np.clip(centres[start:stop] - 0.5, 0, source - 1)
  lower = at.astype(np.intp)
  weight = np.rint((at - lower) * _ONE).astype(np.uint16)
  return _Axis(start, stop, lower, np.minimum(lower + 1, source - 1), weight)


def _bilinear(image: NDArray[np.uint8], columns: _Axis, rows: _Axis, output: NDArray[np.uint8]) -> None:
  """Writes the interpolated pixels, a block of rows at a time: first between rows, then between columns."""
  num = 3 * len(columns.lower)
  first, last = int(columns.lower.min()), int(columns.upper.max()) + 1
  source = image.reshape(len(image), -1)[:, 3 * first : 3 * last]
  taps = np.concatenate([columns.lower, columns.upper]) - first
  taps = (taps[:, None] * 3 + np.arange(3)).ravel()  # single values gather faster than pixels
  right = np.repeat(columns.weight, 3)
  many = source.shape[1] > 2 * num  # then columns that nobody reads are left out first
  step = max(1, _BLOCK_VALUES // min(source.shape[1], 2 * num))
  for top in range(0, len(rows.lower), step):
    block = slice(top, top + step)
    above, below = source[rows.lower[block]], source[rows.upper[block]]
    if many:
      above, below = above.take(taps, axis=1), below.take(taps, axis=1)
    mixed = _mix(above.astype(np.uint16), below.astype(np.uint16), rows.weight[block, None])
    if not many:
      mixed = mixed.take(taps, axis=1)
    output[block] = _mix(mixed[:, :num], mixed[:, num:], right[None]).reshape(-1, num // 3, 3)


def _mix(a: NDArray[np.uint16], b: NDArray[np.uint16], weight_of_b: NDArray[np.uint16]) -> NDArray[np.uint16]:
  """Bytes between `a` and `b`, rounded; both are overwritten."""
  a *= _ONE - weight_of_b
  b *= weight_of_b
  a += b
  a += _ONE // 2
  a >>= 8
  return a
