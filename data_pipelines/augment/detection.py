"""Darknet's augmentation for detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_pipelines.augment.sample import Sample, check_group


@dataclass(frozen=True, kw_only=True)
class DetectionAugment:
  """Darknet's augmentation for detectors (darknet.md e11); fields have Darknet's names and meaning."""

  jitter: float = 0.2
  resize: float = 1.0
  flip: bool = True
  hue: float = 0.0
  saturation: float = 1.0
  exposure: float = 1.0
  mosaic: bool = False
  mosaic_bound: bool = False
  mixup: bool = False
  blur: int = 0
  gaussian_noise: int = 0
  letterbox: bool = False

  @property
  def group_size(self) -> int:
    """How many images `apply` takes and gives: 4 with mosaic, 2 with mixup alone, else 1."""
    return 4 if self.mosaic else 2 if self.mixup else 1

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    """Augments a group of images; gives as many, each (width, height) = size."""
    check_group(group, self.group_size, size)
    outputs = []
    for sample in group:
      height, width = sample.image.shape[:2]
      image = np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
      scale = np.array([size[0] / width, size[1] / height] * 2, np.float32)
      outputs.append(Sample(image, sample.boxes_xyxy_px * scale, sample.classes, sample.label))
    return outputs


NO_DETECTION_AUGMENT = DetectionAugment(jitter=0.0, flip=False)
"""Every image resized to the size, nothing else."""
