"""The classifier's augmentation: crops, CIFAR's padding, RandAugment."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prn_jax.data_pipelines.augment import NO_CLASSIFICATION_AUGMENT, AugmentError, ClassificationAugment, Sample
from prn_jax.data_pipelines.augment.randaugment import OPERATIONS, rand_augment

ALL = ClassificationAugment(hue=0.1, saturation=0.75, exposure=0.75, randaugment_ops=2)


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
  """Smooth colours."""
  small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
  image = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
  image.flags.writeable = False
  return image


def position(width: int, height: int) -> np.ndarray:
  """Red is the column and green the row: a pixel tells where it comes from."""
  image = np.zeros((height, width, 3), np.uint8)
  image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
  return image


def apply(augment: ClassificationAugment, image: np.ndarray, size: tuple[int, int], seed: int = 0) -> np.ndarray:
  (output,) = augment.apply([Sample(image, label=7)], size, np.random.default_rng(seed))
  assert output.label == 7
  assert output.image.shape == (size[1], size[0], 3)
  assert output.image.dtype == np.uint8
  return output.image


@settings(max_examples=40, deadline=None)
@given(source=st.tuples(st.integers(1, 60), st.integers(1, 60)), seed=st.integers(0, 10**6))
def test_same_generator_same_bytes_and_the_input_stays(source, seed):
  image = photo(*source)
  before = image.copy()
  assert apply(ALL, image, (24, 20), seed).tobytes() == apply(ALL, image, (24, 20), seed).tobytes()
  np.testing.assert_array_equal(image, before)


def test_all_off_is_a_plain_resize():
  image = photo(30, 20)
  np.testing.assert_array_equal(apply(NO_CLASSIFICATION_AUGMENT, image, (30, 20)), image)
  small = [apply(NO_CLASSIFICATION_AUGMENT, image, (15, 9), seed) for seed in range(3)]
  assert small[0].tobytes() == small[1].tobytes() == small[2].tobytes()


def test_flip_is_every_second_time():
  image = photo(30, 20)
  augment = ClassificationAugment(min_scale=1.0)
  flipped = [np.array_equal(apply(augment, image, (30, 20), seed), image[:, ::-1]) for seed in range(300)]
  same = [np.array_equal(apply(augment, image, (30, 20), seed), image) for seed in range(300)]
  assert 120 < sum(flipped) < 180
  assert sum(flipped) + sum(same) == 300


def test_crops_have_the_areas_ratios_and_places_asked_for():
  image = position(240, 200)
  augment = ClassificationAugment(min_scale=0.2, max_scale=0.5, flip=False)
  crops = []
  for seed in range(600):
    output = apply(augment, image, (64, 64), seed).astype(float)
    # The mean step from pixel to pixel is the crop's size over the output's.
    width = (output[:, -2, 0] - output[:, 1, 0]).mean() / 61 * 64
    height = (output[-2, :, 1] - output[1, :, 1]).mean() / 61 * 64
    crops.append(
      (width * height / (240 * 200), width / height, output[..., 0].mean() / 240, output[..., 1].mean() / 200)
    )
  area, ratio, x, y = np.array(crops).T
  assert area.min() > 0.19
  assert area.max() < 0.51
  assert abs(area.mean() - 0.35) < 0.015
  assert ratio.min() > 0.73
  assert ratio.max() < 1.36
  assert abs(np.log(ratio).mean()) < 0.03
  assert abs(np.log(ratio).std() - math.log(16 / 9) / math.sqrt(12)) < 0.02  # uniform
  for centre in (x, y):
    assert abs(centre.mean() - 0.5) < 0.02
    assert centre.std() > 0.08


@pytest.mark.parametrize(("source", "kept"), [((240, 20), (26, 20)), ((20, 240), (20, 26))])
def test_a_crop_that_never_fits_is_the_largest_in_the_centre(source, kept):
  output = apply(ClassificationAugment(min_scale=0.9, flip=False), position(*source), kept)
  left, top = (source[0] - kept[0]) // 2, (source[1] - kept[1]) // 2
  expected = position(*source)[top : top + kept[1], left : left + kept[0]]
  assert np.abs(output.astype(int) - expected).max() <= 1


def test_pad_crop_moves_the_image_on_black():
  image = np.maximum(photo(32, 32), 1)  # nothing black
  augment = ClassificationAugment(pad_crop=4, flip=False)
  padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
  seen = set()
  for seed in range(700):
    output = apply(augment, image, (32, 32), seed)
    top, bottom = np.flatnonzero(output.any((1, 2)))[[0, -1]]
    left, right = np.flatnonzero(output.any((0, 2)))[[0, -1]]
    x, y = (4 - left) if left else 4 + 31 - right, (4 - top) if top else 4 + 31 - bottom
    np.testing.assert_array_equal(output, padded[y : y + 32, x : x + 32])
    seen.add((int(x), int(y)))
  assert len(seen) == 81  # all places


def test_pad_crop_at_another_size_moves_by_pixels_of_the_output():
  image = np.full((20, 20, 3), 200, np.uint8)
  widths = {int(apply(ClassificationAugment(pad_crop=3), image, (40, 40), s).any((0, 2)).sum()) for s in range(60)}
  assert widths == {37, 38, 39, 40}


def test_colours_change():
  image = photo(30, 20)
  augment = ClassificationAugment(min_scale=1.0, flip=False, saturation=1.5)
  assert not np.array_equal(apply(augment, image, (30, 20)), image)


# -- RandAugment -------------------------------------------------------------------------------------------------------


def test_all_operations_of_randaugment_are_there():
  assert set(OPERATIONS) == {
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "posterize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
  }


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.9])
def test_operations_keep_size_and_mode(name: str, strength: float):
  image = Image.fromarray(photo(31, 17))
  before = image.tobytes()
  output = OPERATIONS[name](image, strength)
  assert (output.size, output.mode) == ((31, 17), "RGB")
  assert image.tobytes() == before
  if strength == 0 and name not in ("autocontrast", "equalize"):
    assert output.tobytes() == before


def test_known_operations():
  image = Image.fromarray(position(40, 20))
  pixels = np.asarray(image).astype(int)

  def run(name: str, strength: float) -> np.ndarray:
    return np.asarray(OPERATIONS[name](image, strength)).astype(int)

  np.testing.assert_array_equal(run("translate_x", 1.0)[:, :22], pixels[:, 18:])  # 0.45 * 40 px
  np.testing.assert_array_equal(run("translate_y", -1.0)[9:], pixels[:11])
  fill = np.rint(pixels.mean((0, 1)))
  assert np.abs(run("translate_x", 1.0)[:, 22:] - fill).max() <= 1
  np.testing.assert_array_equal(run("solarize", 1.0), 255 - pixels)
  np.testing.assert_array_equal(run("posterize", 1.0), pixels & 0xF0)
  np.testing.assert_allclose(run("brightness", -1.0), pixels * 0.1, atol=1)
  # Half a row above the centre a shear of 0.3 moves by 0.15 px; ten rows above by 2.85.
  sheared = run("shear_x", 1.0)
  np.testing.assert_allclose(sheared[9, 5:35, 0], pixels[9, 5:35, 0] - 0.15, atol=1)
  np.testing.assert_allclose(sheared[0, 5:35, 0], pixels[0, 5:35, 0] - 2.85, atol=1)
  turned = run("rotate", 1.0)
  np.testing.assert_allclose(turned[9:11, 19:21].mean((0, 1)), pixels[9:11, 19:21].mean((0, 1)), atol=1)
  # Five px right of the centre comes from 30 degrees above or below it.
  x, y = turned[10, 25, :2] - pixels[10, 20, :2]
  assert abs(x - 5 * math.cos(math.pi / 6)) < 1.1
  assert abs(abs(y) - 5 * math.sin(math.pi / 6)) < 1.1


def test_every_operation_is_drawn():
  image = photo(24, 24)
  outputs = {rand_augment(image, 1, 9, np.random.default_rng(seed)).tobytes() for seed in range(400)}
  single = {
    np.asarray(op(Image.fromarray(image), sign * 0.9)).tobytes() for op in OPERATIONS.values() for sign in (-1, 1)
  }
  assert outputs == single


# -- settings ----------------------------------------------------------------------------------------------------------


def test_group_size_and_pickling():
  assert ALL.group_size == 1
  assert pickle.loads(pickle.dumps(ALL)) == ALL


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ({"min_scale": 0}, "min_scale is 0; expected a number from 0.0001 to 1"),
    ({"min_scale": 0.6, "max_scale": 0.5}, "min_scale is 0.6; expected a number from 0.0001 to 0.5"),
    ({"max_scale": 1.5}, "max_scale is 1.5"),
    ({"min_ratio": 2.0}, "min_ratio is 2.0; expected a number from 0.01 to 1.33333"),
    ({"max_ratio": float("nan")}, "max_ratio is nan"),
    ({"hue": -0.1}, "hue is -0.1"),
    ({"randaugment_ops": 1.5}, "randaugment_ops is 1.5; expected a whole number"),
    ({"randaugment_magnitude": 11}, "randaugment_magnitude is 11; expected a number from 0 to 10"),
    ({"pad_crop": -4}, "pad_crop is -4"),
    ({"flip": "yes"}, "flip is 'yes'"),
  ],
)
def test_settings_out_of_range(setting, message):
  with pytest.raises(AugmentError, match=message):
    ClassificationAugment(**setting)


def test_too_much_padding():
  with pytest.raises(AugmentError, match="pad_crop is 8 for images of 8x9; expected less than a side"):
    apply(ClassificationAugment(pad_crop=8), photo(8, 9), (8, 9))
