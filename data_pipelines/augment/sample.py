"""What augmentation takes and gives: a decoded image with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import PrnError
from prn_jax.ranges import at_least, between

HUE = between(0, 0.5, "the part of a full circle that colours turn at most, either way; 0 is off")
FACTOR = between(0.01, 100, "the largest factor, its inverse being the smallest; 1 is off")
IGNORED_CLASS = -2
"""The class of boxes that are no objects but regions in which nothing is learned (with -1, others pad their lists)."""

BLUR = at_least(0, "the size in pixels of what blurs the image; 0 is off")


class AugmentError(PrnError):
  """A setting of an augmentation that makes no sense, or images that do not fit it."""


def _no_boxes() -> NDArray[np.float32]:
  return np.zeros((0, 4), np.float32)


def _no_classes() -> NDArray[np.int32]:
  return np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class Sample:
  """A decoded image and what is known of it.

  Attributes:
    image: (height, width, 3) uint8, RGB.
    boxes_xyxy_px: (n, 4) float32 corners in pixels of this image, continuous: a box over the whole image is
      [0, 0, width, height].
    classes: (n,) int32; `IGNORED_CLASS` for regions in which nothing is learned.
    label: class of the whole image, for classification; None elsewhere.
    annotated: (number of classes,) bool, False for classes of which the image may show objects that have no box; None:
      all are annotated.
  """

  image: NDArray[np.uint8]
  boxes_xyxy_px: NDArray[np.float32] = field(default_factory=_no_boxes)
  classes: NDArray[np.int32] = field(default_factory=_no_classes)
  label: int | None = None
  annotated: NDArray[np.bool_] | None = None


def annotated_in_all(samples: Sequence[Sample]) -> NDArray[np.bool_] | None:
  """The classes that are annotated in every part of a picture of several images; see `Sample.annotated`."""
  known = [sample.annotated for sample in samples if sample.annotated is not None]
  return np.logical_and.reduce(known) if known else None


def check_group(group: Sequence[Sample], group_size: int, size: tuple[int, int]) -> None:
  """Raises AugmentError where the images, their labels or the wanted size cannot be used."""
  if len(group) != group_size:
    raise AugmentError(f"got {len(group)} images; this augmentation takes {group_size} at a time (group_size).")
  if len(size) != 2 or min(size) < 1:
    raise AugmentError(f"cannot resize to {tuple(size)}; expected (width, height), at least 1x1.")
  for sample in group:
    shape, boxes = sample.image.shape, sample.boxes_xyxy_px
    if sample.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
      raise AugmentError(f"image is {sample.image.dtype} of shape {shape}; expected uint8, (height, width, 3).")
    if boxes.shape != (len(sample.classes), 4):
      raise AugmentError(f"boxes have shape {boxes.shape} for {len(sample.classes)} classes; expected (n, 4) and (n,).")


def check_switches(settings: object, *names: str) -> None:
  """Raises AugmentError unless the named fields are True or False; 0 and 1, as in a cfg file, will do."""
  for name in names:
    if getattr(settings, name) not in (True, False):
      raise AugmentError(f"{name} is {getattr(settings, name)!r}; expected True or False.")
