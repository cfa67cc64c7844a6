"""Curves on disk: every step once, in three formats, also when a run is taken up again."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prn_jax.train import log
from prn_jax.train.log import MetricsLog, Stopwatch, duration, last_evaluation, progress_line, read_metrics
from tests.conftest import REPO


def csv_rows(folder: Path) -> list[dict[str, str]]:
  with (folder / log.CSV).open() as file:
    return list(csv.DictReader(file))


def all_events(folder: Path) -> Iterator[Any]:
  """What the TensorBoard files hold, read by their documented format."""
  from tensorboardX.proto.event_pb2 import Event

  for path in sorted(folder.glob("events.out.tfevents.*")):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack("<Q", data[:8])
      yield Event.FromString(data[12 : 12 + length])
      data = data[12 + length + 4 :]


def events(folder: Path) -> list[tuple[int, str, float]]:
  """(step, tag, value) of the scalars."""
  return [(event.step, value.tag, value.simple_value) for event in all_events(folder) for value in event.summary.value]


def test_the_same_rows_in_all_formats(tmp_path: Path) -> None:
  writer = MetricsLog(tmp_path)
  writer.write(10, {"loss": 2.5, "learning_rate": 0.1})
  writer.write(10, {"eval/AP50": 0.25})
  writer.write(20, {"loss": float("nan"), "learning_rate": 0.05})
  writer.close()
  rows = csv_rows(tmp_path)
  assert [row["step"] for row in rows] == ["10", "10", "20"]
  assert rows[0] == {"step": "10", "loss": "2.5", "learning_rate": "0.1", "eval/AP50": ""}
  assert rows[1]["eval/AP50"] == "0.25"
  assert rows[2]["loss"] == "", "what is undefined is empty, not a word"
  lines = [json.loads(line) for line in (tmp_path / log.JSONL).read_text().splitlines()]
  assert lines == read_metrics(tmp_path)
  assert lines[2] == {"step": 20, "loss": None, "learning_rate": 0.05}
  assert (10, "train/loss", 2.5) in events(tmp_path)
  assert (10, "eval/AP50", 0.25) in events(tmp_path)


def test_pytorch_is_not_imported(tmp_path: Path) -> None:
  """tensorboardX imports it where it is installed: seconds at the start of each training, for nothing."""
  (tmp_path / "torch.py").write_text("raise SystemExit('imported')\n")
  code = """import sys, pathlib
