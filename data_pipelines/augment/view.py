"""How one image is seen in one augmented output: the random draws, the boxes, the pixels (docs/darknet.md e11, 1 to 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.augment.colour import Distortion, add_noise, gaussian_blur
from prn_jax.data_pipelines.augment.resample import Crop, Window, resample
from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS, Sample

BACKGROUND_BLUR = 1  # a value of `View.blur`, as in Darknet
_BACKGROUND_KERNEL_PX = 17


@dataclass(frozen=True)
class Margins:
  """What a crop leaves away on each side, in pixels of the image; negative: what it adds."""

  left: int = 0
  top: int = 0
  right: int = 0
  bottom: int = 0

  def crop(self, width: int, height: int, flip: bool) -> Crop:
    """The crop of an image of this size."""
    return Crop(self.left, self.top, width - self.left - self.right, height - self.top - self.bottom, flip)


@dataclass(frozen=True)
class View:
  """The draws for one image.

  Attributes:
    margins: the margins of the crop.
    flip: whether left and right change places.
    distortion: the distortion of the colours.
    blur: 0 is none, 1 blurs all but the objects, more blurs everything with a kernel of about this size in pixels.
    noise: standard deviation in levels of 0 to 255.
  """

  margins: Margins = Margins()
  flip: bool = False
  distortion: Distortion = Distortion()
  blur: int = 0
  noise: float = 0.0


@dataclass(frozen=True)
class Boxes:
  """Boxes in pixels of an output: (n, 4) float64 corners, and the row of each in the sample that it comes from."""

  xyxy_px: NDArray[np.float64]
  rows: NDArray[np.intp]

  def take(self, which: NDArray[np.bool_]) -> Boxes:
    return Boxes(self.xyxy_px[which], self.rows[which])

  def clip(self, window: Window) -> Boxes:
    """Clipped to a rectangle; those of which less than one pixel is left, either way, are dropped."""
    low, high = (window.left, window.top) * 2, (window.right, window.bottom) * 2
    clipped = np.clip(self.xyxy_px, low, high)
    keep = np.all(clipped[:, 2:] - clipped[:, :2] >= 1, axis=1)
    return Boxes(clipped, self.rows).take(keep)


def place_boxes(sample: Sample, crop: Crop, size: tuple[int, int]) -> Boxes:
  """The boxes of a sample in pixels of the output, clipped and filtered as Darknet does (docs/darknet.md e11.10).

  Dropped are boxes wholly outside their own image (wrong labels), and those of which the crop leaves less than one
  pixel of the output in width or height; with these go all whose clipped centre is not inside.
  """
  height, width = sample.image.shape[:2]
  boxes = sample.boxes_xyxy_px
  inside = np.all(boxes[:, 2:] > 0, axis=1) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
  placed = Boxes(crop.boxes_to_output(boxes[inside], size), np.flatnonzero(inside))
  return placed.clip(Window(0, 0, *size))


def render(
  sample: Sample, view: View, crop: Crop, size: tuple[int, int], window: Window, rng: np.random.Generator
) -> NDArray[np.uint8]:
  """The pixels of one window of the output: crop, resize and flip, colours, blur, noise.

  Source: Darknet `src/image_opencv.cpp:image_data_augmentation`. Differs: noise goes both ways (Darknet's bytes lose
  the negative half, so that it only brightens); at a window's edge the blur sees the window alone.
  """
  image = view.distortion.apply(resample(sample.image, crop, size, window))
  if view.blur:
    boxes = place_boxes(sample, crop, size)
    boxes = boxes.take(sample.classes[boxes.rows] != IGNORED_CLASS)
    image = _blur(image, view.blur, boxes, window)
  return add_noise(image, view.noise, rng) if view.noise else image


def _blur(image: NDArray[np.uint8], blur: int, boxes: Boxes, window: Window) -> NDArray[np.uint8]:
  sizes_px = boxes.xyxy_px[:, 2:] - boxes.xyxy_px[:, :2]
  if blur > BACKGROUND_BLUR and len(sizes_px):
    blur = min(blur, int(sizes_px.min() / 8))  # so that the smallest object stays recognisable
  if blur == 0:
    return image
  if blur > BACKGROUND_BLUR:
    return gaussian_blur(image, blur // 2 * 2 + 1)
  blurred = gaussian_blur(image, _BACKGROUND_KERNEL_PX).copy()
  whole_px = np.rint(boxes.clip(window).xyxy_px - [window.left, window.top] * 2).astype(int)
  for left, top, right, bottom in whole_px:
    blurred[top:bottom, left:right] = image[top:bottom, left:right]
  return blurred
