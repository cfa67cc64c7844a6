"""Resampling and colours, against exact arithmetic, OpenCV, Python's colorsys and Darknet."""

from __future__ import annotations

import colorsys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prn_jax.data_pipelines.augment.colour import (
  Distortion,
  add_noise,
  distort_planes,
  draw_distortion,
  gaussian_blur,
  random_scale,
)
from prn_jax.data_pipelines.augment.resample import Crop, Window, mean_colour, resample


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exact(image: np.ndarray, crop: Crop, size: tuple[int, int], fill: tuple[int, int, int]) -> np.ndarray:
  """Bilinear in float64, one pixel at a time."""
  height, width = image.shape[:2]
  output = np.empty((size[1], size[0], 3))
  for y, x in np.ndindex(size[1], size[0]):
    column = size[0] - 1 - x if crop.flip else x
    at_x, at_y = crop.left + (column + 0.5) * crop.width / size[0], crop.top + (y + 0.5) * crop.height / size[1]
    if not (0 <= at_x < width and 0 <= at_y < height):
      output[y, x] = fill
      continue
    at_x, at_y = np.clip(at_x - 0.5, 0, width - 1), np.clip(at_y - 0.5, 0, height - 1)
    x0, y0 = int(at_x), int(at_y)
    x1, y1, dx, dy = min(x0 + 1, width - 1), min(y0 + 1, height - 1), at_x - x0, at_y - y0
    rows = [(1 - dx) * image[row, x0].astype(float) + dx * image[row, x1] for row in (y0, y1)]
    output[y, x] = (1 - dy) * rows[0] + dy * rows[1]
  return output


@settings(max_examples=40, deadline=None)
@given(
  source=st.tuples(st.integers(1, 40), st.integers(1, 40)),
  size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
  left=st.floats(-30, 30),
  top=st.floats(-30, 30),
  extent=st.tuples(st.floats(0.5, 90), st.floats(0.5, 90)),
  flip=st.booleans(),
)
def test_resample_is_bilinear_within_two_levels(source, size, left, top, extent, flip):
  image, crop = noise(*source), Crop(left, top, *extent, flip)
  output = resample(image, crop, size, fill=(1, 2, 3))
  assert output.shape == (size[1], size[0], 3)
  assert output.dtype == np.uint8
  assert np.abs(output - exact(image, crop, size, (1, 2, 3))).max() <= 2


def test_resample_is_neither_brighter_nor_darker():
  image, crop = noise(61, 47), Crop(0, 0, 61, 47)
  assert abs((resample(image, crop, (53, 39)) - exact(image, crop, (53, 39), (0, 0, 0))).mean()) < 0.05


@pytest.mark.parametrize("source", [(64, 48), (20, 30), (301, 200)])
def test_whole_image_is_opencv_s_linear_resize(source):
  image = noise(*source)
  output = resample(image, Crop(0, 0, *source), (52, 44)).astype(int)
  difference = output - cv2.resize(image, (52, 44), interpolation=cv2.INTER_LINEAR)
  assert np.abs(difference).max() <= 2


def test_same_size_copies_and_two_flips_are_none():
  image = noise(31, 17)
  once = resample(image, Crop(0, 0, 31, 17, flip=True), (31, 17))
  np.testing.assert_array_equal(once, image[:, ::-1])
  np.testing.assert_array_equal(resample(once, Crop(0, 0, 31, 17, flip=True), (31, 17)), image)
  np.testing.assert_array_equal(resample(image, Crop(0, 0, 31, 17), (31, 17)), image)


@settings(max_examples=60, deadline=None)
@given(
  left=st.integers(-30, 45), top=st.integers(-30, 35), flip=st.booleans(), window=st.sampled_from([(0, 0), (3, 9)])
)
def test_a_move_by_whole_pixels_is_exact(left, top, flip, window):
  image, size = noise(40, 30), (21, 17)
  whole = exact(image, Crop(left, top, *size, flip), size, (1, 2, 3))
  part = Window(*window, 20, 16)
  output = resample(image, Crop(left, top, *size, flip), size, part, fill=(1, 2, 3))
  np.testing.assert_array_equal(output, whole[part.top : part.bottom, part.left : part.right])


