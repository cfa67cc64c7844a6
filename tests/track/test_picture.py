"""Pictures of tracks: drawn videos, best crops, mosaics; and memory that does not grow with the video."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.detect.blur import blur_boxes
from prn_jax.errors import PrnError
from prn_jax.track import follow
from prn_jax.track.best_crops import BestCrops, sharpness
from prn_jax.track.follow import Follower
from prn_jax.track.picture import TrackArtist
from prn_jax.track.trackers.named import TrackerSettings
from prn_jax.track.trackers.tracker import Found
from tests.track.test_predict_video import model  # noqa: F401 a fixture
from tests.track.test_video import NUM, make_video


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# -- mosaics -------------------------------------------------------------------------------------------------------------


def test_a_mosaic_leaves_six_cells_and_nothing_else_changes() -> None:
  image = noise(80, 120)
  hidden = blur_boxes(image, np.array([[30.0, 20, 90, 50]]))
  inside = hidden[17:53, 24:96]  # a tenth wider on each side: 72 x 36 pixels, cells of 12
  assert all((inside[y : y + 12, x : x + 12] == inside[y, x]).all() for y in (0, 12, 24) for x in range(0, 72, 12))
  assert inside[0, 0] == pytest.approx(image[17:29, 24:36].mean((0, 1)), abs=0.51)
  hidden[17:53, 24:96] = image[17:53, 24:96]
  assert (hidden == image).all()


@given(st.lists(st.tuples(*[st.floats(-50, 150) for _ in range(4)]), max_size=4))
def test_mosaics_of_any_boxes(boxes: list[tuple[float, ...]]) -> None:
  image = noise(40, 60)
  before = image.copy()
  hidden = blur_boxes(image, np.array(boxes).reshape(-1, 4))
  assert hidden.shape == image.shape
  assert (image == before).all()


# -- crops ---------------------------------------------------------------------------------------------------------------


def test_sharpness_by_hand() -> None:
  """One white pixel in black: the Laplacian is 4 x 255 there, -255 at its four neighbours, 0 at the other four."""
  image = np.zeros((5, 5, 3), np.uint8)
  image[2, 2] = 255
  assert sharpness(image) == pytest.approx((16 + 4) * 255**2 / 9, rel=1e-4)
  assert sharpness(noise(32, 32)) > 10 * sharpness(np.asarray(Image.fromarray(noise(8, 8)).resize((32, 32))))


def row(number: int, *box: float) -> dict[str, Any]:
  return {"id": number, "class": 1, "name": "car", "score": 0.9, "box_xyxy_px": list(box)}


def test_the_best_crop_is_large_and_sharp_and_whole(tmp_path: Path) -> None:
  """Object 1 is small, then large, then large and blurred; object 2 is larger where the picture cuts it off."""
  crops = BestCrops(tmp_path / "c", gone_sec=1.0)
  picture, blurred = noise(100, 200), np.full((100, 200, 3), 127, np.uint8)
  crops.add(picture, [row(1, 20, 20, 40, 40), row(2, 100, 20, 140, 60)], 1, 0.0)
  crops.add(picture, [row(1, 20, 20, 80, 80), row(2, 150, 20, 200, 60)], 2, 0.1)
  crops.add(blurred, [row(1, 10, 10, 90, 90)], 3, 0.2)
  assert crops.num_written == 0
  crops.add(picture, [], 40, 1.3)  # both are gone
  assert crops.num_written == 2
  crops.close()
  told = [json.loads(line) for line in (tmp_path / "c" / "crops.jsonl").read_text().splitlines()]
  assert [(one["id"], one["frame"], one["file"]) for one in told] == [
    (1, 2, "000001_car.jpg"),
    (2, 1, "000002_car.jpg"),
  ]
  assert Image.open(tmp_path / "c" / "000001_car.jpg").size == (60, 60)
  with pytest.raises(
    PrnError, match=r"c' is not empty; empty it, or name another OUT\.txt: crops of two runs must not mix"
  ):
    BestCrops(tmp_path / "c", 1.0)


# -- drawn tracks --------------------------------------------------------------------------------------------------------


def test_trails_follow_and_end() -> None:
  """The trail of an object runs along its lower edge, and is gone two seconds after it."""
  artist, black = TrackArtist(), np.zeros((100, 200, 3), np.uint8)
  for i in range(10):
    drawn = artist.draw(black, [row(7, 10 * i, 20, 10 * i + 20, 60)], i / 10)
  assert drawn[60, 20:80].any(-1).all()
  assert not drawn[70:].any()
  assert artist.draw(black, [], 1.0)[60, 50:80].any()
  assert not artist.draw(black, [], 4.0).any()


def test_track_writes_a_video_and_crops(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
  pytest.importorskip("cv2", reason="needs OpenCV: pip install 'prn-jax[video]'")
  from prn_jax.track.video import Video

  out = tmp_path / "t.txt"
  given = ["track", model, str(make_video(tmp_path / "a.mp4")), str(out), "--save", "txt,video,crops", "--batch", "2"]
  assert main([*given, "--conf", "0.3", "--blur-classes", "van"]) == 0
  assert len(list(Video(str(tmp_path / "t.mp4")))) == NUM
  told = [json.loads(line) for line in (tmp_path / "t_crops" / "crops.jsonl").read_text().splitlines()]
  ids = {int(line.split(",")[1]) for line in out.read_text().splitlines()}
  assert {one["id"] for one in told} <= ids
  assert f"t_crops/: {len(told)} best crops" in capsys.readouterr().err
  assert main([*given, "--conf", "0.3"]) == 2


def test_memory_does_not_grow_with_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
  """Four objects that come and go. `python -m tests.track.test_picture` does it for 10,000 frames of 20."""
  monkeypatch.setattr(follow, "_IN_MEMORY_BYTES", 10_000)
  before, after = memory_of(400, num_objects=4)
  assert after - before < 60_000  # the lines of these 200 frames have 130,000 characters


def memory_of(num_frames: int, num_objects: int) -> tuple[int, int]:
  """Bytes of Python's objects in the middle and at the end of following so many frames."""
  follower = Follower(TrackerSettings(), 25.0, ("car",))
  boxes = np.stack([np.array([50.0 * i, 0, 50.0 * i + 30, 30]) for i in range(num_objects)])
  found = []
  tracemalloc.start()
  for frame in range(num_frames):
    down = 2.0 * (frame % 100)
    now = boxes + np.array([0, down, 0, down])
    follower.add(Found(now, np.full(num_objects, 0.9), np.ones(num_objects, np.int64)))
    if frame in (num_frames // 2, num_frames - 1):
      found.append(tracemalloc.get_traced_memory()[0])
  tracemalloc.stop()
  assert follower.num_boxes > 0.9 * num_frames * num_objects
  return found[0], found[1]


if __name__ == "__main__":
  print("bytes in the middle, at the end: {:,}, {:,}".format(*memory_of(10_000, 20)))
