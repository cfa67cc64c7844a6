"""Augmentation for classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_pipelines.augment.sample import Sample, check_group


@dataclass(frozen=True, kw_only=True)
class ClassificationAugment:
  """Random crop, flip, colours and RandAugment's operations."""

  min_scale: float = 0.25
  max_scale: float = 1.0
  min_ratio: float = 3 / 4
  max_ratio: float = 4 / 3
  flip: bool = True
  hue: float = 0.0
  saturation: float = 1.0
  exposure: float = 1.0
  randaugment_ops: int = 0
  randaugment_magnitude: int = 9
  pad_crop: int = 0

  @property
  def group_size(self) -> int:
    """How many images `apply` takes and gives."""
    return 1

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    """Augments one image; gives one of (width, height) = size. Boxes are not carried over."""
    check_group(group, self.group_size, size)
    image = np.asarray(Image.fromarray(group[0].image).resize(size, Image.Resampling.BILINEAR))
    return [Sample(image, label=group[0].label)]


NO_CLASSIFICATION_AUGMENT = ClassificationAugment(min_scale=1.0, max_scale=1.0, flip=False)
"""Every image resized to the size, nothing else."""
