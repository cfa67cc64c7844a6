"""Full and closed streams, Ctrl-C, a full disk: one line, the documented code, and nothing is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prn_jax.cli.main import disk_problem
from prn_jax.errors import PrnError
from prn_jax.hosts.exit_codes import PREEMPTED
from tests.conftest import REPO
from tests.nets import random_model

PRN = [sys.executable, "-m", "prn_jax.cli.main"]
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")


def shell(command: str) -> subprocess.CompletedProcess[str]:
  """A line of a shell in which "prn" is the command."""
  line = command.replace("prn", " ".join(PRN), 1)
  env = os.environ | {"PYTHONPATH": str(REPO)}
  return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, check=False)


@needs_dev_full
@pytest.mark.parametrize("command", ["summary yolov3-tiny-prn", "models --json", "--help"])
def test_a_full_stdout_is_said_in_a_line(command: str) -> None:
  done = shell(f"prn {command} > /dev/full")
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == "prn: cannot write to standard output: No space left on device."
  assert "Traceback" not in done.stderr


@needs_dev_full
def test_a_full_stderr_changes_nothing() -> None:
  done = shell("prn summary nosuch 2> /dev/full")
  assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
  done = shell("prn summary yolov4 | head -1; exit ${PIPESTATUS[0]}")
  assert done.returncode == 0
  assert done.stdout.split()[:2] == ["layer", "kind"]
  assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_not_given_to_files(closed: str, tmp_path: Path) -> None:
  done = shell(f"prn convert yolov3-tiny-prn {tmp_path / 'x.cfg'} {closed}")
  assert done.returncode == 0
  assert (tmp_path / "x.cfg").read_text().startswith("# network = yolov3-tiny-prn\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_found_behind_other_errors(number: int) -> None:
  inner = OSError(number, os.strerror(number), "runs/mine/x.bin")
  assert disk_problem(inner).startswith(f"cannot write 'runs/mine/x.bin': {os.strerror(number)}. Free some space")
  outer = ValueError("the checkpoint failed")
  outer.__cause__ = inner
  assert os.strerror(number) in disk_problem(outer)
  assert os.strerror(number) in disk_problem(RuntimeError(f"RESOURCE_EXHAUSTED: {os.strerror(number)} while writing"))
  assert disk_problem(ValueError("something else")) == ""


def test_a_folder_for_which_the_disk_has_no_room_is_refused_before(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
  with pytest.raises(PrnError, match=r"m': No space left on device\. It takes \d+\.\d MB, and 0\.0 MB are free"):
    random_model().save(tmp_path / "m")
  assert not (tmp_path / "m").exists()


def interrupted(args: list[str], delay_sec: float, again_sec: float | None = None) -> tuple[int, float, str]:
  """Exit code, seconds from the (last) Ctrl-C to the end, and stderr of a command that gets Ctrl-C."""
  env = os.environ | {"PYTHONPATH": str(REPO)}
  before = signal.signal(
    signal.SIGINT, signal.default_int_handler
  )  # a suite in the background ignores it, and so would its children
  process = subprocess.Popen(
    [*PRN, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env
  )
  signal.signal(signal.SIGINT, before)
  try:
    for delay in (delay_sec, again_sec):
      if delay is not None and process.poll() is None:
        time.sleep(delay)
        began = time.perf_counter()
        os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to the whole group
    _, text = process.communicate(timeout=120)
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  return process.returncode, time.perf_counter() - began, text


def check_ended(code: int, seconds: float, text: str) -> None:
  assert code == 130, text
  assert seconds < 10, text  # 2 s and the time that a busy machine takes
  assert "Traceback" not in text
  assert text.splitlines()[-1] == "prn: interrupted"
  assert text.count("interrupted") == 1


@pytest.mark.slow
@pytest.mark.parametrize("delay_sec", [0.7, 1.5, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("again_sec", [None, 0.2])
def test_ctrl_c_in_predict_prints_one_line(tmp_path: Path, delay_sec: float, again_sec: float | None) -> None:
  model = random_model()
  model.save(tmp_path / "n.cfg")
  model.save(tmp_path / "n.weights")
  photos = tmp_path / "photos"
  photos.mkdir()
  from PIL import Image

  for i in range(2000):
    Image.new("RGB", (32, 32), (i % 256, 99, 0)).save(photos / f"{i}.png")
  args = ["predict", f"{tmp_path}/n.cfg", str(photos), "--weights", f"{tmp_path}/n.weights", "--out", f"{tmp_path}/out"]
  code, seconds, text = interrupted(args, delay_sec, again_sec)
  if code not in (0, -signal.SIGINT):  # else it was done, and Python about to end
    check_ended(code, seconds, text)
  if again_sec is None and (tmp_path / "out" / "images").is_dir():
    assert (tmp_path / "out" / "predictions.json").is_file()  # what was found before


@pytest.mark.slow
@pytest.mark.parametrize("delay_sec", [1.0, 4.0, 8.0])
def test_ctrl_c_before_the_first_step_of_a_training_ends_it(tmp_path: Path, delay_sec: float) -> None:
  args = ["train", "--config=demo", f"--workdir={tmp_path / 'run'}"]
  code, seconds, text = interrupted(args, delay_sec)
  if code != PREEMPTED:  # else this machine was past the first step: saved, as it says
    check_ended(code, seconds, text)


@pytest.mark.slow
@pytest.mark.parametrize("delay_sec", [2.0, 6.0])
def test_ctrl_c_in_convert(tmp_path: Path, delay_sec: float) -> None:
  model = random_model()
  model.save(tmp_path / "n.cfg")
  model.save(tmp_path / "n.weights")
  args = ["convert", f"{tmp_path}/n.cfg", "--weights", f"{tmp_path}/n.weights", f"{tmp_path}/out/"]
  code, seconds, text = interrupted(args, delay_sec)
  if code not in (0, -signal.SIGINT):  # else it was done, and Python about to end
    check_ended(code, seconds, text)


def test_ctrl_c_raises_nothing_into_an_import(tmp_path: Path) -> None:
  (tmp_path / "aborts.py").write_text(
    "import os, signal\ntry:\n  signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n  os.abort()  # as jaxlib\n"
  )
  heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # see `interrupted`
  code = f"{heard}from prn_jax import interrupts\ninterrupts.install()\nwith interrupts.in_order():\n  import aborts"
  env = os.environ | {"PYTHONPATH": f"{REPO}{os.pathsep}{tmp_path}"}
  ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
  assert (ended.returncode, ended.stderr) == (130, "prn: interrupted\n")
