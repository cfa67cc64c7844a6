"""Counts while a video runs: equal to those of its tracks, and to themselves after any kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prn_jax.cli.main import main
from prn_jax.examples import example_image
from prn_jax.track import event_log
from tests.conftest import REPO

KILLS = int(os.environ.get("PRN_KILLS", "5"))  # more of them make the drill longer
SCENE = """lines:
  - {name: first, from: [200, 0], to: [200, 400], forward: left, backward: right}
  - {name: second, from: [400, 0], to: [400, 400], forward: left, backward: right}
movements:
  - {name: through, from: first right, to: second right}
zones:
  - {name: middle, corners: [[200, 0], [400, 0], [400, 400], [200, 400]]}
"""


def drive(path: Path, num_frames: int, seed: int = 0) -> Path:
  """Detections of many objects that drive right and left at their own speeds; some wait; a fifth is missing, a few are false."""
  rng = np.random.default_rng(seed)
  lines = []
  for lane in range(5):
    x, speed = -40.0, 4.0
    for frame in range(1, num_frames + 1):
      if x > 640 or frame == 1:
        x, speed = -40.0 - rng.uniform(0, 80), rng.uniform(3, 9)
      x += 0 if 280 < x < 290 and frame % 200 < 90 else speed
      if rng.random() > 0.2:
        left = x if lane % 2 else 600 - x
        noise = rng.normal(0, 1, 2)
        lines.append(
          (frame, left + noise[0], 70 * lane + noise[1], rng.uniform(0.3, 1), 3 if rng.random() < 0.8 else 8)
        )
      if rng.random() < 0.01:
        lines.append((frame, rng.uniform(0, 600), rng.uniform(0, 360), 0.6, 1))
  path.write_text("".join(f"{f},-1,{x:.2f},{y:.2f},40,30,{s:.3f},{c},-1,-1\n" for f, x, y, s, c in sorted(lines)))
  return path


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("road")
  (folder / "s.yaml").write_text(SCENE)
  drive(folder / "det.txt", 250)
  return folder


def live(road: Path, out: Path, *more: str, det: str = "det.txt") -> list[str]:
  return ["count", str(out), "--scene", str(road / "s.yaml"), "--detections", str(road / det), *more]


def what_happened(log: Path) -> list[tuple[object, ...]]:
  rows = event_log.read(log).events
  return sorted(tuple(str(row.get(key)) for key in sorted(row) if key != "event") for row in rows)


@pytest.mark.parametrize("tracker", ["bytetrack", "ocsort", "sort"])
def test_a_live_count_is_that_of_the_tracks(
  road: Path, tmp_path: Path, tracker: str, capsys: pytest.CaptureFixture[str]
) -> None:
  """All events in all their parts, though they come in another order; and the tables, byte for byte."""
  assert main([*live(road, tmp_path / "live", "--tracker", tracker, "--interval", "5")]) == 0
  tracks = ["track", "--detections", str(road / "det.txt"), str(tmp_path / "t.txt"), "--tracker", tracker]
  assert main([*tracks, "--save", "jsonl"]) == 0
  scene = ["--scene", str(road / "s.yaml"), "--interval", "5"]
  assert main(["count", str(tmp_path / "after"), "--tracks", str(tmp_path / "t.jsonl"), *scene]) == 0
  found = what_happened(tmp_path / "live" / event_log.NAME)
  assert found == what_happened(tmp_path / "after" / event_log.NAME)
  assert len(found) > 60
  for name in ("counts.csv", "zones.csv"):
    assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()
  capsys.readouterr()


def test_events_are_in_the_log_while_the_video_runs(road: Path, tmp_path: Path) -> None:
  """Every object that is over is there when the next frame comes, whatever happens then."""
  from prn_jax.track import scene
  from prn_jax.track.count_live import LiveCount

  path = tmp_path / event_log.NAME
  with event_log.Writer(path, {}) as log:
    counting = LiveCount(scene.read(road / "s.yaml"), log, max_lost_sec=0.2, fps=10)
    for frame in range(1, 40):
      x = 100 + 10.0 * frame
      rows = [{"id": 1, "box_xyxy_px": [x, 0, x + 40, 30], "score": 0.9, "class": 3}] if x < 300 else []
      counting.add(rows, frame, frame / 10)
      kinds = [json.loads(line).get("kind") for line in path.read_text().splitlines()]
      assert ("line" in kinds) == (frame >= 19 + 5)  # last seen in frame 19; 0.2 s and two frames later it is over


@pytest.mark.slow
def test_a_count_that_is_killed_at_any_time_ends_as_if_it_were_not(road: Path, tmp_path: Path) -> None:
  """SIGKILL at random instants of one count, each time started again: its log is that of a count nobody disturbed, byte for
  byte, and so are its tables."""
  drive(road / "long.txt", 700, seed=3)
  env = os.environ | {"PYTHONPATH": str(REPO)}

  def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prn_jax", *live(road, out, det="long.txt")]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

  began = time.monotonic()
  assert start(tmp_path / "whole").wait() == 0
  whole_sec = time.monotonic() - began
  rng, killed, sizes = random.Random(KILLS), 0, []
  log = tmp_path / "out" / event_log.NAME
  while killed < KILLS:
    process = start(tmp_path / "out")
    time.sleep(rng.uniform(0.3, 1) * whole_sec)
    process.send_signal(signal.SIGKILL)
    killed += process.wait() == -signal.SIGKILL
    sizes.append(log.stat().st_size if log.exists() else 0)
    if sizes[-1] == (tmp_path / "whole" / event_log.NAME).stat().st_size:
      log.unlink()  # it had ended: begin anew
  assert start(tmp_path / "out").wait() == 0
  assert any(sizes)
  for name in (event_log.NAME, "counts.csv", "zones.csv"):
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_network_counts_frames_as_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """What stands still crosses nothing, and is in the zone all the time; the second run finds it there. Another setting is another count."""
  picture = Path(example_image()).read_bytes()
  for number in (1, 2, 3, 4, 10):
    (tmp_path / f"{number}.jpg").write_bytes(picture if number != 4 else b"no picture")
  scene = tmp_path / "s.yaml"
  scene.write_text("zones:\n  - {name: all, corners: [[-9, -9], [4000, -9], [4000, 4000], [-9, 4000]]}\n")
  given = ["count", "traffic-tiny-prn", str(tmp_path), str(tmp_path / "out"), "--scene", str(scene)]
  given[2:3] = [str(tmp_path / "list.txt")]
  (tmp_path / "list.txt").write_text("".join(f"{tmp_path / f'{n}.jpg'}\n" for n in (1, 2, 3, 4, 10)))
  assert main([*given, "--json"]) == 0
  shown = capsys.readouterr()
  found = json.loads(shown.out.splitlines()[-1])
  zone = found["zones"][0]
  assert (zone["name"], zone["came"], zone["left"]) == ("all", 0, 0)
  assert zone["began_inside"] == zone["ended_inside"] == found["tracks"] >= 3
  assert zone["occupied_share"] == 1.0
  assert "4.jpg" in shown.err
  assert {row["class_name"] for row in found["totals"]} <= {"car", "bus", "truck", "motorcycle", "person"}
  assert main([*given, "--conf", "0.6"]) == 2
  assert "is not of this count" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (["out"], "got out; expected MODEL, a video or a folder of frames, and OUT; or OUT and one of --tracks FILE, --detections FILE and --check FRAME, to see the scene."),
    (["m", "v", "out", "--tracks", "t.txt"], "got m v out; expected OUT alone with --tracks."),
    (["out", "--tracks", "t.txt", "--detections", "d.txt"], "--tracks and --detections: each says what to count in place of the others; give one."),
    (["out", "--detections", "nosuch.txt"], "nosuch.txt cannot be read: No such file or directory."),
    (["out", "--detections", "nosuch.txt", "--tracker", "x"], "unknown tracker 'x'; expected one of bytetrack, ocsort, sort."),
  ],
)  # fmt: skip
def test_what_count_refuses(
  given: list[str], message: str, road: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(road)
  assert main(["count", "--scene", "s.yaml", *given]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == f"prn count: {message}"
  assert not (road / "out").exists()
