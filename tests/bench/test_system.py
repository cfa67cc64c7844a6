"""`prn bench --system`: what it measures and prints, and that the stages do run side by side."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.bench.system import STAGES, SYSTEMS, Speeds, table
from prn_jax.cli.main import main
from prn_jax.run.images import stream
from prn_jax.track.behind import Behind
from tests.track.test_predict_video import model  # noqa: F401 a fixture
from tests.track.test_video import make_video

SLEEP_SEC, NUM = 0.02, 20


class _Sleeper:
  """A network of which every part takes its time, and no core."""

  batch_size = 1

  def prepare(self, image: np.ndarray) -> np.ndarray:
    time.sleep(SLEEP_SEC)
    return image

  def results(self, prepared: list[Any], images: list[Any], paths: list[Any]) -> list[Any]:
    time.sleep(SLEEP_SEC)
    return prepared


def test_stages_run_side_by_side() -> None:
  """Three stages of 20 ms: 60 ms a frame in turn, and a little more than 20 side by side."""
  behind, done = Behind("test"), []

  def write(result: Any) -> None:
    time.sleep(SLEEP_SEC)
    done.append(result)

  began = time.perf_counter()
  for result in stream(_Sleeper(), [np.zeros((4, 4, 3), np.uint8)] * NUM):  # type: ignore[arg-type]
    behind.do(lambda result=result: write(result))  # type: ignore[misc]
  behind.finish()
  took = time.perf_counter() - began
  assert len(done) == NUM
  assert took < 0.7 * 3 * SLEEP_SEC * NUM


def test_work_behind_that_fails_is_told_and_holds_nobody_up() -> None:
  behind, done = Behind("test"), []

  def fail() -> None:
    raise OSError("disk full")

  behind.do(fail)
  with pytest.raises(OSError, match="disk full"):  # noqa: PT012 at the next piece, or one of those after it
    for i in range(100):
      behind.do(lambda i=i: done.append(i))  # type: ignore[misc]
      time.sleep(0.005)
  behind.finish()
  assert not done


def test_what_limits_the_whole() -> None:
  """By hand: one thread has network, boxes and tracking, 20 + 4 + 1 = 25 ms; the whole takes 50 and 80 ms of cores."""
  alone = dict.fromkeys(STAGES, 0.001) | {"network": 0.020, "boxes": 0.004, "visualise": 0.010}
  speeds = Speeds(alone, dict.fromkeys(SYSTEMS, 0.050), dict.fromkeys(SYSTEMS, 0.080), 3.0)
  assert speeds.slowest() == ("network+boxes+tracking", pytest.approx(0.025))
  told = speeds.to_dict()
  assert told["of_slowest"] == pytest.approx(0.5)
  assert told["busy_cores"] == pytest.approx(1.6)
  assert told["in_turn_fps"] == pytest.approx(1 / 0.038)
  assert table({"net": speeds}).splitlines()[-1] == (
    "net: the slowest thread alone (network+boxes+tracking) 40.0, the whole path 20.0 (50% of it), all stages in turn 26.3; "
    "1.6 cores busy, 3.0 boxes a frame"
  )


def test_bench_measures_a_video(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
  pytest.importorskip("cv2", reason="needs OpenCV: pip install 'prn-jax[video]'")
  given = ["bench", "--system", model, str(make_video(tmp_path / "a.mp4")), "--rounds", "1", "--frames", "6"]
  assert main([*given, "--conf", "0.3", "--batch", "2", "--json"]) == 0
  said = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert (said["frames"], said["batch"]) == (6, 2)
  (found,) = said["networks"].values()
  assert set(found["stages_fps"]) == set(STAGES)
  assert set(found["systems_fps"]) == set(SYSTEMS)
  assert all(fps > 0 for fps in (*found["stages_fps"].values(), *found["systems_fps"].values()))


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ([], "nothing to measure: give --system, for the whole path from a video to a count."),
    (["--system"], "got nothing; expected MODEL, perhaps more of them, and a video or a folder of photos."),
    (["--system", "m"], "got m; expected MODEL, perhaps more of them, and a video or a folder of photos."),
    (["--system", "m", "0"], "'0' sets its own pace, so nothing can be measured with it; give a video file or a folder of photos."),
    (["--system", "m", "n", "a", "--weights", "w"], "--weights w: 2 networks cannot share weights; measure one at a time."),
    (["--system", "m", "a", "--rounds", "0"], "--rounds 0: expected at least 1."),
    (["--system", "m", "nosuch"], "'nosuch' does not exist."),
  ],
)  # fmt: skip
def test_what_bench_refuses(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["bench", *given]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == f"prn bench: {message}"