from prn_jax.train.log import MetricsLog
writer = MetricsLog(pathlib.Path(sys.argv[1]))
writer.write(1, {"loss": 2.5})
writer.close()
assert "torch" not in sys.modules
"""
  env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPO}"}
  subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=env, check=True)
  assert events(tmp_path / "run") == [(1, "train/loss", 2.5)]


def test_an_evaluation_made_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
  writer = MetricsLog(tmp_path)
  writer.write(10, {"loss": 1.0})
  writer.write_evaluation(10, {"AP50": 0.1})
  writer.write_evaluation(10, {"mAP": 0.2})
  writer.write(20, {"loss": 0.5})
  writer.close()
  expected = [{"step": 10, "loss": 1.0}, {"step": 10, "eval/mAP": 0.2}, {"step": 20, "loss": 0.5}]
  assert read_metrics(tmp_path) == expected
  assert [(row["loss"], row["eval/mAP"]) for row in csv_rows(tmp_path)] == [("1.0", ""), ("", "0.2"), ("0.5", "")]


def test_taken_up_again_every_step_stands_once(tmp_path: Path) -> None:
  first = MetricsLog(tmp_path)
  for step in (10, 20, 30):
    first.write(step, {"loss": 1.0 / step})
  del first  # killed: nothing is closed
  with (tmp_path / log.JSONL).open("a") as file:
    file.write('{"step": 40, "lo')
  second = MetricsLog(tmp_path, start_step=20)
  second.write(30, {"loss": 0.5, "extra": 1.0})
  second.close()
  assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
  assert [(row["step"], row["loss"], row["extra"]) for row in csv_rows(tmp_path)][-1] == ("30", "0.5", "1.0")


@pytest.mark.parametrize(
  ("damage", "said"),
  [
    (b"\x80\x81", "is no text: byte 0 is no UTF-8"),
    (b'{"step": 15}{', "is no valid JSON: Extra data at column 13"),
    (b"[1]", "is [1]; expected keys with values"),
    (b'{"loss": 1}', "has no 'step'; it has 'loss'"),
    (b'{"step": 15, "loss": "low"}', ": loss is 'low'; expected a finite number"),
    (b'{"step": -1}', ": step is -1; expected a whole number from 0 to"),
    (b"9" * 5000, "holds a number of thousands of digits"),
    (b"[" * 99_999, "is nested too deeply"),
  ],
)
def test_damaged_metrics_are_told_and_set_aside(
  damage: bytes, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
  path = tmp_path / log.JSONL
  content = b'{"step": 10, "loss": 0.1}\n' + damage + b'\n{"step": 20, "loss": null}\n'
  path.write_bytes(content)
  writer = MetricsLog(tmp_path, start_step=20)
  writer.write(30, {"loss": 0.5})
  writer.close()
  assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == content
  assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(10, 0.1), (20, None), (30, 0.5)]
  assert f"metrics.jsonl', line 2,{'' if said[0] == ':' else ' '}" in caplog.text.replace(
    ":1 is no valid", " is no valid"
  )
  assert said in caplog.text
  assert "metrics.jsonl.damaged'; the 2 rows that can be read go on." in caplog.text
  caplog.clear()
  MetricsLog(tmp_path, start_step=30).close()
  assert not caplog.text


def test_a_second_damage_does_not_take_the_place_of_the_first(tmp_path: Path) -> None:
  for content in ("first\n", "second\n"):
    (tmp_path / log.JSONL).write_text(content)
    MetricsLog(tmp_path).close()
  assert (tmp_path / "metrics.jsonl.damaged").read_text() == "first\n"
  assert (tmp_path / "metrics.jsonl.damaged-2").read_text() == "second\n"


def test_a_few_pictures_reach_tensorboard(tmp_path: Path) -> None:
  folder = tmp_path / "examples"
  folder.mkdir()
  for i in range(log.NUM_PICTURES + 1):
    Image.new("RGB", (5, 4)).save(folder / f"{i}.jpg")
  writer = MetricsLog(tmp_path)
  writer.pictures(3, folder)
  writer.close()
  assert events(tmp_path) == [(3, f"examples/{i}", 0.0) for i in range(log.NUM_PICTURES)]
  writer = MetricsLog(tmp_path / "classifier")
  writer.pictures(3, tmp_path / "classifier" / "none")
  writer.close()
  assert events(tmp_path / "classifier") == []


def test_speed_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
  now = [100.0]
  monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
  watch = Stopwatch(batch_size=8, start_step=0, total_steps=100)
  now[0] += 14
  watch.waited(1.0)
  watch.paused(4.0)
  lap = watch.lap(20)
  assert lap["images_per_sec"] == pytest.approx(16.0)  # 20 steps of 8 images in 14 - 4 seconds
  assert lap["data_wait_frac"] == pytest.approx(0.1)
  assert lap["eta_sec"] == pytest.approx(40.0)  # 80 steps at 0.5 s
  now[0] += 5
  assert watch.lap(30)["images_per_sec"] == pytest.approx(16.0)


def test_line_of_progress() -> None:
  values = {"grad_norm": 3.0, "loss": 2.0, "objectness": 0.1, "learning_rate": 0.001}
  line = progress_line(1200, 5000, values | {"images_per_sec": 43.2, "data_wait_frac": 0.021, "eta_sec": 250.0})
  assert line == ("step 1,200/5,000  loss 2  grad_norm 3  learning_rate 0.001  43 images/s  data wait 2%  4 min left")
  assert duration(45) == "45 s"
  assert duration(600) == "10 min"
  assert duration(9000) == "2.5 h"


def starts(folder: Path) -> list[int]:
  """Steps from which on TensorBoard forgets what was there before."""
  from tensorboardX.proto.event_pb2 import SessionLog

  return [event.step for event in all_events(folder) if event.session_log.status == SessionLog.START]


def test_killed_before_its_first_checkpoint_tensorboard_shows_steps_once(tmp_path: Path) -> None:
  first = MetricsLog(tmp_path)
  first.write(10, {"loss": 1.0})
  first.close()
  assert starts(tmp_path) == []
  second = MetricsLog(tmp_path)
  second.write(10, {"loss": 2.0})
  second.close()
  assert starts(tmp_path) == [1]


def test_new_columns_close_the_file_they_replace(tmp_path: Path) -> None:
  writer = MetricsLog(tmp_path)
  writer.write(1, {"loss": 1.0})
  old = writer._csv
  writer.write(2, {"loss": 1.0, "extra": 2.0})
  assert old is not None
  assert old.closed
  writer.close()
  assert csv_rows(tmp_path)[1] == {"step": "2", "loss": "1.0", "extra": "2.0"}


def test_last_evaluation(tmp_path: Path) -> None:
  assert last_evaluation(tmp_path, 100) is None
  writer = MetricsLog(tmp_path)
  writer.write(10, {"eval/AP": 0.1, "eval/AP50": 0.2})
  writer.write(20, {"eval/AP": 0.3})
  writer.write(30, {"loss": 0.5})
  writer.write(40, {"eval/mAP": float("nan")})
  writer.close()
  assert last_evaluation(tmp_path, 9) is None
  assert last_evaluation(tmp_path, 19) == (10, {"AP": 0.1, "AP50": 0.2})
  assert last_evaluation(tmp_path, 39) == (20, {"AP": 0.3})
  found = last_evaluation(tmp_path, 40)
  assert found is not None
  assert np.isnan(found[1]["mAP"])
