"""Photos at the size of a network, by Darknet's rules.

`stretch`, `letterbox` and `resize_min_center_crop` give the float32 network input and a `Placement`, which maps boxes
back. All three equal Darknet to the bit (docs/darknet.md c2 to c5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import cast

import numpy as np


class Resize(StrEnum):
  """How an image comes to the size of a network."""

  STRETCH = "stretch"  # the whole image, whatever its aspect
  LETTERBOX = "letterbox"  # the whole image with its aspect, on grey
  CENTER_CROP = "center_crop"  # the centre, for classifiers

  def __call__(self, image_u8: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
    """The network's input; arguments and result as of `stretch`."""
    return _FUNCTIONS[self](image_u8, width, height)


DETECTOR_RESIZES = (Resize.STRETCH, Resize.LETTERBOX)
CANVAS = np.float32(0.5)  # Darknet's grey around a letterboxed picture


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where the original image lies in the network input (docs/darknet.md c8).

  Attributes:
    image_width, image_height: size of the original image in pixels, upright.
    net_width, net_height: size of the network input in pixels.
    scale_x, scale_y: extent of the whole image relative to the network input: 1 for `stretch`, at most 1 for
      `letterbox`, at least 1 for a crop.
    offset_x, offset_y: left and top edge of the image relative to the network input; negative for a crop.
  """

  image_width: int
  image_height: int
  net_width: int
  net_height: int
  scale_x: float = 1.0
  scale_y: float = 1.0
  offset_x: float = 0.0
  offset_y: float = 0.0

  def to_image_cxcywh_rel(self, boxes_cxcywh_rel: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) relative to the network input -> float32 (..., 4) relative to the original image."""
    return ((np.asarray(boxes_cxcywh_rel, np.float32) - self._offset) / self._scale).astype(np.float32)

  def to_net_cxcywh_rel(self, boxes_cxcywh_rel: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) relative to the original image -> float32 (..., 4) relative to the network input."""
    return (np.asarray(boxes_cxcywh_rel, np.float32) * self._scale + self._offset).astype(np.float32)

  def to_image_xyxy_px(self, boxes_cxcywh_rel: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) relative to the network input -> float32 corners (..., 4) in pixels of the original image.

    They may reach beyond the image, as in Darknet.
    """
    size = np.array([self.image_width, self.image_height], np.float32)
    boxes = self.to_image_cxcywh_rel(boxes_cxcywh_rel)
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([(center - half) * size, (center + half) * size], -1)

  @property
  def _offset(self) -> np.ndarray:
    return np.array([self.offset_x, self.offset_y, 0, 0], np.float32)

  @property
  def _scale(self) -> np.ndarray:
    return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)


def to_float(image_u8: np.ndarray) -> np.ndarray:
  """uint8 of any shape -> float32 value/255 (docs/darknet.md c2)."""
  return cast(np.ndarray, np.divide(image_u8, np.float32(255), dtype=np.float32))


def resize_bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
  """Darknet's bilinear resize: corners aligned, no smoothing when scaling down, float32 (docs/darknet.md c3).

  A quirk is kept for equality to the bit: for about 6% of the heights ((H - 1) / (h - 1) rounded down in float32)
  Darknet's last row comes out almost black.

  Args:
    image: (H, W, channels); float32, or uint8, which stands for value/255.
    width, height: new size in pixels.

  Returns:
    (height, width, channels) float32; a copy even where the size stays.

  Raises:
    ValueError: an empty image or size.

  Source: Darknet `src/image.c:resize_image`; differs: one row of output is row 0 (Darknet divides by zero).
  """
  _check_sizes(image, width, height)
  return _resize(image, width, height, np.arange(width), np.arange(height))


