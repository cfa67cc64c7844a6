"""Darknet's crop for classifiers: scale, aspect, angle and place in one pass over the pixels (docs/darknet.md e11)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prn_jax.data_pipelines.augment.colour import random_scale


@dataclass(frozen=True)
class Warp:
  """How a square view lies on an image.

  Attributes:
    side: width and height of the view in pixels.
    scale: pixels of the view for one of the image, vertically; horizontally it is scale / aspect.
    aspect: what makes the image narrower, where it is above 1.
    angle_rad: the angle by which the view is turned on the image; positive turns what it shows to the left.
    right, down: the way from the middle of the image to that of the view, in pixels of the view.
  """

  side: int
  scale: float
  aspect: float = 1.0
  angle_rad: float = 0.0
  right: float = 0.0
  down: float = 0.0

  def apply(self, image: NDArray[np.uint8], size: tuple[int, int], *, flip: bool = False) -> NDArray[np.uint8]:
    """What the view shows, bilinear, black outside the image.

    Args:
      image: (H, W, 3) uint8.
      size: width and height of the output, onto which the square is stretched.
      flip: whether left and right change places afterwards.

    Returns:
      (height, width, 3) uint8, cut to whole levels.

    Source: Darknet `src/image.c:rotate_crop_image`, with its pixel centres at whole numbers. Differs: a view that is
    not square is resized in the same pass.
    """
    height, width = image.shape[:2]
    across, along = self.side / size[0], self.side / size[1]  # pixels of the view for one of the output
    sign, first = (-across, self.side - across) if flip else (across, 0.0)
    # Source column = a x + b y + c and row = d x + e y + f, of the output's pixel (x, y).
    cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
    per_x, per_y = self.aspect / self.scale, 1 / self.scale
    left, top = (first - self.side / 2 + self.right) * per_x, (self.down - self.side / 2) * per_y
    a, b, c = cos * per_x * sign, -sin * per_y * along, cos * left - sin * top + width / 2
    d, e, f = sin * per_x * sign, cos * per_y * along, sin * left + cos * top + height / 2
    # Pillow's pixel centres lie at half. A black rim makes the image's edge fade into black, as Darknet's does.
    framed = Image.new("RGB", (width + 2, height + 2))
    framed.paste(Image.fromarray(image), (1, 1))
    centred = (a, b, c + 1.5 - (a + b) / 2, d, e, f + 1.5 - (d + e) / 2)
    return np.asarray(framed.transform(size, Image.Transform.AFFINE, centred, Image.Resampling.BILINEAR))


def draw_warp(
  width: int, height: int, side: int, crops: tuple[int, int], aspect: float, angle_deg: float, rng: np.random.Generator
) -> Warp:
  """The draws for one image.

  The image is scaled so that its shorter side gets a length from U(crops), seen through a square window of `side`. The
  window moves as far as the scaled image reaches beyond it, and where the image is smaller it stays in the middle.

  Args:
    width, height: size of the image in pixels.
    side: width and height of the view in pixels.
    crops: smallest and largest shorter side of the scaled image, in whole pixels.
    aspect: largest factor between width and height, by `random_scale`.
    angle_deg: largest angle, either way.
    rng: the only source of chance.

  Source: Darknet `src/image.c:random_augment_args`, where the shorter side is that of an image as much wider as the
  scaled one is narrower: with an aspect of 1 both are the same.
  """
  drawn = random_scale(aspect, rng)
  shorter = max(1, int(min(height, width * drawn)))
  scale = int(rng.integers(crops[0], crops[1] + 1)) / shorter
  angle = math.radians(rng.uniform(-angle_deg, angle_deg))
  far_x, far_y = max(0.0, (width * scale / drawn - side) / 2), max(0.0, (height * scale - side) / 2)
  return Warp(side, scale, drawn, angle, float(rng.uniform(-far_x, far_x)), float(rng.uniform(-far_y, far_y)))
