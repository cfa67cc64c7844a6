"""Augmentation for classifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prn_jax.data_pipelines.augment.colour import draw_distortion, gaussian_blur
from prn_jax.data_pipelines.augment.randaugment import MAX_MAGNITUDE, rand_augment
from prn_jax.data_pipelines.augment.resample import Crop, resample
from prn_jax.data_pipelines.augment.sample import (
  BLUR,
  FACTOR,
  HUE,
  AugmentError,
  Sample,
  check_group,
  check_switches,
)
from prn_jax.data_pipelines.augment.warp import draw_warp
from prn_jax.ranges import Range, at_least, between, check, check_value

_ATTEMPTS = 10  # at a crop that fits
_BLUR_KERNEL_PX = 15  # of blur=1, as in Darknet


@dataclass(frozen=True, kw_only=True)
class ClassificationAugment:
  """Random crop, flip, RandAugment's operations, Darknet's change of colours and its blur, in this order.

  There are three kinds of crop: by area (the default), Darknet's (`max_crop`), and the one usual for CIFAR (`pad_crop`).

  Attributes:
    min_scale, max_scale: the crop has this part of the image's area; with a minimum of 1 it is the whole image,
      stretched to the size.
    min_ratio, max_ratio: width by height of the crop before it is stretched to the size.
    flip: left and right change places with probability 1/2.
    hue, saturation, exposure: the fields of `DetectionAugment`.
    randaugment_ops: how many of `randaugment.OPERATIONS` are applied. 0 is off.
    randaugment_magnitude: their strength, 0 to 10.
    pad_crop: if not 0, the crop is instead the usual one for CIFAR: the whole image at the wanted size, moved by up to
      so many pixels each way, on black.
    min_crop, max_crop: if not 0, the crop is instead Darknet's: the image is scaled so that its shorter side has so many
      pixels, and seen through a window of the wanted size, on black (see `warp.draw_warp`).
    angle, aspect: for Darknet's crop, largest angle in degrees, and largest factor between width and height. Off are 0
      and 1.
    blur: with probability 1/4 the image is blurred by a kernel of this size in pixels; 1 is 15, as in Darknet. 0 is off.

  Raises:
    AugmentError: a field is out of its range, or belongs to another kind of crop.
  """

  min_scale: float = 0.25
  max_scale: float = field(
    default=1.0, metadata=between(1e-4, 1, "the largest part of the image's area that is cut out")
  )
  min_ratio: float = 3 / 4
  max_ratio: float = field(default=4 / 3, metadata=between(0.01, 100, "the largest width by height that is cut out"))
  flip: bool = True
  hue: float = field(default=0.0, metadata=HUE)
  saturation: float = field(default=1.0, metadata=FACTOR)
  exposure: float = field(default=1.0, metadata=FACTOR)
  randaugment_ops: int = field(default=0, metadata=at_least(0, "operations on each image; 0 is off"))
  randaugment_magnitude: float = field(default=9.0, metadata=between(0, MAX_MAGNITUDE, "their strength"))
  pad_crop: int = field(default=0, metadata=at_least(0, "pixels that the image moves at most; 0 is off"))
  min_crop: int = 0
  max_crop: int = field(default=0, metadata=at_least(0, "pixels of the scaled image's shorter side at most; 0 is off"))
  angle: float = field(
    default=0.0, metadata=between(0, 180, "degrees by which the image turns at most, either way; 0 is off")
  )
  aspect: float = field(default=1.0, metadata=between(0.1, 10, "the factor between width and height; 1 is off"))
  blur: int = field(default=0, metadata=BLUR)

  def __post_init__(self) -> None:
    check(self, AugmentError)
    smallest = Range(1e-4, self.max_scale, "the smallest part, no more than max_scale")
    check_value("min_scale", self.min_scale, smallest, AugmentError)
    smallest = Range(0.01, self.max_ratio, "the smallest, no more than max_ratio")
    check_value("min_ratio", self.min_ratio, smallest, AugmentError)
    check_switches(self, "flip")
    self._check_darknets_crop()

  def _check_darknets_crop(self) -> None:
    fewest = Range(min(1, self.max_crop), self.max_crop, "the fewest, at least 1, no more than max_crop")
    check_value("min_crop", self.min_crop, fewest, AugmentError, is_whole=True)
    if self.max_crop and self.pad_crop:
      raise AugmentError(
        f"pad_crop is {self.pad_crop} and max_crop {self.max_crop}; expected one of them, the other 0."
      )
    if not self.max_crop and (self.angle, self.aspect) != (0, 1):
      raise AugmentError(
        f"angle is {self.angle} and aspect {self.aspect} without max_crop; they belong to Darknet's crop. Set min_crop "
        "and max_crop, in Darknet by default the width of the input and twice that."
      )

  @property
  def group_size(self) -> int:
    """How many images `apply` takes and gives."""
    return 1

  def largest_zoom(self, image_size: tuple[int, int], size: tuple[int, int]) -> float:
    """Pixels of an output of `size` on one of an image of `image_size` (width, height) at most; see `batching.Augment`."""
    width, height = image_size
    if self.max_crop:
      narrowest = min(self.aspect, 1 / self.aspect)
      return self.max_crop / (narrowest * min(height, width * narrowest))
    if self.pad_crop or self.min_scale == 1:
      return max(size[0] / width, size[1] / height)
    area = width * height * self.min_scale
    crop_width = min(math.sqrt(area * self.min_ratio), width, height * self.max_ratio)
    crop_height = min(math.sqrt(area / self.max_ratio), height, width / self.min_ratio)
    return max(size[0] / crop_width, size[1] / crop_height)

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    """Augments one image.

    Args:
      group: one image, which is not changed; boxes are not carried over.
      size: width and height of the network in pixels.
      rng: the only source of chance; the same state gives the same output.

    Returns:
      One sample of that size, with the label of the image.

    Raises:
      AugmentError: the number of images, the image or the size do not fit.
    """
    check_group(group, self.group_size, size)
    (sample,) = group
    height, width = sample.image.shape[:2]
    flip = bool(self.flip and rng.random() < 0.5)
    if self.max_crop:
      crops = self.min_crop, self.max_crop
      warp = draw_warp(width, height, max(size), crops, self.aspect, self.angle, rng)
      image = warp.apply(sample.image, size, flip=flip)
    elif self.pad_crop:
      image = resample(sample.image, self._moved(width, height, flip, size, rng), size, fill=(0, 0, 0))
    else:
      image = resample(sample.image, self._random_crop(width, height, flip, rng), size)
    if self.randaugment_ops:
      image = rand_augment(image, self.randaugment_ops, self.randaugment_magnitude, rng)
    image = draw_distortion(self.hue, self.saturation, self.exposure, rng).apply(image)
    if self.blur and rng.random() < 0.25:
      image = gaussian_blur(image, _BLUR_KERNEL_PX if self.blur == 1 else self.blur // 2 * 2 + 1)
    return [Sample(image, label=sample.label)]

  def _moved(self, width: int, height: int, flip: bool, size: tuple[int, int], rng: np.random.Generator) -> Crop:
    if self.pad_crop >= min(size):
      raise AugmentError(f"pad_crop is {self.pad_crop} for images of {size[0]}x{size[1]}; expected less than a side.")
    right, down = rng.integers(-self.pad_crop, self.pad_crop + 1, 2)
    return Crop(right * width / size[0], down * height / size[1], width, height, flip)

  def _random_crop(self, width: int, height: int, flip: bool, rng: np.random.Generator) -> Crop:
    """Area from U(min_scale, max_scale), ratio so that its logarithm is uniform, place uniform.

    After ten draws that do not fit in the image, the largest crop in its centre that keeps to the ratios. This is the
    rule of torchvision's `RandomResizedCrop`.
    """
    if self.min_scale == 1:
      return Crop(0, 0, width, height, flip)
    for _ in range(_ATTEMPTS):
      area = width * height * rng.uniform(self.min_scale, self.max_scale)
      ratio = math.exp(rng.uniform(math.log(self.min_ratio), math.log(self.max_ratio)))
      crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
      if 1 <= crop_width <= width and 1 <= crop_height <= height:
        left, top = rng.integers(width - crop_width + 1), rng.integers(height - crop_height + 1)
        return Crop(int(left), int(top), crop_width, crop_height, flip)
    ratio = min(max(width / height, self.min_ratio), self.max_ratio)
    crop_width, crop_height = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    return Crop((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height, flip)


NO_CLASSIFICATION_AUGMENT = ClassificationAugment(min_scale=1.0, max_scale=1.0, flip=False)
"""Every image resized to the size, nothing else."""
