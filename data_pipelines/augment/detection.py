"""Darknet's augmentation for detectors (docs/darknet.md e11)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prn_jax.data_pipelines.augment.colour import draw_distortion
from prn_jax.data_pipelines.augment.mosaic import mosaic
from prn_jax.data_pipelines.augment.resample import Window
from prn_jax.data_pipelines.augment.sample import (
  BLUR,
  FACTOR,
  HUE,
  AugmentError,
  Sample,
  annotated_in_all,
  check_group,
  check_switches,
)
from prn_jax.data_pipelines.augment.view import BACKGROUND_BLUR, Margins, View, place_boxes, render
from prn_jax.ranges import between, check


@dataclass(frozen=True, kw_only=True)
class DetectionAugment:
  """Darknet's augmentation for detectors; the fields have the names and meaning of its cfg keys.

  Attributes:
    jitter: each side of the crop moves by U(-jitter, jitter) of the image, in or out. 0 is off.
    resize: beside jitter, the crop shrinks to 1 / resize of the image or grows by as much, each side by itself but with
      the same draw for left and top and for right and bottom. Below 1 it only grows. 1 is off.
    flip: left and right change places with probability 1/2.
    hue: part of a full circle by which colours turn at most, either way. 0 is off.
    saturation, exposure: largest factor of saturation and brightness; the inverse is as likely. 1 is off.
    mosaic: with probability 1/2 an output shows parts of four images instead of one. Overrules `mixup`, as in Darknet.
    mosaic_bound: whether the boxes of a mosaic end at their quarter of it; otherwise some reach over the cut
      (see `mosaic.mosaic`).
    mixup: with probability 1/2 an output is the average of two images, with the boxes of both.
    blur: with probability 1/3 everything but the objects is blurred, with 1/3 the whole image, by a kernel of about
      this size in pixels (less where objects are small). 0 is off, 1 leaves only the first.
    gaussian_noise: with probability 1/2 noise of this standard deviation is added, in levels of 0 to 255. 0 is off.
    letterbox: the crop is extended by what a whole image would need to keep its aspect in the network.

  What lies outside an image is filled with its mean colour, and the whole image is used where nothing would be left
  of the crop. Boxes that the crop leaves less than a pixel of are dropped.

  Raises:
    AugmentError: a field is out of its range.
  """

  jitter: float = field(
    default=0.2, metadata=between(0, 0.99, "the part of the image by which each side moves; 0 is off")
  )
  resize: float = field(
    default=1.0, metadata=between(0.1, 10, "how much larger or smaller objects get at most; 1 is off")
  )
  flip: bool = True
  hue: float = field(default=0.0, metadata=HUE)
  saturation: float = field(default=1.0, metadata=FACTOR)
  exposure: float = field(default=1.0, metadata=FACTOR)
  mosaic: bool = False
  mosaic_bound: bool = False
  mixup: bool = False
  blur: int = field(default=0, metadata=BLUR)
  gaussian_noise: float = field(default=0.0, metadata=between(0, 127, "levels of 0 to 255; 0 is off"))
  letterbox: bool = False

  def __post_init__(self) -> None:
    check(self, AugmentError)
    check_switches(self, "flip", "mosaic", "mosaic_bound", "mixup", "letterbox")

  @property
  def group_size(self) -> int:
    """How many images `apply` takes and gives: 4 with mosaic, 2 with mixup alone, else 1."""
    return 4 if self.mosaic else 2 if self.mixup else 1

  def largest_zoom(self, image_size: tuple[int, int], size: tuple[int, int]) -> float:
    """Pixels of an output of `size` on one of an image of `image_size` (width, height) at most; see `batching.Augment`.

    That of the smallest crop that jitter and resize can leave; `letterbox` only makes crops larger.
    """
    part = 1 / max(self.resize, 1) - 2 * self.jitter
    whole = max(size[0] / image_size[0], size[1] / image_size[1])
    return whole / part if part > 0 else math.inf

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    """Augments a group of images.

    With mosaic or mixup every output mixes the same images, but drawn anew, so that a decoded image serves in
    several outputs; an output that is not mixed shows the image at its own place in the group.

    Args:
      group: `group_size` images; they are not changed.
      size: width and height of the network in pixels.
      rng: the only source of chance; the same state gives the same outputs.

    Returns:
      As many samples of that size. Boxes are within the image, at least one pixel wide and high, in the order given
      (Darknet shuffles them; here the batches choose by chance where there are too many).

    Raises:
      AugmentError: the number of images, an image, its boxes or the size do not fit.
    """
    check_group(group, self.group_size, size)
    if min(size) < 4 and self.mosaic:
      raise AugmentError(f"cannot make a mosaic of {size[0]}x{size[1]} pixels; expected at least 4x4.")
    return [self._output(group, index, size, rng) for index in range(len(group))]

  def _output(self, group: Sequence[Sample], index: int, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    if self.mosaic and rng.random() < 0.5:
      order = [group[i] for i in rng.permutation(4)]
      views = [self._draw(sample, size, rng) for sample in order]
      return mosaic(order, views, size, self.mosaic_bound, rng)
    if self.mixup and not self.mosaic and rng.random() < 0.5:
      return _average(self._single(group[index], size, rng), self._single(group[1 - index], size, rng))
    return self._single(group[index], size, rng)

  def _single(self, sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    view = self._draw(sample, size, rng)
    height, width = sample.image.shape[:2]
    crop = view.margins.crop(width, height, view.flip)
    boxes = place_boxes(sample, crop, size)
    image = render(sample, view, crop, size, Window(0, 0, *size), rng)
    classes = sample.classes[boxes.rows].astype(np.int32)
    return Sample(image, boxes.xyxy_px.astype(np.float32), classes, sample.label, sample.annotated)

  def _draw(self, sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> View:
    height, width = sample.image.shape[:2]
    margins = draw_margins(width, height, self.jitter, self.resize, rng)
    return View(
      letterboxed(margins, width, height, size) if self.letterbox else margins,
      flip=bool(self.flip and rng.random() < 0.5),
      distortion=draw_distortion(self.hue, self.saturation, self.exposure, rng),
      blur=(0, BACKGROUND_BLUR, self.blur)[rng.integers(3)] if self.blur else 0,
      noise=self.gaussian_noise if self.gaussian_noise and rng.random() < 0.5 else 0.0,
    )


def draw_margins(width: int, height: int, jitter: float, resize: float, rng: np.random.Generator) -> Margins:
  """What the crop of an image leaves away on each side (docs/darknet.md e11.1 and 2).

  As in Darknet everything is cut to whole pixels: first the limits, then every draw. Nothing is left away where
  nothing would be left.
  """
  far_x, far_y = int(width * jitter), int(height * jitter)
  left, right = (int(draw) for draw in rng.uniform(-far_x, far_x, 2))
  top, bottom = (int(draw) for draw in rng.uniform(-far_y, far_y, 2))
  largest = max(resize, 1 / resize)
  grow, shrink = (1 - largest) / 2, (1 - 1 / largest) / 2 if resize > 1 else 0.0
  first, second = rng.random(2)

  def moved(margin: int, extent: int, draw: float) -> int:
    low, high = int(extent * grow), int(extent * shrink)
    return int(margin + low + draw * (high - low))

  left, right = moved(left, width, first), moved(right, width, second)
  top, bottom = moved(top, height, first), moved(bottom, height, second)
  return Margins(left, top, right, bottom) if left + right < width and top + bottom < height else Margins()


def letterboxed(margins: Margins, width: int, height: int, size: tuple[int, int]) -> Margins:
  """The margins less what the whole image needs to get the aspect of the network (docs/darknet.md e11.3)."""
  if width * size[1] > height * size[0]:  # wider than the network
    more = int((width * size[1] / size[0] - height) / 2)
    return Margins(margins.left, margins.top - more, margins.right, margins.bottom - more)
  more = int((height * size[0] / size[1] - width) / 2)
  return Margins(margins.left - more, margins.top, margins.right - more, margins.bottom)


def _average(a: Sample, b: Sample) -> Sample:
  image = a.image.astype(np.uint16)
  image += b.image
  image += 1  # halves round up
  image >>= 1
  return Sample(
    image.astype(np.uint8),
    np.concatenate([a.boxes_xyxy_px, b.boxes_xyxy_px]),
    np.concatenate([a.classes, b.classes]),
    a.label,
    annotated_in_all((a, b)),
  )


NO_DETECTION_AUGMENT = DetectionAugment(jitter=0.0, flip=False)
"""Every image resized to the size, nothing else."""
