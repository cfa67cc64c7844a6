"""Videos: their frames, the times that the file gives them, and what is missing."""

from __future__ import annotations

import json
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from prn_jax.api import Model
from prn_jax.cli.main import main
from prn_jax.network import init_variables
from prn_jax.track import count, track_lines
from prn_jax.track.motchallenge import TrackFileError
from prn_jax.track.video import AHEAD, Video, VideoError
from tests.nets import tiny_detector

cv2 = pytest.importorskip("cv2")
FPS, NUM = 20.0, 24


def make_video(path: Path, num: int = NUM, size: tuple[int, int] = (64, 48)) -> Path:
  """Frame i has grey 10 * i, left half red."""
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v")), FPS, size)
  for i in range(num):
    frame = np.full((size[1], size[0], 3), 10 * i % 250, np.uint8)
    frame[:, : size[0] // 2] = (0, 0, 250)  # blue, green, red
    writer.write(frame)
  writer.release()
  return path


def with_times(path: Path, durations: list[int]) -> None:
  """Gives the frames of an .mp4 durations of their own, in the file's units: its table of times (stts) is written anew."""
  data = path.read_bytes()
  at = data.index(b"stts") - 4
  (old,) = struct.unpack(">I", data[at : at + 4])
  body = b"stts" + struct.pack(">II", 0, len(durations)) + b"".join(struct.pack(">II", 1, d) for d in durations)
  new = struct.pack(">I", len(body) + 4) + body
  grown = bytearray(data[:at] + new + data[at + old :])
  start, end = data.index(b"moov") - 4, len(grown)
  assert data.index(b"mdat") < start  # frames stand before the index: their places stay
  for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
    place = grown.index(name, start, end) - 4
    (size,) = struct.unpack(">I", grown[place : place + 4])
    grown[place : place + 4] = struct.pack(">I", size + len(new) - old)
  path.write_bytes(grown)


def test_frames_and_times(tmp_path: Path) -> None:
  video = Video(str(make_video(tmp_path / "a.mp4")))
  assert (video.fps, video.said_frames) == (FPS, NUM)
  frames = list(video)
  assert [frame.time_sec for frame in frames] == pytest.approx([i / FPS for i in range(NUM)], abs=1e-3)
  for i, frame in enumerate(frames):
    assert frame.image.shape == (48, 64, 3)
    assert frame.image[:, 40:].mean() == pytest.approx(10 * i, abs=6)
    assert frame.image[24, 10] == pytest.approx([250, 0, 0], abs=40)  # red first
  assert video.shortfall == ""


def test_times_of_a_variable_rate_are_the_files_own(tmp_path: Path) -> None:
  """As phones record: durations from a quarter to almost twice the usual one."""
  path = make_video(tmp_path / "a.mp4")
  usual = 512  # of this writer, in the file's units
  durations = [int(usual * f) for f in ([1, 0.5, 1.5, 1, 0.25, 1.75] * 4)]  # as long together as before
  with_times(path, durations)
  times = np.array([frame.time_sec for frame in Video(str(path))])
  expected = np.concatenate(([0], np.cumsum(durations)[:-1])) / usual / FPS
  assert times == pytest.approx(expected, abs=2e-3)


def test_a_video_that_is_cut_off_gives_what_it_has(tmp_path: Path) -> None:
  whole = make_video(tmp_path / "a.avi", 60)
  data = whole.read_bytes()
  (tmp_path / "b.avi").write_bytes(data[: len(data) // 2])
  video = Video(str(tmp_path / "b.avi"))
  found = len(list(video))
  assert 10 < found < 50
  assert video.shortfall == (
    f"'{tmp_path / 'b.avi'}' ends after {found} of {video.said_frames} frames: it is cut off or damaged; what was read counts."
  )


def test_what_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  bad = tmp_path / "a.mp4"
  bad.write_bytes(b"no video at all" * 100)
  with pytest.raises(
    VideoError, match=r"a\.mp4' is no video that OpenCV can read, or is damaged: an \.mp4 of a recording"
  ):
    Video(str(bad))
  with pytest.raises(VideoError, match=r"does not exist, or is no file"):
    Video(str(tmp_path / "b.mp4"))
  monkeypatch.setitem(sys.modules, "cv2", None)
  with pytest.raises(VideoError, match=r"needs OpenCV: pip install 'prn-jax\[video\]'"):
    Video(str(bad))


def test_few_frames_are_ahead_and_the_thread_ends(tmp_path: Path) -> None:
  """Whoever stops early leaves no thread behind, and whoever is slow no pile of frames."""
  video = Video(str(make_video(tmp_path / "a.mp4", 200)))
  frames = iter(video)
  next(frames)
  assert video._reader.get(cv2.CAP_PROP_POS_FRAMES) <= AHEAD + 4
  frames.close()  # type: ignore[attr-defined]
  assert video.shortfall == ""  # nothing is wrong with the file
  assert "video" not in {thread.name for thread in threading.enumerate()}


# -- prn track and prn count ---------------------------------------------------------------------------------------------


def test_track_writes_the_times_of_the_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  graph = tiny_detector()
  Model(graph, init_variables(graph), names=("car", "van")).save(tmp_path / "tiny")
  path = make_video(tmp_path / "a.mp4")
  with_times(path, [256, 768] * (NUM // 2))
  args = ["track", str(tmp_path / "tiny"), str(path), str(tmp_path / "t.txt"), "--save", "txt,jsonl", "--conf", "0.3"]
  assert main([*args, "--json"]) == 0
  said = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert said["frames"] == NUM
  tracks = track_lines.read(tmp_path / "t.jsonl")
  assert tracks.clock(np.arange(1, NUM + 1)) == pytest.approx(
    np.concatenate(([0], np.cumsum([0.025, 0.075] * (NUM // 2))[:-1])), abs=2e-3
  )


LINE = '{{"frame": {0}, "time_sec": {1}, "source": null, "tracks": [{2}]}}\n'
BOX = '{{"id": 4, "class": 2, "score": 0.5, "box_xyxy_px": [40, {0}, 60, {1}], "name": "van"}}'


def test_count_takes_times_and_names_of_json_lines(tmp_path: Path) -> None:
  """Over the line halfway between frame 3, at 0.5 s, and frame 4, at 2.5 s."""
  rows = [(1, 0.0, 10), (2, 0.25, 50), (3, 0.5, 80), (4, 2.5, 120), (5, 2.75, 160)]
  text = "".join(LINE.format(frame, sec, BOX.format(y - 20, y)) for frame, sec, y in rows)
  (tmp_path / "t.jsonl").write_text(text)
  (tmp_path / "s.yaml").write_text("lines:\n  - {name: road, from: [0, 100], to: [100, 100]}\n")
  given = count.read(tmp_path / "t.jsonl", tmp_path / "s.yaml", None, None)
  done = count.write(given, tmp_path, 900)
  assert done["totals"] == [
    {"kind": "line", "name": "road", "direction": "forward", "class": 2, "class_name": "van", "count": 1}
  ]
  event = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[1])
  assert (event["frame"], event["time_sec"]) == (3.5, 1.5)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", r"t\.jsonl:1 "),
    ('{"frame": 1, "time_sec": 0}\n', r"t\.jsonl:1 has no 'tracks'; it has 'frame', 'time_sec'"),
    (LINE.format(2, 1.0, "") + LINE.format(2, 2.0, ""), r"t\.jsonl:2: frame 2 at 2 s stands behind frame 2 at 1 s; both must rise"),
    (LINE.format(1, 1.0, "") + LINE.format(2, 1.0, ""), r"frame 2 at 1 s stands behind frame 1 at 1 s; both must rise"),
    (LINE.format(1, 1.0, BOX.format(1, 2).replace("60, 2", "60")), r"box_xyxy_px has 3 numbers; expected left, top, right and bottom"),
    (LINE.format(0, 1.0, ""), r"frame is 0; expected a whole number from 1 to 10000000"),
  ],
)  # fmt: skip
def test_json_lines_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
  (tmp_path / "t.jsonl").write_text(text)
  with pytest.raises(TrackFileError, match=message):
    track_lines.read(tmp_path / "t.jsonl")
