"""A stream of images: order, failures, and how far it looks ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from prn_jax.run.images import Failure, predictor, stream
from tests.nets import random_model

NUM_IMAGES, BROKEN = 17, (0, 7, 8, 16)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_results_come_in_order_and_few_images_are_held(batch_size: int) -> None:
  """A data set of images in memory (an archive, ArrayRecord) need not fit there as a whole."""
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(NUM_IMAGES)]
  asked = 0

  def sources() -> Iterator[np.ndarray | bytes]:
    nonlocal asked
    for i, image in enumerate(images):
      asked += 1
      yield b"not an image" if i in BROKEN else image

  run = predictor(random_model(), None, batch_size)
  single = [None if i in BROKEN else run([image])[0] for i, image in enumerate(images)]
  assert len({len(one) for one in single if one is not None}) > 1  # type: ignore[arg-type]  # told apart by their boxes
  for done, (result, expected) in enumerate(zip(stream(run, sources()), single, strict=True)):
    assert asked <= done + 3 * batch_size + 1
    if expected is None:
      assert isinstance(result, Failure)
    else:
      assert not isinstance(result, Failure)
      np.testing.assert_allclose(result.boxes_xyxy_px, expected.boxes_xyxy_px, rtol=1e-4, atol=1e-3)  # type: ignore[union-attr]
  assert asked == NUM_IMAGES


def test_no_images_no_results() -> None:
  assert list(stream(predictor(random_model(), None, 2), [])) == []


def test_images_are_resized_while_the_network_works(monkeypatch: pytest.MonkeyPatch) -> None:
  """In threads, which the one that waits for the device is none of."""
  run, where = predictor(random_model(), None, 2), set[str]()
  prepare = run.prepare

  def noting(image: np.ndarray) -> object:
    where.add(threading.current_thread().name)
    return prepare(image)

  monkeypatch.setattr(run, "prepare", noting)
  images = [np.full((40, 30, 3), value, np.uint8) for value in range(5)]
  found = list(stream(run, images, keep_images=False))
  assert [getattr(one, "image", 0) for one in found] == [None] * 5
  assert where
  assert threading.main_thread().name not in where
  assert run.seconds["resize"] > 0
