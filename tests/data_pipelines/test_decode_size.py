"""Photos are decoded smaller only where no augmentation then shows less than the network could have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.augment import (
  NO_CLASSIFICATION_AUGMENT,
  NO_DETECTION_AUGMENT,
  ClassificationAugment,
  DetectionAugment,
)
from prn_jax.data_pipelines.augment.detection import draw_margins
from prn_jax.data_pipelines.augment.sample import Sample
from prn_jax.data_pipelines.augment.warp import draw_warp
from prn_jax.data_pipelines.feed.batching import DecodeSize
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, batch_at
from prn_jax.data_pipelines.records import RecordList, make_record
from tests.data_pipelines.pipeline_data import jpeg

SIDES = st.integers(100, 4000)
OUTPUTS = st.tuples(st.sampled_from([64, 224, 416]), st.sampled_from([64, 224, 416]))


def decoded(augment: Any, size: tuple[int, int], image_size: tuple[int, int], margin: float = 1.5) -> tuple[int, int]:
  """Width and height of what is decoded, and checks that it is what a JPEG decoder can give."""
  left = DecodeSize(augment, size, margin)(*image_size)
  reductions = {round(a / b) for a, b in zip(image_size, left, strict=True)}
  assert len(reductions) == 1
  assert reductions <= {1, 2, 4, 8}
  by = reductions.pop()
  return -(-image_size[0] // by), -(-image_size[1] // by)


@settings(max_examples=300, deadline=None)
@given(
  st.tuples(SIDES, SIDES), OUTPUTS, st.floats(0, 0.6), st.sampled_from([0.5, 1.0, 1.5, 3.0]), st.integers(0, 2**32 - 1)
)
def test_no_crop_of_a_detector_is_enlarged(
  image_size: tuple[int, int], size: tuple[int, int], jitter: float, resize: float, seed: int
) -> None:
  width, height = decoded(DetectionAugment(jitter=jitter, resize=resize), size, image_size)
  if (width, height) == image_size:
    return
  rng = np.random.default_rng(seed)
  for _ in range(20):
    crop = draw_margins(width, height, jitter, resize, rng).crop(width, height, False)
    assert crop.width >= size[0]
    assert crop.height >= size[1]


@settings(max_examples=300, deadline=None)
@given(st.tuples(SIDES, SIDES), OUTPUTS, st.floats(0.05, 1), st.floats(0.3, 1), st.integers(0, 2**32 - 1))
def test_no_crop_of_a_classifier_is_enlarged(
  image_size: tuple[int, int], size: tuple[int, int], min_scale: float, min_ratio: float, seed: int
) -> None:
  augment = ClassificationAugment(min_scale=min_scale, min_ratio=min_ratio)
  width, height = decoded(augment, size, image_size)
  if (width, height) == image_size:
    return
  rng = np.random.default_rng(seed)
  for _ in range(20):
    crop = augment._random_crop(width, height, False, rng)
    assert crop.width >= size[0]
    assert crop.height >= size[1]


@settings(max_examples=300, deadline=None)
@given(st.tuples(SIDES, SIDES), st.integers(128, 600), st.sampled_from([0.75, 1.0, 1.5]), st.integers(0, 2**32 - 1))
def test_darknets_crop_is_not_enlarged(image_size: tuple[int, int], max_crop: int, aspect: float, seed: int) -> None:
  augment = ClassificationAugment(min_crop=128, max_crop=max_crop, aspect=aspect)
  width, height = decoded(augment, (128, 128), image_size)
  if (width, height) == image_size:
    return
  rng = np.random.default_rng(seed)
  for _ in range(20):
    warp = draw_warp(width, height, 128, (128, max_crop), aspect, 0.0, rng)
    a_pixel = 1 + 1 / min(width, height)  # the shorter side is cut to whole pixels
    assert max(warp.scale, warp.scale / warp.aspect) <= a_pixel * (1 + 1e-9)


@pytest.mark.parametrize(
  ("augment", "expected"),
  [
    (NO_DETECTION_AUGMENT, 2),  # 750 are left of 1500, 624 asked for: fast where nothing is cut away
    (DetectionAugment(jitter=0.1), 2),
    (DetectionAugment(jitter=0.2), 2),  # 450 of 750
    (DetectionAugment(jitter=0.3), 1),  # 300 of 750 would be enlarged
    (DetectionAugment(jitter=0.1, resize=1.5), 1),  # 350
    (DetectionAugment(jitter=0.1, resize=0.5), 2),  # only grows
    (DetectionAugment(jitter=0.5), 1),  # no limit
    (DetectionAugment(jitter=0.2, mosaic=True, letterbox=True), 2),
    (NO_CLASSIFICATION_AUGMENT, 2),
    (ClassificationAugment(pad_crop=4), 2),
    (ClassificationAugment(), 1),  # a quarter of the area, 3 by 4: 325
    (ClassificationAugment(min_scale=0.5), 2),  # 459
    (ClassificationAugment(min_crop=416, max_crop=750), 2),
    (ClassificationAugment(min_crop=416, max_crop=751), 1),
  ],
)
def test_the_augmentation_decides(augment: Any, expected: int) -> None:
  assert decoded(augment, (416, 416), (1500, 1500)) == (1500 // expected, 1500 // expected)


def test_margin_and_whole_images() -> None:
  assert decoded(NO_DETECTION_AUGMENT, (416, 416), (1248, 2000)) == (624, 1000)
  assert decoded(NO_DETECTION_AUGMENT, (416, 416), (1247, 2000)) == (1247, 2000)
  assert decoded(NO_DETECTION_AUGMENT, (416, 416), (1247, 2000), margin=1.0) == (624, 1000)
  assert decoded(NO_DETECTION_AUGMENT, (32, 32), (4000, 4000)) == (500, 500)
  assert decoded(DetectionAugment(), (416, 416), (100, 60)) == (100, 60)
  assert math.isinf(DetectionAugment(jitter=0.6).largest_zoom((100, 100), (10, 10)))


@dataclass(frozen=True)
class Watching(DetectionAugment):
  """Notes the sizes of what comes to it."""

  seen: list[tuple[int, ...]] = field(default_factory=list)

  def apply(self, group: Sequence[Sample], size: tuple[int, int], rng: np.random.Generator) -> list[Sample]:
    self.seen.extend(sample.image.shape for sample in group)
    return super().apply(group, size, rng)


def test_batches_are_made_of_enough_pixels() -> None:
  data = RecordList(("a",), (0,), (make_record(jpeg(1500, 1500), "one", (1500, 1500)),))
  settings = PipelineConfig(seed=0, batch_size=1, sizes=((320, 320), (416, 416)), threads=0)
  for jitter, margin, expected in ((0.3, 1.5, 1500), (0.2, 1.5, 750), (0.2, 0, 1500)):
    augment = Watching(jitter=jitter)
    batch_at(data, augment, replace(settings, decode_margin=margin), 0)
    assert augment.seen == [(expected, expected, 3)], jitter
