"""Streams: a server of motion JPEG whose connection breaks, frames that nobody has time for, addresses with passwords."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.run.images import PAUSE
from prn_jax.track import live
from prn_jax.track.live import Live, answers_with_frames, is_live, without_password
from prn_jax.track.source import Source, Taken, Together, photos_and_videos
from prn_jax.track.video import VideoError
from tests.track.test_predict_video import model  # noqa: F401 a fixture

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'prn-jax[video]'")
NUM, REST_SEC = 12, 0.03


class _Camera(BaseHTTPRequestHandler):
  """Frame i of a connection has grey 10 + 20 i; after `NUM` frames the connection breaks. A server has `connections` of them."""

  def do_GET(self) -> None:
    server = self.server
    assert isinstance(server, _Server)
    if not self.path.startswith("/live") or server.connections <= 0:
      self.send_error(404)
      return
    server.connections -= 1
    self.send_response(200)
    self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    self.end_headers()
    try:
      for i in range(NUM):
        file = io.BytesIO()
        Image.new("RGB", (64, 48), (10 + 20 * i,) * 3).save(file, "JPEG", quality=95)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n"
        self.wfile.write(head.encode() + file.getvalue() + b"\r\n")
        time.sleep(REST_SEC)
    except OSError:  # nobody listens any more
      pass

  def log_message(self, *args: object) -> None:
    pass


class _Server(ThreadingHTTPServer):
  connections = 0
  daemon_threads = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
  monkeypatch.setattr(live, "FIRST_WAIT_SEC", 0.05)
  monkeypatch.setattr(live, "GIVE_UP_SEC", 1.0)
  server = _Server(("127.0.0.1", 0), _Camera)
  thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def address(server: _Server, path: str = "live.mjpg") -> str:
  return f"http://127.0.0.1:{server.server_address[1]}/{path}"


def test_a_connection_that_breaks_is_opened_again(camera: _Server) -> None:
  camera.connections = 2
  said: list[str] = []
  stream = Live(address(camera), said.append)
  assert not stream.is_recording
  frames = [frame for frame in stream if frame]
  assert stream.num_read == len(frames) + stream.num_dropped
  assert NUM < stream.num_read <= 2 * NUM  # FFmpeg keeps the last frame of a broken connection, at times
  times = [frame.time_sec for frame in frames]
  assert times[0] == 0
  assert (np.diff(times) > 0).all()
  assert stream.num_lost == 2
  assert [text.rpartition(": ")[2].partition(" after")[0] for text in said] == [
    "the connection is lost", "back", "the connection is lost", "given up, 1 s without a frame",
  ]  # fmt: skip
  assert stream.account.endswith("connection lost 2 times.")
  assert "live" not in {thread.name for thread in threading.enumerate()}


def test_the_newest_frame_wins(camera: _Server) -> None:
  """Whoever looks for ten frames' time sees the newest then, and the others are counted."""
  camera.connections = 1
  stream = Live(address(camera))
  frames = iter(stream)
  first = next(frame for frame in frames if frame)
  time.sleep(10 * REST_SEC)
  second = next(frame for frame in frames if frame)
  assert second.image.mean() - first.image.mean() >= 20 * 4  # a busy machine may be late
  assert stream.num_dropped >= 3
  rest = [frame for frame in frames if frame]
  assert stream.num_read == 2 + len(rest) + stream.num_dropped


def test_what_does_not_answer(camera: _Server) -> None:
  with pytest.raises(
    VideoError, match=r"live\.mjpg' cannot be opened: nothing answers there that OpenCV can read\. Is"
  ):
    Live(address(camera))
  with pytest.raises(VideoError, match=r"'97' cannot be opened: no camera of this number answers\."):
    Live("97")


def test_predict_looks_at_a_stream_until_it_ends(
  camera: _Server,
  model: str,  # noqa: F811
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  camera.connections = 3  # the first answers whether it is a photo
  place = address(camera, "live?user=me")
  assert (
    main(["predict", model, place, "--out", str(tmp_path), "--conf", "0.3", "--batch", "2", "--save", "json", "--json"])
    == 0
  )
  shown = capsys.readouterr()
  (row,) = json.loads(shown.out.splitlines()[-1])["videos"]
  lines = [json.loads(line) for line in (tmp_path / "videos" / Path(row["files"][0]).name).read_text().splitlines()]
  assert row["frames"] == len(lines) == row["read"] - row["dropped"] > 0
  assert (row["live"], row["connections_lost"]) == (True, 2)
  assert lines[-1]["dropped"] <= row["dropped"]
  assert f"prn predict: '{place}': the connection is lost after " in shown.err
  assert (
    f"'{place}': {row['dropped']} of {row['read']} frames dropped (the newest wins), connection lost 2 times."
    in shown.err
  )


# -- several at once -----------------------------------------------------------------------------------------------------


class _Script(Source):
  """Gives what it is told: numbers are frames, None is a moment without one."""

  def __init__(self, frames: list[int | None], fails: bool = False) -> None:
    self.place, self.fps, self.count, self._frames, self._fails = "script", 10.0, len(frames), frames, fails

  def frames(self) -> Iterator[Taken | None]:
    for number in self._frames:
      yield None if number is None else Taken(number, None, float(number))
    if self._fails:
      raise VideoError("broken")


def test_sources_take_turns_and_one_that_has_no_frame_holds_up_no_other() -> None:
  together = Together([_Script([1, None, 2, None, None, 3]), _Script([10, 20, None], fails=True), _Script([])])
  assert list(together.images()) == [1, 10, 20, 2, PAUSE, PAUSE, 3]
  assert [together.taken()[0] for _ in range(5)] == [0, 1, 1, 0, 0]
  assert {i: str(error) for i, error in together.failures.items()} == {1: "broken"}


# -- addresses -----------------------------------------------------------------------------------------------------------


def test_what_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, camera: _Server) -> None:
  monkeypatch.chdir(tmp_path)
  assert all(
    map(is_live, ["0", "rtsp://c/1", "/dev/video2", "http://c/x.m3u8", "https://c/a/video.mjpg?t=1", "http://c/a.mp4"])
  )
  assert not any(map(is_live, ["a.mp4", "http://c/photo.jpg", "http://c/live", "01.jpg"]))
  (tmp_path / "0").mkdir()
  Image.new("RGB", (9, 9)).save(tmp_path / "0" / "a.png")
  assert photos_and_videos(["0"]) == (["0/a.png"], [])
  camera.connections = 1
  assert answers_with_frames(address(camera, "live"))
  assert not answers_with_frames(address(camera, "no"))


def test_passwords_are_not_shown() -> None:
  assert without_password("rtsp://me:secret@cam/1") == "rtsp://me:***@cam/1"
  assert without_password("http://cam/a@b:c") == "http://cam/a@b:c"