@settings(max_examples=30, deadline=None)
@given(edges=st.tuples(*[st.integers(0, 20)] * 4), flip=st.booleans())
def test_window_is_a_part_of_the_whole_output(edges, flip):
  left, right = sorted((edges[0], edges[1] + 1))
  top, bottom = sorted((edges[2], edges[3] + 1))
  if left == right or top == bottom:
    return
  image, crop = noise(40, 30), Crop(-7, 4, 60.5, 22, flip)
  whole = resample(image, crop, (21, 21))
  part = resample(image, crop, (21, 21), Window(left, top, right, bottom))
  np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_an_image_of_another_memory_layout_gives_the_same():
  image = noise(40, 30)
  crop = Crop(3, 2, 20, 15)
  np.testing.assert_array_equal(resample(np.asfortranarray(image), crop, (9, 9)), resample(image, crop, (9, 9)))


def test_outside_is_the_mean_colour():
  image = np.zeros((10, 20, 3), np.uint8)
  image[:, :5] = (200, 100, 7)  # a quarter of the image
  assert mean_colour(image) == (50, 25, 2)
  output = resample(image, Crop(-20, 0, 40, 10), (40, 10))
  assert (output[:, :20] == (50, 25, 2)).all()
  np.testing.assert_array_equal(output[:, 20:], image)
  assert (resample(image, Crop(100, 100, 20, 20), (8, 8)) == (50, 25, 2)).all()  # nothing of the image


@pytest.mark.parametrize("size", [(1300, 900), (250, 330)])
def test_mean_colour_of_large_images(size):
  ramp = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[1], size[0], 1)
  image = np.repeat(ramp, 3, axis=2)
  np.testing.assert_allclose(mean_colour(image), image.mean((0, 1)), atol=1.5)


@settings(max_examples=30, deadline=None)
@given(left=st.floats(-50, 50), width=st.floats(1, 90), flip=st.booleans(), seed=st.integers(0, 99))
def test_boxes_follow_the_pixels_there_and_back(left, width, flip, seed):
  crop = Crop(left, -left, width, 2 * width, flip)
  boxes = np.random.default_rng(seed).uniform(0, 60, (5, 4)).astype(np.float32)
  boxes[:, 2:] += boxes[:, :2]
  moved = crop.boxes_to_output(boxes, (32, 48))
  assert (moved[:, 2:] >= moved[:, :2]).all()
  if flip:
    moved[:, [0, 2]] = 32 - moved[:, [2, 0]]
  back = moved / np.tile([32 / width, 24 / width], 2)
  np.testing.assert_allclose(back + np.tile([left, -left], 2), boxes, atol=1e-3)


# -- colours -----------------------------------------------------------------------------------------------------------


def test_colours_are_darknet_s(shared: Path):
  golden = np.load(shared / "golden/preprocess/synthetic.npz")
  planes = golden["distort_in"].reshape(3, -1)
  changed = np.clip(distort_planes(planes, Distortion(0.07, 1.4, 0.8)), 0, 1)
  expected = golden["distort_out_hue0.07_sat1.4_exp0.8"].reshape(3, -1)
  np.testing.assert_allclose(changed, expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
  hue=st.floats(-0.5, 0.5),
  saturation=st.floats(0.2, 1.0),
  exposure=st.floats(0.2, 2.0),
  pixels=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20),
)
def test_colours_are_those_of_colorsys(hue, saturation, exposure, pixels):
  image = np.array([pixels], np.uint8)
  expected = []
  for pixel in pixels:
    h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in pixel))
    expected.append([255 * min(1, value * exposure) for value in colorsys.hsv_to_rgb((h + hue) % 1, s * saturation, v)])
  output = Distortion(hue, saturation, exposure).apply(image)
  np.testing.assert_allclose(output[0], expected, atol=0.51)