def stretch(image_u8: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
  """The whole image resized to width x height, whatever its aspect: Darknet's default for detectors.

  Args:
    image_u8: (H, W, 3) uint8 or float32 in [0, 1].
    width, height: size of the network input in pixels.

  Returns:
    (height, width, 3) float32 in [0, 1], and the placement.
  """
  resized = resize_bilinear(image_u8, width, height)
  return resized, Placement(image_u8.shape[1], image_u8.shape[0], width, height)


def letterbox(image_u8: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
  """The image resized with its aspect, centred on grey (docs/darknet.md c4).

  Args and returns as `stretch`. The placement follows Darknet's box correction (c8), which takes the exact half of
  an odd margin, while the picture lies on whole pixels.
  """
  _check_sizes(image_u8, width, height)
  image_height, image_width = image_u8.shape[:2]
  if np.float32(width) / np.float32(image_width) < np.float32(height) / np.float32(image_height):
    inner_width, inner_height = width, max(1, image_height * width // image_width)
  else:
    inner_width, inner_height = max(1, image_width * height // image_height), height
  left, top = (width - inner_width) // 2, (height - inner_height) // 2
  canvas = np.full((height, width, image_u8.shape[2]), CANVAS, np.float32)
  canvas[top : top + inner_height, left : left + inner_width] = resize_bilinear(image_u8, inner_width, inner_height)
  return canvas, Placement(
    image_width,
    image_height,
    width,
    height,
    scale_x=inner_width / width,
    scale_y=inner_height / height,
    offset_x=(width - inner_width) / 2 / width,
    offset_y=(height - inner_height) / 2 / height,
  )


def resize_min_center_crop(image_u8: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
  """Darknet's view of a classifier: the shorter side becomes `width`, then the centre is cut out (docs/darknet.md c5).

  Args and returns as `stretch`. Where the crop is larger than the resized image, its border is repeated.
  """
  _check_sizes(image_u8, width, height)
  image_height, image_width = image_u8.shape[:2]
  if image_width < image_height:
    inner_width, inner_height = width, image_height * width // image_width
  else:
    inner_width, inner_height = image_width * width // image_height, width
  left, top = int((inner_width - width) / 2), int((inner_height - height) / 2)  # C truncates toward zero
  columns = np.clip(np.arange(left, left + width), 0, inner_width - 1)
  rows = np.clip(np.arange(top, top + height), 0, inner_height - 1)
  return _resize(image_u8, inner_width, inner_height, columns, rows), Placement(
    image_width,
    image_height,
    width,
    height,
    scale_x=inner_width / width,
    scale_y=inner_height / height,
    offset_x=-left / width,
    offset_y=-top / height,
  )


_FUNCTIONS: dict[Resize, Callable[[np.ndarray, int, int], tuple[np.ndarray, Placement]]] = {
  Resize.STRETCH: stretch,
  Resize.LETTERBOX: letterbox,
  Resize.CENTER_CROP: resize_min_center_crop,
}


def _check_sizes(image: np.ndarray, width: int, height: int) -> None:
  if image.ndim != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.float32):
    raise ValueError(
      f"image is {image.dtype} of shape {image.shape}; expected uint8 or float32, (height, width, channels)."
    )
  if min(width, height) < 1:
    raise ValueError(f"cannot resize to {width}x{height}; expected at least 1x1.")


def _resize(image: np.ndarray, width: int, height: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """The given columns and rows of the image resized to width x height."""
  size_y, size_x, channels = image.shape
  if (size_x, size_y) == (width, height):
    part = image[rows][:, columns]
    return to_float(part) if part.dtype == np.uint8 else part
  left, right, dx = _taps(columns, width, size_x)
  last_column = columns == width - 1
  left[last_column], right[last_column], dx[last_column] = size_x - 1, size_x - 1, 0  # copied
  above, below, dy = _taps(rows, height, size_y)

  used, position = np.unique(np.concatenate([above, below]), return_inverse=True)
  above, below = np.split(position, 2)
  image = image[used] if len(used) < size_y else image  # rows that nobody reads need no horizontal pass
  part = _weighted_columns(image, left, 1 - dx)
  part += _weighted_columns(image, right, dx)

  result = part[above]
  result *= (1 - dy)[:, None]
  lower = part[below]
  lower *= np.where(rows == height - 1, np.float32(0), dy)[:, None]
  result += lower
  return result.reshape(len(rows), len(columns), channels)


def _taps(wanted: np.ndarray, target: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Lower and upper source index of the wanted target indices, and the float32 weight of the upper one."""
  scale = np.float32(source - 1) / np.float32(target - 1) if target > 1 else np.float32(0)
  at = wanted.astype(np.float32) * scale
  lower = at.astype(np.intp)
  return lower, np.minimum(lower + 1, source - 1), at - lower.astype(np.float32)


def _weighted_columns(image: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """(h, w, c) -> float32 (h, len(columns) * c): chosen columns times their weights."""
  height, _, channels = image.shape
  flat = (columns[:, None] * channels + np.arange(channels)).ravel()  # single values gather faster than pixels
  values = np.take(image.reshape(height, -1), flat, axis=1)
  values = to_float(values) if values.dtype == np.uint8 else values
  values *= np.repeat(weights, channels)
  return values
