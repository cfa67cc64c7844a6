"""`prn predict` on videos: frames, times, what is written, and what happens in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prn_jax.api import Model
from prn_jax.cli.main import main
from prn_jax.network import init_variables
from prn_jax.track import record, write_video
from prn_jax.track.record import Recorder, stems
from prn_jax.track.video import Video, VideoError
from prn_jax.track.write_video import VideoWriter
from tests.nets import tiny_detector
from tests.track.test_video import FPS, NUM, make_video, with_times

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
  graph, place = tiny_detector(), tmp_path_factory.mktemp("model") / "tiny"
  Model(graph, init_variables(graph), names=("car", "van")).save(place)
  return str(place)


def predict(*args: Any) -> int:
  return main(["predict", *map(str, args)])


def lines_of(path: Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_photos_and_a_video_in_one_command(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "p.png")
  video, out = make_video(tmp_path / "a.mp4"), tmp_path / "out"
  assert predict(model, tmp_path / "p.png", video, "--out", out, "--conf", "0.3", "--batch", "2", "--json") == 0
  shown = capsys.readouterr()
  said = json.loads(shown.out.splitlines()[-1])
  assert (said["images"], len(said["videos"]), said["failures"]) == (1, 1, [])
  assert (out / "images" / "p.jpg").is_file()
  rows = lines_of(out / "videos" / "a.jsonl")
  assert [row["frame"] for row in rows] == list(range(1, NUM + 1))
  assert [row["time_sec"] for row in rows] == pytest.approx(np.arange(NUM) / FPS, abs=1e-3)
  assert {"class", "name", "score", "box_xyxy_px"} == set(rows[0]["detections"][0])
  drawn = Video(str(out / "videos" / "a.mp4"))
  assert (drawn.fps, len(list(drawn))) == (FPS, NUM)
  assert "a.mp4: H.264, " in shown.err or "a.mp4: MPEG-4 (this OpenCV writes no H.264), " in shown.err
  assert "64x48, 20 frames a second, no sound\n" in shown.err


def test_videos_side_by_side_give_what_each_gives_alone(model: str, tmp_path: Path) -> None:
  """Of different lengths and sizes, two frames of different videos in a batch."""
  one, two = make_video(tmp_path / "a.mp4"), make_video(tmp_path / "b.avi", 9, (48, 64))
  kept = ["--save", "json", "--conf", "0.3", "--batch", "2"]
  assert predict(model, one, two, "--out", tmp_path / "both", *kept) == 0
  for video in (one, two):
    assert predict(model, video, "--out", tmp_path / video.stem, *kept) == 0
    name = f"videos/{video.stem}.jsonl"
    alone, together = lines_of(tmp_path / video.stem / name), lines_of(tmp_path / "both" / name)
    assert len(alone) == len(together) == (NUM if video == one else 9)
    for a, b in zip(alone, together, strict=True):
      assert (a["frame"], a["time_sec"], len(a["detections"])) == (b["frame"], b["time_sec"], len(b["detections"]))
      for x, y in zip(a["detections"], b["detections"], strict=True):
        assert x["box_xyxy_px"] == pytest.approx(y["box_xyxy_px"], abs=1e-3)
        assert x["score"] == pytest.approx(y["score"], abs=1e-5)


def test_a_folder_with_a_video_that_is_cut_off_and_one_that_is_none(
  model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  data = make_video(tmp_path / "whole.avi", 60).read_bytes()
  (tmp_path / "whole.avi").unlink()
  (tmp_path / "in").mkdir()
  (tmp_path / "in" / "cut.avi").write_bytes(data[: len(data) // 2])
  (tmp_path / "in" / "no.mp4").write_bytes(b"no video" * 99)
  assert (
    predict(model, tmp_path / "in", "--save", "json", "--out", tmp_path / "out", "--conf", "0.3", "--batch", "2") == 1
  )
  shown = capsys.readouterr()
  assert "no.mp4' is no video that OpenCV can read" in shown.err
  rows = lines_of(tmp_path / "out" / "videos" / "cut.jsonl")
  assert 10 < len(rows) < 50
  assert f"cut.avi' ends after {len(rows)} of 60 frames: it is cut off or damaged; what was read counts." in shown.err
  assert f"cut.avi: {len(rows)} frames, " in shown.out


def test_ctrl_c_leaves_files_that_can_be_used(
  model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  add = Recorder.add

  def interrupted(self: Recorder, *args: Any) -> None:
    if self.num_frames == 10:
      raise KeyboardInterrupt
    add(self, *args)

  monkeypatch.setattr(record.Recorder, "add", interrupted)
  video = make_video(tmp_path / "a.mp4", 60)
  assert predict(model, video, "--out", tmp_path / "out", "--conf", "0.3", "--batch", "2") == 130
  assert len(list(Video(str(tmp_path / "out" / "videos" / "a.mp4")))) == 10
  assert len(lines_of(tmp_path / "out" / "videos" / "a.jsonl")) == 10
  assert sorted(path.name for path in (tmp_path / "out" / "videos").iterdir()) == ["a.jsonl", "a.mp4"]
  assert "Traceback" not in capsys.readouterr().err


def test_what_predict_refuses(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  video = make_video(tmp_path / "a.mp4")
  assert predict(model, video, "--save", "images,json") == 2
  assert capsys.readouterr().err.endswith("prn predict: --save images: of videos there are json, video.\n")
  assert predict(model, tmp_path / "b.mp4") == 2
  assert "b.mp4' does not exist (did you mean 'a.mp4'?)." in capsys.readouterr().err
  assert predict(model, video, "--blur-classes", "face") == 2
  assert (
    "classes: 'face' is no class of network 'tiny'; expected 0 to 1 or a name, 'car' to 'van'."
    in capsys.readouterr().err
  )


# -- the writer ----------------------------------------------------------------------------------------------------------


def written(path: Path, times_sec: list[float], fps: float = 10.0) -> tuple[list[int], VideoWriter]:
  """Frame i has grey 10 i; what stands in the file, by its number, frame after frame."""
  writer = VideoWriter(path, fps)
  for i, time_sec in enumerate(times_sec):
    writer.add(np.full((32, 32, 3), 10 * i, np.uint8), time_sec)
  writer.close()
  return [round(float(frame.image.mean()) / 10) for frame in Video(str(path))], writer


def test_frames_stand_where_their_times_say(tmp_path: Path) -> None:
  """At 10 a second: the fourth comes 0.3 s late, the sixth and seventh together."""
  there, writer = written(tmp_path / "a.mp4", [5.0, 5.1, 5.2, 5.6, 5.7, 5.79, 5.80, 5.9])
  assert there == [0, 1, 2, 2, 2, 2, 3, 4, 6, 7]
  assert (writer.num_written, writer.num_repeated, writer.num_left_out) == (10, 3, 1)
  assert "3 frames repeated and 1 left out to keep their times" in writer.account


def test_a_steady_rate_gives_every_frame_once(tmp_path: Path) -> None:
  """Though the file rounds its times to milliseconds, and its mean rate is off by a thousandth."""
  there, writer = written(tmp_path / "a.mp4", [round(i / 9.99 + 0.049, 3) for i in range(24)])
  assert there == list(range(24))
  assert (writer.num_repeated, writer.num_left_out) == (0, 0)


def test_a_long_pause_is_shortened_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(write_video, "MOST_GAP_SEC", 1.0)
  there, writer = written(tmp_path / "a.mp4", [0.0, 0.1, 86400.0, 86400.1])
  assert there == [0] + [1] * 10 + [2, 3]
  assert "86399 s of pauses left out" in writer.account


def test_pictures_of_another_size_and_of_odd_sides(tmp_path: Path) -> None:
  writer = VideoWriter(tmp_path / "a.mp4", 10)
  for i, size in enumerate([(33, 41), (33, 41), (64, 80)]):
    writer.add(np.full((*size, 3), 100, np.uint8), i / 10)
  writer.close()
  assert [frame.image.shape for frame in Video(str(tmp_path / "a.mp4"))] == [(32, 40, 3)] * 3


def test_a_video_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(write_video, "CODECS", {"avc0": "H.264", "xxxx": "MPEG-4"})
  writer = VideoWriter(tmp_path / "a.mp4", 10)
  with pytest.raises(VideoError, match=r"this OpenCV writes neither H\.264 nor MPEG-4 of 32x32 pixels"):
    writer.add(np.zeros((32, 32, 3), np.uint8), 0.0)
  writer.close()
  assert not list(tmp_path.iterdir())


def test_names_of_files() -> None:
  places = ["a/street.mp4", "b/street.mkv", "0", "rtsp://me:secret@cam:554/live/1?x=2"]
  assert stems(places) == ["street", "street_2", "camera_0", "cam_554_live_1"]


def test_times_of_a_variable_rate_are_kept(model: str, tmp_path: Path) -> None:
  path = make_video(tmp_path / "a.mp4")
  with_times(path, [256, 768] * (NUM // 2))
  assert predict(model, path, "--out", tmp_path / "out", "--conf", "0.3", "--batch", "2") == 0
  times = [row["time_sec"] for row in lines_of(tmp_path / "out" / "videos" / "a.jsonl")]
  assert np.diff(times) == pytest.approx([0.025, 0.075] * (NUM // 2 - 1) + [0.025], abs=2e-3)
  drawn = list(Video(str(tmp_path / "out" / "videos" / "a.mp4")))
  assert len(drawn) == pytest.approx(NUM, abs=1)
