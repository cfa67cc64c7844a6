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
from prn_jax.detect.detections import Detections
from prn_jax.errors import PrnError
from prn_jax.track import follow
from prn_jax.track.best_crops import BestCrops, sharpness
from prn_jax.track.follow import Follower
from prn_jax.track.inside import Inside
from prn_jax.track.picture import TrackArtist
from prn_jax.track.readers import reader, register_reader
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
  given += ["--inside", model]
  assert main([*given, "--conf", "0.3", "--blur-classes", "van"]) == 0
  assert len(list(Video(str(tmp_path / "t.mp4")))) == NUM
  told = [json.loads(line) for line in (tmp_path / "t_crops" / "crops.jsonl").read_text().splitlines()]
  ids = {int(line.split(",")[1]) for line in out.read_text().splitlines()}
  assert {one["id"] for one in told} <= ids
  found = [json.loads(line) for line in (tmp_path / "t_inside" / "crops.jsonl").read_text().splitlines()]
  assert {one["id"] for one in found} <= ids
  assert f"t_crops/: {len(told)} best crops" in capsys.readouterr().err
  assert main([*given, "--conf", "0.3"]) == 2


class _Middle:
  """A detector that finds the middle third of whatever it is shown."""

  def __init__(self) -> None:
    self.num_looks = 0

  def __call__(self, images: list[np.ndarray]) -> list[Detections]:
    self.num_looks += 1
    height, width = images[0].shape[:2]
    box = np.array([[width / 3, height / 3, 2 * width / 3, 2 * height / 3]])
    return [Detections(box, np.array([0.8]), np.array([0]), ("plate",), width, height)]


def test_a_second_network_looks_inside_and_the_best_find_is_read(tmp_path: Path) -> None:
  """A vehicle that comes closer by a hundredth in every frame is looked at again only when it is a fifth better; then it is gone."""
  network, picture = _Middle(), noise(200, 300)
  read = register_reader("shape of the crop")(lambda part: f"{part.shape[1]}x{part.shape[0]}")
  inside = Inside(network, BestCrops(tmp_path / "i", 1.0, reader("shape of the crop")))  # type: ignore[arg-type]
  assert reader("shape of the crop") is read
  for frame in range(1, 41):
    side = 60 + 0.6 * frame
    inside.add(picture, [row(3, 40, 50, 40 + side, 50 + side)], frame, frame / 25)
  assert 2 <= network.num_looks <= 6
  inside.add(picture, [], 100, 4.0)
  (told,) = [json.loads(line) for line in lines_after(inside.crops)]
  assert (told["id"], told["name"], told["in"]) == (3, "plate", "car")
  left, top, right, bottom = told["box_xyxy_px"]
  side = 60 + 0.6 * told["frame"]
  assert (left, top) == pytest.approx((40 + side / 3, 50 + side / 3), abs=0.5)
  width, height = map(int, told["text"].split("x"))
  assert (width, height) == pytest.approx((right - left, bottom - top), abs=1.1)


def lines_after(crops: BestCrops) -> list[str]:
  crops.close()
  return (crops.folder / "crops.jsonl").read_text().splitlines()


def test_readers_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(PrnError, match=r"--read nosuch: no reader has this name; .*An extension brings one"):
    reader("nosuch")
  assert main(["track", "m", "v", "--read", "x"]) == 2
  assert "--read x is given without --inside. Say with --inside MODEL2 which" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
  """What 30 frames of forty objects leave behind, against 10: the lines of twenty frames would be 150,000 bytes.
  `python -m tests.track.test_picture` follows and draws 10,000 frames."""
  monkeypatch.setattr(follow, "_IN_MEMORY_BYTES", 1000)
  follower, left = Follower(TrackerSettings(), 25.0, ("car",)), []
  for frame in range(50):
    if frame == 20:
      tracemalloc.start()
    follower.add(passing(frame, 40))
    if frame in (29, 49):
      left.append(tracemalloc.get_traced_memory()[0])
  tracemalloc.stop()
  assert follower.num_boxes > 1900
  assert left[1] - left[0] < 50_000


def passing(frame: int, num_objects: int) -> Found:
  """Objects side by side that run down for a hundred frames, and again."""
  boxes = np.array([[50.0 * i, 0, 50.0 * i + 30, 30] for i in range(num_objects)])
  down = 2.0 * (frame % 100)
  return Found(boxes + np.array([0, down, 0, down]), np.full(num_objects, 0.9), np.ones(num_objects, np.int64))


def resident_megabytes() -> float:
  return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
  follower, artist, black = (
    Follower(TrackerSettings(), 25.0, ("car",)),
    TrackArtist(),
    np.zeros((360, 640, 3), np.uint8),
  )
  for frame in range(10_001):
    artist.draw(black, follower.add(passing(frame, 12)), frame / 25)
    if frame % 2000 == 0 or frame == 100:
      print(f"frame {frame:,}: {resident_megabytes():.1f} MB, {follower.num_boxes:,} boxes", flush=True)
