"""Grey images for networks of one channel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.augment import ClassificationAugment, DetectionAugment
from prn_jax.data_pipelines.augment.classification import NO_CLASSIFICATION_AUGMENT
from prn_jax.data_pipelines.feed.pipeline import Batch, PipelineConfig, batch_at, eval_batches
from prn_jax.data_pipelines.images import read_image, stretch
from prn_jax.data_pipelines.images.channels import check_channels, to_channels, to_grey
from prn_jax.data_pipelines.records import RecordList, make_record
from prn_jax.errors import PrnError
from tests.data_pipelines.pipeline_data import jpeg, numbered

COLOURS = [((255, 255, 255), 255), ((0, 0, 0), 0), ((255, 0, 0), 76), ((0, 255, 0), 149), ((0, 0, 255), 28)]


@pytest.mark.parametrize(("colour", "grey"), COLOURS)
def test_grey_by_hand(colour: tuple[int, int, int], grey: int) -> None:
  """77 * 255 / 256 is 76.7, 150 * 255 / 256 is 149.4, 29 * 255 / 256 is 28.9; all are rounded down."""
  assert to_grey(np.array([[colour]], np.uint8)).tolist() == [[[grey]]]


def test_grey_pixels_keep_their_values() -> None:
  ramp = np.arange(256, dtype=np.uint8)[:, None]
  assert np.array_equal(to_channels(np.stack([ramp] * 3, -1), 1), ramp[..., None])


def test_grey_of_a_jpeg_is_the_brightness_that_it_stores() -> None:
  data = jpeg(64, 48, quality=95)
  with Image.open(io.BytesIO(data)) as image:
    image.draft("L", None)
    stored = np.asarray(image).astype(int)
  difference = np.abs(to_grey(read_image(data))[..., 0] - stored)
  assert difference.max() <= 2, "rounding; more where a colour of the file lies outside RGB"


@pytest.mark.parametrize("channels", [2, 4])
def test_other_counts_are_refused_in_a_sentence(channels: int) -> None:
  with pytest.raises(
    PrnError, match=rf"network 'n' takes images of {channels} channels .* photos have 3 \(RGB\), or 1"
  ):
    check_channels(channels, "n")


def test_evaluation_resizes_grey_images() -> None:
  data = numbered(3)
  with eval_batches(data, (20, 16), batch_size=3, channels=1, threads=0) as batches:
    (batch,) = batches
  assert batch["image"].shape == (3, 16, 20, 1)
  pixels = to_grey(read_image(bytes(data[1].image)))
  np.testing.assert_array_equal(batch["image"][1], stretch(pixels, 20, 16)[0])


def colourful(count: int, *, labelled: bool = False) -> RecordList:
  images = [jpeg(40, 30, seed, quality=95) for seed in range(count)]
  records = [make_record(data, str(i), (40, 30), (), 0 if labelled else None) for i, data in enumerate(images)]
  return RecordList(("a",), (0,), tuple(records))


def batch_of(data: RecordList, augment: object, channels: int) -> Batch:
  config = PipelineConfig(seed=1, batch_size=4, sizes=((32, 24),), channels=channels, threads=0)
  return batch_at(data, augment, config, 0)  # type: ignore[arg-type]


def test_training_images_are_grey_before_they_are_augmented() -> None:
  """Without augmentation grey is what resizing the grey image gives, to the rounding of the resizing."""
  data = colourful(4, labelled=True)
  grey, rgb = (batch_of(data, NO_CLASSIFICATION_AUGMENT, channels) for channels in (1, 3))
  assert grey["image"].shape == (4, 24, 32, 1)
  assert grey["image"].dtype == np.uint8
  assert np.abs(grey["image"].astype(int) - to_grey(rgb["image"])).max() <= 2


@pytest.mark.parametrize(
  ("changes", "is_seen"),
  [({"hue": 0.4}, False), ({"saturation": 4.0}, False), ({"exposure": 2.0}, True), ({"gaussian_noise": 30}, True)],
)
def test_of_the_colours_only_exposure_and_noise_change_grey(changes: dict[str, float], is_seen: bool) -> None:
  still = {"jitter": 0.0, "flip": False, "hue": 0.0, "saturation": 1.0, "exposure": 1.0}
  data = colourful(4)
  plain, changed = (batch_of(data, DetectionAugment(**still | more), 1)["image"] for more in ({}, changes))  # type: ignore[arg-type]
  assert np.array_equal(plain, changed) is not is_seen


def test_a_mosaic_and_randaugment_give_one_channel() -> None:
  assert batch_of(colourful(4), DetectionAugment(mosaic=True), 1)["image"].shape == (4, 24, 32, 1)
  augment = ClassificationAugment(randaugment_ops=3)
  assert batch_of(colourful(4, labelled=True), augment, 1)["image"].shape == (4, 24, 32, 1)
