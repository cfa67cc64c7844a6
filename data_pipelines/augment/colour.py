"""Colours: Darknet's distortion in HSV, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# Pixels worked on at a time: their planes stay in the core's cache, and threads ask for the interpreter's lock seldom
# enough to work beside each other (with 10,000 two threads are no faster than one).
_BLOCK_PIXELS = 40_000


@dataclass(frozen=True)
class Distortion:
  """One change of colours: hue is turned by `hue` of a full circle, saturation and value (brightness) multiplied."""

  hue: float = 0.0
  saturation: float = 1.0
  exposure: float = 1.0

  def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image (h, w, 3) uint8 in other colours; the same array where nothing changes.

    Source: Darknet `src/image.c:distort_image`, in float32, then rounded to whole levels.
    """
    if self == Distortion():
      return image
    if self.hue == 0 and self.saturation == 1:  # each channel by itself
      levels = np.rint(np.minimum(np.arange(256) * self.exposure, 255)).astype(np.uint8)
      return np.frombuffer(image.tobytes().translate(levels.tobytes()), np.uint8).reshape(image.shape)
    # Pillow takes channels apart and together several times as fast as NumPy.
    planes = np.stack([np.asarray(plane).ravel() for plane in Image.fromarray(image).split()])
    for start in range(0, planes.shape[1], _BLOCK_PIXELS):
      block = planes[:, start : start + _BLOCK_PIXELS]
      changed = distort_planes(block.astype(np.float32), self)
      changed += 0.5  # the cast rounds down
      block[...] = np.clip(changed, 0, 255, out=changed)
    red, green, blue = (Image.fromarray(plane) for plane in planes.reshape(3, *image.shape[:2]))
    return np.asarray(Image.merge("RGB", (red, green, blue)))


def distort_planes(planes: NDArray[np.float32], distortion: Distortion) -> NDArray[np.float32]:
  """Darknet's distortion of red, green and blue (3, n) float32 at any scale; the result is not clipped.

  With M the largest channel, m the smallest and C = M - m, HSV says that channel x is M - C * g(hue), with g of 0 to 1.
  A turn of the hue keeps M and m and changes g; a factor of the saturation multiplies M - x; one of the value
  everything. So no division is needed: hues are measured in sixths of a circle times C.
  """
  most = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
  below = most - planes if distortion.hue == 0 else _turn_hue(planes, most, distortion.hue)
  below *= np.float32(-distortion.saturation)
  below += most
  below *= np.float32(distortion.exposure)
  return below


def _turn_hue(planes: NDArray[np.float32], most: NDArray[np.float32], turn: float) -> NDArray[np.float32]:
  """How far each channel (3, n) lies below the largest one after turning the hue by `turn` of a circle."""
  red, green, blue = planes
  chroma = most - np.minimum(np.minimum(red, green), blue)
  twice = 2 * chroma
  is_red = most == red
  is_green = (most == green) & ~is_red
  hue = (green - blue) * is_red  # np.where takes twice as long
  hue += (blue - red + twice) * is_green
  hue += (red - green - twice) * ~(is_red | is_green)  # pure red is 0, all are in -3 C to 3 C
  circle = 6 * chroma
  turn -= np.rint(turn)
  hue += np.float32(turn) * circle
  if abs(turn) > 1 / 6:  # else the distances below come out right without
    hue -= circle * (hue > 3 * chroma)
    hue += circle * (hue < -3 * chroma)
  below = np.empty_like(planes)
  for channel, pure in enumerate((hue, hue - twice, hue + twice)):
    distance = np.abs(pure, out=below[channel])  # from the channel's pure colour; one way round the circle,
    np.minimum(distance, circle - distance, out=distance)  # or the other
    distance -= chroma
    np.minimum(distance, chroma, out=distance)
    np.maximum(distance, 0, out=distance)
  return below


def draw_distortion(hue: float, saturation: float, exposure: float, rng: np.random.Generator) -> Distortion:
  """Hue from U(-hue, hue), the factors by `random_scale` (docs/darknet.md e11.7)."""
  return Distortion(float(rng.uniform(-hue, hue)), random_scale(saturation, rng), random_scale(exposure, rng))


def random_scale(limit: float, rng: np.random.Generator) -> float:
  """A factor from U(1, limit), or with probability 1/2 its inverse (docs/darknet.md e11, rand_scale)."""
  scale = float(rng.uniform(min(1.0, limit), max(1.0, limit)))
  return scale if rng.random() < 0.5 else 1 / scale


def gaussian_blur(image: NDArray[np.uint8], kernel_size_px: int) -> NDArray[np.uint8]:
  """Blurred as by OpenCV's Gaussian kernel of this (odd) size, whose standard deviation follows from the size."""
  sigma = 0.3 * ((kernel_size_px - 1) * 0.5 - 1) + 0.8
  return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def add_noise(image: NDArray[np.uint8], deviation: float, rng: np.random.Generator) -> NDArray[np.uint8]:
  """Adds N(0, deviation), in levels of 0 to 255, to every value."""
  noisy = rng.standard_normal(image.shape, np.float32)
  noisy *= np.float32(deviation)
  noisy += image
  noisy += 0.5  # the cast rounds down
  return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
