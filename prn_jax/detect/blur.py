"""Parts of pictures that nobody is to recognise: faces, number plates, people."""

from __future__ import annotations

import numpy as np

CELLS = 6  # of the mosaic, along the longer side of a box: no letter or eye is left
MARGIN = 0.1  # of the box's sides, added all round: boxes of networks are a little too small at times


def blur_boxes(image_u8: np.ndarray, boxes_xyxy_px: np.ndarray) -> np.ndarray:
  """A picture whose boxes are mosaics: each cell has the mean colour of what was there, which cannot be taken back.

  Args:
    image_u8: (h, w, 3) uint8.
    boxes_xyxy_px: (n, 4) corners in pixels; may reach beyond the picture. Boxes that are not finite hide nothing.

  Returns:
    (h, w, 3) uint8: the picture itself where there is nothing to hide, else a copy.
  """
  height, width = image_u8.shape[:2]
  boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)
  boxes = boxes[np.isfinite(boxes).all(1)]
  if not len(boxes):
    return image_u8
  image = image_u8.copy()
  margin = MARGIN * (boxes[:, 2:] - boxes[:, :2])
  low = np.clip(np.floor(boxes[:, :2] - margin), 0, (width, height)).astype(int)
  high = np.clip(np.ceil(boxes[:, 2:] + margin), 0, (width, height)).astype(int)
  for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
    if right > left and bottom > top:
      image[top:bottom, left:right] = _mosaic(image_u8[top:bottom, left:right])
  return image


def _mosaic(part: np.ndarray) -> np.ndarray:
  height, width = part.shape[:2]
  cell = max(1, -(-max(height, width) // CELLS))
  rows, columns = np.arange(0, height, cell), np.arange(0, width, cell)
  sums = np.add.reduceat(np.add.reduceat(part, rows, axis=0, dtype=np.int64), columns, axis=1)
  sizes = np.diff([*rows, height])[:, None, None] * np.diff([*columns, width])[None, :, None]
  means = (sums / sizes).round().astype(np.uint8)
  return means.repeat(cell, 0)[:height].repeat(cell, 1)[:, :width]
