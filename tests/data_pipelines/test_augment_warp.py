"""Darknet's crop for classifiers: against the real program, by geometry, and in the augmentation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.augment import AugmentError, ClassificationAugment
from prn_jax.data_pipelines.augment.colour import gaussian_blur
from prn_jax.data_pipelines.augment.warp import Warp, draw_warp
from tests.data_pipelines.test_augment_classification import apply

DARKNET53 = ClassificationAugment(
  min_crop=128, max_crop=448, angle=7, aspect=0.75, hue=0.1, saturation=0.75, exposure=0.75
)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def position(width: int, height: int) -> np.ndarray:
  """Red is the column and green the row, blue says that it is no border."""
  image = np.full((height, width, 3), 255, np.uint8)
  image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
  return image


def draws(width: int, height: int, side: int, crops: tuple[int, int], aspect: float, angle: float) -> list[Warp]:
  return [draw_warp(width, height, side, crops, aspect, angle, np.random.default_rng(seed)) for seed in range(400)]


# -- the pixels --------------------------------------------------------------------------------------------------------


def test_pixels_are_darknets(shared: Path) -> None:
  """The golden's source is rounded to levels (1/2) and our result cut to them (1)."""
  golden = np.load(shared / "golden/preprocess/synthetic.npz")
  (name,) = (key for key in golden if key.startswith("rotate_crop_out"))
  assert name == "rotate_crop_out_rad0.1_s1.3_w9_h9_dx0.7_dy-0.4_aspect1.2"
  source = np.rint(golden["crop_in"].transpose(1, 2, 0) * 255).astype(np.uint8)
  output = Warp(9, 1.3, aspect=1.2, angle_rad=0.1, right=0.7, down=-0.4).apply(source, (9, 9))
  difference = output - golden[name].transpose(1, 2, 0) * 255
  assert difference.min() > -1.51
  assert difference.max() < 0.51


def test_whole_image_at_its_own_scale_is_itself() -> None:
  image = noise(32, 32)
  before = image.copy()
  np.testing.assert_array_equal(Warp(32, 1.0).apply(image, (32, 32)), image)
  np.testing.assert_array_equal(image, before)


def test_a_quarter_turn_to_the_left() -> None:
  """Darknet turns about the corner of four pixels, so that one row comes from outside."""
  image = noise(20, 20)
  turned = Warp(20, 1.0, angle_rad=math.pi / 2).apply(image, (20, 20))
  np.testing.assert_allclose(turned[1:].astype(int), np.rot90(image)[:-1], atol=1)
  assert not turned[0].any()


def test_window_moves_right_and_down_in_its_own_pixels() -> None:
  image = position(100, 80)
  output = Warp(20, 2.0, right=16, down=-10).apply(image, (20, 20))
  # The window's middle is 8 px right of the image's and 5 above it; a pixel of the window is half a pixel of the image.
  np.testing.assert_allclose(output[10, 10, :2], (50 + 8, 40 - 5), atol=1)
  np.testing.assert_allclose(output[10, 18, 0], 50 + 8 + 4, atol=1)


def test_aspect_makes_the_image_narrower() -> None:
  output = Warp(60, 1.0, aspect=2.0).apply(np.full((40, 40, 3), 200, np.uint8), (60, 60))
  columns, rows = np.flatnonzero((output > 100).all(2).any(0)), np.flatnonzero((output > 100).all(2).any(1))
  assert abs(len(columns) - 20) <= 1
  assert abs(len(rows) - 40) <= 1
  assert abs(columns.mean() - 30) <= 1
  assert not output[:, : columns[0] - 1].any()


warps = st.builds(
  Warp,
  st.integers(4, 40),
  st.floats(0.3, 3),
  st.floats(0.5, 2),
  st.floats(-math.pi, math.pi),
  st.floats(-20, 20),
  st.floats(-20, 20),
)


@settings(max_examples=60, deadline=None)
@given(warp=warps, source=st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_flip_is_that_of_the_output(warp: Warp, source: tuple[int, int]) -> None:
  image, size = noise(*source), (warp.side, warp.side)
  difference = warp.apply(image, size, flip=True)[:, ::-1].astype(int) - warp.apply(image, size)
  assert np.abs(difference).max() <= 1


@settings(max_examples=30, deadline=None)
@given(warp=warps, half=st.integers(2, 20))
def test_a_view_that_is_not_square_is_stretched(warp: Warp, half: int) -> None:
  image, side = noise(31, 23), 2 * half
  view = Warp(side, warp.scale, warp.aspect, warp.angle_rad, warp.right, warp.down)
  whole = view.apply(image, (side, side)).astype(int)
  assert np.abs(view.apply(image, (half, side)) - whole[:, ::2]).max() <= 1
  assert np.abs(view.apply(image, (side, half)) - whole[::2]).max() <= 1
  assert np.abs(view.apply(image, (half, side), flip=True) - whole[:, ::2][:, ::-1]).max() <= 1


# -- the draws ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
  source=st.tuples(st.integers(1, 700), st.integers(1, 700)),
  side=st.integers(8, 300),
  low=st.integers(1, 300),
  more=st.integers(0, 300),
  seed=st.integers(0, 10**6),
)
def test_shorter_side_is_as_long_as_asked_for(
  source: tuple[int, int], side: int, low: int, more: int, seed: int
) -> None:
  warp = draw_warp(*source, side, (low, low + more), 1.0, 0.0, np.random.default_rng(seed))
  shorter = min(source) * warp.scale
  assert abs(shorter - round(shorter)) < 1e-6
  assert low <= round(shorter) <= low + more
  assert (warp.side, warp.aspect, warp.angle_rad) == (side, 1, 0)
  for extent, moved in zip(source, (warp.right, warp.down), strict=True):
    assert abs(moved) <= max(0, (extent * warp.scale - side) / 2) + 1e-9  # never beyond the image