@pytest.mark.parametrize(
  ("distortion", "colour", "expected"),
  [
    (Distortion(hue=1 / 3), (255, 0, 0), (0, 255, 0)),
    (Distortion(hue=-1 / 3), (255, 0, 0), (0, 0, 255)),
    (Distortion(hue=0.5), (200, 100, 100), (100, 200, 200)),
    (Distortion(hue=1 / 6), (255, 0, 0), (255, 255, 0)),
    (Distortion(hue=0.3), (90, 90, 90), (90, 90, 90)),  # grey has no hue
    (Distortion(saturation=0.5), (200, 100, 0), (200, 150, 100)),
    (Distortion(saturation=2), (200, 150, 100), (200, 100, 0)),
    (Distortion(saturation=4), (200, 150, 100), (200, 0, 0)),  # clipped
    (Distortion(exposure=0.5), (200, 100, 51), (100, 50, 26)),
    (Distortion(exposure=2), (200, 100, 50), (255, 200, 100)),
    (Distortion(), (200, 100, 50), (200, 100, 50)),
  ],
)
def test_known_colours(distortion: Distortion, colour, expected):
  image = np.full((3, 5, 3), colour, np.uint8)
  np.testing.assert_array_equal(distortion.apply(image), np.full((3, 5, 3), expected, np.uint8))


def test_large_images_are_changed_everywhere_alike():
  image = np.tile(np.array([[[200, 100, 0]]], np.uint8), (301, 211, 1))  # several blocks, the last one short
  output = Distortion(0.1, 0.7, 0.9).apply(image)
  assert (output == output[0, 0]).all()
  assert not (output[0, 0] == image[0, 0]).all()


def test_random_scale_is_a_factor_or_its_inverse():
  rng = np.random.default_rng(0)
  draws = np.array([random_scale(1.5, rng) for _ in range(4000)])
  assert draws.min() >= 1 / 1.5
  assert draws.max() <= 1.5
  assert 0.46 < (draws < 1).mean() < 0.54
  above = draws[draws > 1]
  assert abs(above.mean() - 1.25) < 0.02  # uniform, not its logarithm
  inverse = np.array([random_scale(1 / 1.5, np.random.default_rng(i)) for i in range(500)])
  assert inverse.min() >= 1 / 1.5 - 1e-12
  assert inverse.max() <= 1.5 + 1e-12


def test_draws_stay_in_their_limits_and_off_is_off():
  rng = np.random.default_rng(1)
  draws = [draw_distortion(0.1, 1.5, 1.3, rng) for _ in range(500)]
  hues = np.array([draw.hue for draw in draws])
  assert hues.min() < -0.09
  assert hues.max() > 0.09
  assert np.abs(hues).max() <= 0.1
  assert max(draw.exposure for draw in draws) <= 1.3
  assert draw_distortion(0, 1, 1, rng) == Distortion()


def test_blur_is_opencv_s_within_three_levels():
  image = np.asarray(Image.fromarray(noise(12, 12)).resize((96, 96), Image.Resampling.BICUBIC))
  for kernel in (9, 17):
    ours, theirs = (
      gaussian_blur(image, kernel)[20:-20, 20:-20],
      cv2.GaussianBlur(image, (kernel, kernel), 0)[20:-20, 20:-20],
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 3


def test_noise_has_its_deviation_and_no_bias():
  image = np.full((80, 80, 3), 128, np.uint8)
  difference = add_noise(image, 12, np.random.default_rng(0)).astype(float) - 128
  assert abs(difference.std() - 12) < 0.3
  assert abs(difference.mean()) < 0.3
  extremes = add_noise(np.zeros((20, 20, 3), np.uint8), 100, np.random.default_rng(0))
  assert (extremes == 0).mean() > 0.4  # no wrap from below zero to white
