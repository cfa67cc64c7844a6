"""Data sets and augmentations for the tests of the input pipeline; importable, so that worker processes find them."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.augment.sample import Sample
from prn_jax.data_pipelines.records import Object, Record, RecordList, Task, make_record


def jpeg(width: int, height: int, seed: int = 0, **options: object) -> bytes:
  """A smooth picture with coarse structure, as a JPEG file."""
  coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
  return buffer.getvalue()


def png(width: int, height: int, value: int) -> bytes:
  buffer = io.BytesIO()
  Image.new("RGB", (width, height), (value, 255 - value, 7)).save(buffer, "PNG")
  return buffer.getvalue()


def numbered(count: int, *, labelled: bool = False, bad: Sequence[int] = ()) -> RecordList:
  """Images of 40x30; record i is filled with the value i, has i % 3 objects of class i % 2, or the label i % 5."""
  records, task = [], Task.CLASSIFY if labelled else Task.DETECT
  for index in range(count):
    objects = [] if labelled else [Object((n, 2, 20 + n, 20), index % 2) for n in range(index % 3)]
    data = b"not an image" if index in bad else png(40, 30, index)
    label = index % 5 if labelled else None
    records.append(make_record(data, f"picture_{index}", (40, 30), objects, label))
  return RecordList(("a", "b", "c", "d", "e"), (0, 1, 2, 3, 4), tuple(records), task=task)


def with_image(record: Record, image: Path | bytes) -> Record:
  return replace(record, image=image)


@dataclass(frozen=True)
class Noisy:
  """Resizes, mixes the group and adds a random value, so that every draw and every neighbour shows in the pixels."""

  group_size: int = 1

  def largest_zoom(self, image_size: tuple[int, int], size: tuple[int, int]) -> float:
    return max(size[0] / image_size[0], size[1] / image_size[1])

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    outputs = []
    for sample in group:
      height, width = sample.image.shape[:2]
      image = np.asarray(Image.fromarray(sample.image).resize(size)).astype(np.int64)
      image = image + sum(int(other.image[0, 0, 0]) for other in group) + rng.integers(0, 256, (size[1], size[0], 3))
      scale = np.array([size[0] / width, size[1] / height] * 2, np.float32)
      outputs.append(Sample((image % 256).astype(np.uint8), sample.boxes_xyxy_px * scale, sample.classes, sample.label))
    return outputs


@dataclass(frozen=True)
class Slow:
  """Takes its time."""

  sec: float
  group_size: int = 1

  def largest_zoom(self, image_size: tuple[int, int], size: tuple[int, int]) -> float:
    return max(size[0] / image_size[0], size[1] / image_size[1])

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    time.sleep(self.sec)
    return Noisy(self.group_size).apply(group, size, rng)


@dataclass(frozen=True)
class Failing:
  """An augmentation with a fault."""

  group_size: int = 1

  def largest_zoom(self, image_size: tuple[int, int], size: tuple[int, int]) -> float:
    return max(size[0] / image_size[0], size[1] / image_size[1])

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    raise ArithmeticError(f"no augmentation for {len(group)} images")