def test_draws_fill_their_ranges() -> None:
  found = draws(200, 100, 64, (50, 149), 0.75, 7.0)
  crops = np.array([100 * w.scale for w in found])
  assert set(np.rint(crops).astype(int)) <= set(range(50, 150))
  assert abs(crops.mean() - 99.5) < 5
  assert abs(crops.std() - 100 / math.sqrt(12)) < 3
  angles = np.rad2deg([w.angle_rad for w in found])
  assert -7 <= angles.min() < -6.8
  assert 6.8 < angles.max() <= 7
  assert abs(angles.mean()) < 0.6
  aspects = np.array([w.aspect for w in found])
  assert 0.75 <= aspects.min() < 0.76
  assert 1.31 < aspects.max() <= 4 / 3
  assert 160 < (aspects < 1).sum() < 240


def test_shorter_side_with_an_aspect_is_darknets() -> None:
  """It is the smaller of the height and the width times the aspect, while the scaled image is that much narrower."""
  for warp in draws(100, 100, 64, (80, 80), 0.5, 0.0):
    assert warp.scale == 80 / int(min(100, 100 * warp.aspect))
    assert abs(warp.right) <= max(0.0, (100 * warp.scale / warp.aspect - 64) / 2)
    assert abs(warp.down) <= (100 * warp.scale - 64) / 2


# -- in the augmentation -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(source=st.tuples(st.integers(1, 60), st.integers(1, 60)), seed=st.integers(0, 10**6))
def test_same_generator_same_bytes_and_the_input_stays(source: tuple[int, int], seed: int) -> None:
  image = noise(*source)
  image.flags.writeable = False
  assert apply(DARKNET53, image, (24, 20), seed).tobytes() == apply(DARKNET53, image, (24, 20), seed).tobytes()


def test_small_crops_show_the_whole_image_on_black_and_large_ones_a_part() -> None:
  image = np.full((50, 50, 3), 200, np.uint8)
  small = ClassificationAugment(min_crop=20, max_crop=20, flip=False)
  for seed in range(5):
    shown = apply(small, image, (40, 40), seed) > 100
    assert abs(shown[..., 0].any(0).sum() - 20) <= 1
    assert shown[11:29, 11:29].all()
    assert not shown[:9].any()
  large = ClassificationAugment(min_crop=60, max_crop=80)
  assert all((apply(large, image, (40, 40), seed)[1:-1, 1:-1] == 200).all() for seed in range(40))


def test_flip_is_every_second_time() -> None:
  image = position(40, 40)
  augment = ClassificationAugment(min_crop=80, max_crop=80)
  flipped = [int(out[5, 5, 0]) > int(out[5, 30, 0]) for out in (apply(augment, image, (40, 40), s) for s in range(300))]
  assert 120 < sum(flipped) < 180


@pytest.mark.parametrize(("blur", "kernel"), [(1, 15), (4, 5), (9, 9)])
def test_blur_is_every_fourth_time(blur: int, kernel: int) -> None:
  image = noise(30, 30)
  augment = ClassificationAugment(min_scale=1.0, flip=False, blur=blur)
  blurred = gaussian_blur(image, kernel)
  outputs = [apply(augment, image, (30, 30), seed) for seed in range(400)]
  assert 70 < sum(np.array_equal(output, blurred) for output in outputs) < 130
  assert all(np.array_equal(output, blurred) or np.array_equal(output, image) for output in outputs)


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ({"max_crop": -1}, "max_crop is -1; expected at least 0: pixels of"),
    ({"max_crop": 100}, "min_crop is 0; expected a whole number from 1 to 100"),
    ({"min_crop": 200, "max_crop": 100}, "min_crop is 200; expected a whole number from 1 to 100"),
    ({"min_crop": 5}, "min_crop is 5; expected a whole number from 0 to 0"),
    ({"min_crop": 9, "max_crop": 9, "angle": -1}, "angle is -1; expected a number from 0 to 180"),
    ({"min_crop": 9, "max_crop": 9, "aspect": 0}, "aspect is 0; expected a number from 0.1 to 10"),
    ({"min_crop": 9, "max_crop": 9, "pad_crop": 4}, "pad_crop is 4 and max_crop 9; expected one of them"),
    ({"angle": 7}, "angle is 7 and aspect 1.0 without max_crop; they belong to Darknet's crop. Set min_crop"),
    ({"aspect": 0.75}, "aspect 0.75 without max_crop"),
    ({"blur": -1}, "blur is -1"),
  ],
)
def test_settings_out_of_range(setting: dict[str, float], message: str) -> None:
  with pytest.raises(AugmentError, match=message):
    ClassificationAugment(**setting)  # type: ignore[arg-type]
