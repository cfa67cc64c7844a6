"""RandAugment's operations on an image, by Pillow (Cubuk et al., "RandAugment", 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from prn_jax.data_pipelines.augment.resample import mean_colour

MAX_MAGNITUDE = 10
_MAX_DEGREES = 30.0
_MAX_SHEAR = 0.3
_MAX_SHIFT = 0.45  # of the width or height
_MAX_CHANGE = 0.9  # of the factor of an enhancement, from 1
_MAX_LOST_BITS = 4

Operation = Callable[[Image.Image, float], Image.Image]


def rand_augment(
  image: NDArray[np.uint8], num_ops: int, magnitude: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
  """Applies `num_ops` operations, each drawn from all of `OPERATIONS` with equal probability.

  Args:
    image: (h, w, 3) uint8; not changed.
    num_ops: how many, one after another; the same one may come again.
    magnitude: 0 (hardly any change) to 10; the direction of operations that have one is drawn.
    rng: draws the operations and directions.
  """
  picture = Image.fromarray(image)
  names = tuple(OPERATIONS)
  for _ in range(num_ops):
    operation = OPERATIONS[names[rng.integers(len(names))]]
    direction = 1.0 if rng.random() < 0.5 else -1.0
    picture = operation(picture, direction * magnitude / MAX_MAGNITUDE)
  return np.array(picture)


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
  """The pixel (x, y) comes from (a x + b y + c, d x + e y + f), with the centre of the image as origin."""
  x, y = image.width / 2, image.height / 2
  coefficients = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
  fill = mean_colour(np.asarray(image))
  return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=fill)


def _rotate(image: Image.Image, strength: float) -> Image.Image:
  angle = np.deg2rad(_MAX_DEGREES * strength)
  cos, sin = float(np.cos(angle)), float(np.sin(angle))
  return _affine(image, cos, sin, 0, -sin, cos, 0)


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
  {
    "identity": lambda image, strength: image,
    "autocontrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "rotate": _rotate,
    "solarize": lambda image, strength: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(_MAX_LOST_BITS * abs(strength))),
    "color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + _MAX_CHANGE * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + _MAX_CHANGE * strength),
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + _MAX_CHANGE * strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + _MAX_CHANGE * strength),
    "shear_x": lambda image, strength: _affine(image, 1, _MAX_SHEAR * strength, 0, 0, 1, 0),
    "shear_y": lambda image, strength: _affine(image, 1, 0, 0, _MAX_SHEAR * strength, 1, 0),
    "translate_x": lambda image, strength: _affine(image, 1, 0, _MAX_SHIFT * strength * image.width, 0, 1, 0),
    "translate_y": lambda image, strength: _affine(image, 1, 0, 0, 0, 1, _MAX_SHIFT * strength * image.height),
  }
)
"""By name; each takes an image and a strength in -1 to 1, whose sign is a direction where there is one.

Largest strengths: rotate 30 degrees, shear 0.3, translate 0.45 of the side (what comes in is filled with the mean
colour), color, contrast, brightness and sharpness by a factor of 0.1 or 1.9, posterize to 4 bits, solarize inverts all.
"""
