"""Drawn videos: what they say of themselves is so, counted and measured again from their boxes alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.data_pipelines.traffic.motion import GAP
from prn_jax.data_pipelines.traffic.video import Frame, Video, VideoSettings
from prn_jax.errors import PrnError
from prn_jax.track import motchallenge
from prn_jax.track.film import truth

SMALL = {"width": 160, "height": 96, "fps": 12.5, "flow": 30.0}


def film(seed: int, **settings: object) -> tuple[Video, list[Frame]]:
  video = Video(seed, VideoSettings(**SMALL | settings))  # type: ignore[arg-type]
  return video, list(video.frames())


@pytest.fixture(scope="module")
def busy() -> tuple[Video, list[Frame]]:
  return film(0, seconds=24.0)


def paths(frames: list[Frame]) -> dict[int, list[tuple[int, np.ndarray]]]:
  """Vehicle -> (frame, box) of every frame in which its lower edge is in the picture."""
  found: dict[int, list[tuple[int, np.ndarray]]] = {}
  height = frames[0].image.shape[0]
  for number, frame in enumerate(frames):
    for track, box, visible in zip(frame.ids, frame.boxes_xyxy_px, frame.visible, strict=True):
      if box[3] < height - 1 and visible > 0.6:
        found.setdefault(int(track), []).append((number, box))
  return found


def test_counts_are_those_of_the_boxes(busy: tuple[Video, list[Frame]]) -> None:
  """A box whose lower edge is above the line in one frame and below it in another has crossed it."""
  video, frames = busy
  y = video.line_px()[0][1]
  crossed = {}
  for track, places in paths(frames).items():
    sides = [np.sign(box[3] - y) for _, box in places if abs(box[3] - y) > 1.0]  # boxes end at whole pixels
    if sides and sides[0] != sides[-1]:
      crossed[track] = "towards" if sides[-1] > 0 else "away"
  said = {one["id"]: one["direction"] for one in truth(video)["crossings"]}
  assert len(said) > 8
  assert set(said.values()) == {"towards", "away"}
  assert crossed == {track: direction for track, direction in said.items() if track in crossed}
  assert len(said) - len(crossed) <= 2  # who crosses in the first or last frames has no two places
  assert truth(video)["counts"] == {way: list(said.values()).count(way) for way in ("towards", "away")}


def test_speeds_are_those_of_the_boxes(busy: tuple[Video, list[Frame]]) -> None:
  """From pixels to metres by the four places on the road alone."""
  video, frames = busy
  (near, far) = (video.ground_points()[0], video.ground_points()[2])
  rows, depths = [near[0][1], far[0][1]], [near[1][1], far[1][1]]
  # On a flat road a row y is at depth a / (y - b).
  horizon = (rows[0] * depths[0] - rows[1] * depths[1]) / (depths[0] - depths[1])
  scale = (rows[0] - horizon) * depths[0]
  measured = 0
  for one in video.crossings:
    places = [(n, box) for n, box in paths(frames).get(one.id, []) if abs(n / 12.5 - one.time_sec) < 0.5]
    if len(places) < 8:
      continue
    times = np.array([n / 12.5 for n, _ in places])
    z = np.array([scale / (box[3] - 0.5 - horizon) for _, box in places])
    speed = abs(np.polyfit(times, z, 1)[0])
    assert speed == pytest.approx(one.speed, rel=0.25, abs=0.5)  # rows are half a metre at this size
    measured += 1
  assert measured > 5


def test_nobody_drives_into_another(busy: tuple[Video, list[Frame]]) -> None:
  video = Video(5, VideoSettings(**SMALL | {"flow": 60.0, "stop_and_go": True}))  # type: ignore[arg-type]
  stood = 0
  for _ in range(2000):
    video.traffic.step()
    for lane in video.traffic.lanes:
      for ahead, behind in zip(lane.drivers, lane.drivers[1:], strict=False):
        room = (ahead.along - 0.5 * ahead.vehicle.length) - (behind.along + 0.5 * behind.vehicle.length)
        assert room > 0.5 * GAP
      stood += sum(driver.speed < 0.1 for driver in lane.drivers)
  assert stood > 100  # at the red light


def test_equal_seeds_are_equal_videos(busy: tuple[Video, list[Frame]]) -> None:
  _, frames = busy
  again = next(Video(0, VideoSettings(**SMALL, seconds=24.0)).frames())  # type: ignore[arg-type]
  assert np.array_equal(again.image, frames[0].image)
  other = next(Video(1, VideoSettings(**SMALL)).frames())  # type: ignore[arg-type]
  assert not np.array_equal(other.image, frames[0].image)


def test_what_stands_stands_still(busy: tuple[Video, list[Frame]]) -> None:
  """Houses and road do not flicker from frame to frame: the sky's rows differ by the sensor's grain alone."""
  _, frames = busy
  still = np.stack([frame.image[:20].astype(int) for frame in frames[::40]])
  assert np.ptp(still, axis=0).max() <= 12


def test_weather_changes_pictures_and_no_truth() -> None:
  clear, frames = film(2, seconds=4.0)
  wet, wet_frames = film(2, seconds=4.0, rain=True)
  shaken, shaken_frames = film(2, seconds=4.0, shake_px=3.0)
  assert clear.crossings == wet.crossings == shaken.crossings
  assert all(np.array_equal(a.boxes_xyxy_px, b.boxes_xyxy_px) for a, b in zip(frames, wet_frames, strict=True))
  assert not np.array_equal(frames[9].image, wet_frames[9].image)
  moved = [
    np.abs(a.boxes_xyxy_px - b.boxes_xyxy_px).max()
    for a, b in zip(frames, shaken_frames, strict=True)
    if len(a.ids) == len(b.ids) > 0
  ]
  assert 0.5 < max(moved) <= 3.5
  dark = film(2, seconds=0.1, night=True)[1][0].image
  assert dark.mean() < 0.8 * frames[0].image.mean()


@pytest.mark.parametrize(
  ("settings", "text"),
  [
    ({"fps": 30.0}, r"fps is 30.0; expected a number from 0.1 to 25: frames per second\."),
    ({"fps": 10.0}, r"fps is 10; expected a divisor of 25, such as 25, 12.5, 6.25, 5 or 2.5\."),
    ({"seconds": 0.0}, r"seconds is 0.0; expected"),
    ({"width": 8}, r"width is 8; expected"),
  ],
)
def test_settings_that_cannot_be(settings: dict[str, object], text: str) -> None:
  with pytest.raises(PrnError, match=text):
    VideoSettings(**settings)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  out = tmp_path / "film"
  args = ["data", "video", str(out), "--seconds", "2", "--size", "160x96", "--seed", "4", "--flow", "40"]
  assert main([*args, "--json"]) == 0
  said = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert said == {"out": str(out)} | json.loads((out / "truth.json").read_text())
  assert len(list((out / "img1").iterdir())) == said["frames"] == 25
  assert Image.open(out / "img1" / "000001.jpg").size == (160, 96)
  boxes = motchallenge.read(out / "gt.txt")
  assert len(boxes) > 20
  assert set(boxes.scores) <= {0, 1}
  tracks = tmp_path / "tracks.txt"
  rows = [line.split(",") for line in (out / "gt.txt").read_text().splitlines()]
  tracks.write_text("".join(",".join([*row[:6], "0.9", "3"]) + "\n" for row in rows))  # also what is too small to count
  scores = ["eval", "--tracks", str(tracks), "--truth", str(out / "gt.txt"), "--json"]
  assert main(scores) == 2
  assert "class is 3, but MOTChallenge scores pedestrians, class 1, alone" in capsys.readouterr().err
  assert main([*scores, "--all-classes"]) == 0
  said = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert said["metrics"]["HOTA"] == said["metrics"]["IDF1"] == pytest.approx(1.0)
  assert said["protocol"] == "all classes"
  assert main(args) == 2
  assert f"'{out}' is not empty; name a new folder: frames of two videos must not mix." in capsys.readouterr().err
