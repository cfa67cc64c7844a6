"""The supervisor: exit codes, restarts, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import supervise
from prn_jax.hosts import exit_codes
from tests.conftest import REPO


def command(code: str, *options: str) -> list[str]:
  return [sys.executable, "-m", "launch.supervise", "--backoff-sec", "0.05", *options, "--", sys.executable, "-c", code]


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(command(code, *options), cwd=REPO, capture_output=True, text=True, timeout=60, check=False)


def start(code: str, *options: str) -> subprocess.Popen[str]:
  """A supervised program that has printed its first line."""
  process = subprocess.Popen(
    command(code, *options), cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout is not None
  assert process.stdout.readline() == "ready\n"
  return process


def test_codes_are_those_of_training() -> None:
  assert (supervise.HOST_LOST, supervise.PREEMPTED) == (exit_codes.HOST_LOST, exit_codes.PREEMPTED) == (76, 75)
  assert supervise.NO_START == exit_codes.NO_START == 78


NOTES = "import os; open(os.environ['PRN_EXIT_NOTE'], 'w').write('{word}'); os._exit(1)"


@pytest.mark.parametrize(
  ("code", "expected", "said"),
  [
    ("", 0, ""),
    ("raise SystemExit(2)", 2, "supervise: ended with exit code 2\n"),
    ("raise SystemExit(75)", 75, "supervise: ended with exit code 75\n"),
    ("import os; os.abort()", 76, "JAX lost its coordinator or another host"),
    ("raise SystemExit(134)", 76, "Counted as 76: run again"),
    ("raise SystemExit(1)", 1, "supervise: ended with exit code 1"),
    (NOTES.format(word="joined"), 76, "Counted as 76: run again"),
    (NOTES.format(word="ended"), 1, "supervise: ended with exit code 1"),
    ("import os; os.kill(os.getpid(), 9)", 137, "out of memory, or ended from outside"),
    ("import os; os.kill(os.getpid(), 11)", 139, "ended by SIGSEGV"),
  ],
)
def test_exit_codes(code: str, expected: int, said: str) -> None:
  done = run(code)
  assert done.returncode == expected, done
  assert said in done.stderr


FAILS_TWICE = """
import os, pathlib, sys
marks = pathlib.Path(os.environ['MARKS'])
number = len(list(marks.iterdir()))
(marks / str(number)).touch()
os.abort() if number < 2 else sys.exit(0)
"""


def test_restarts_until_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("MARKS", str(tmp_path))
  done = run(FAILS_TWICE, "--max-restarts", "5")
  assert done.returncode == 0, done
  assert len(list(tmp_path.iterdir())) == 3
  assert "restart 1 of 5 in 0.05 s" in done.stderr
  assert "restart 2 of 5 in 0.1 s" in done.stderr


def test_restarts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("MARKS", str(tmp_path))
  assert run(FAILS_TWICE, "--max-restarts", "1").returncode == 76
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("code", [1, 2, 3, 75])
def test_no_restart_where_it_would_not_help(code: int) -> None:
  done = run(f"raise SystemExit({code})", "--max-restarts", "3")
  assert done.returncode == code
  assert "restart" not in done.stderr


SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number: int) -> None:
  process = start(SAVES.replace("SIGTERM", signal.Signals(number).name), "--max-restarts", "3")
  process.send_signal(number)
  _, errors = process.communicate(timeout=30)
  assert process.returncode == 75
  assert "restart" not in errors


def test_no_restart_after_a_signal() -> None:
  code = SAVES.replace("sys.exit(75)", "__import__('os').abort()")
  process = start(code, "--max-restarts", "3")
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate(timeout=30)
  assert process.returncode == 76
  assert "restart 1" not in errors


def test_signal_during_the_pause_ends_it() -> None:
  process = start("print('ready', flush=True); __import__('os').abort()", "--max-restarts", "3", "--backoff-sec", "60")
  time.sleep(1.0)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=30)
  assert process.returncode == 75


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal for a parent's death is Linux's own")
def test_child_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
  code = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))" + SAVES
  process = start(code)
  child = int((tmp_path / "pid").read_text())
  process.kill()
  process.communicate(timeout=30)  # the child held the pipes: they close when it ends
  deadline = time.monotonic() + 10
  while _alive(child) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not _alive(child)


def _alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_command_that_does_not_exist() -> None:
  done = subprocess.run(
    [sys.executable, "-m", "launch.supervise", "--", "no-such-program"],
    cwd=REPO, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert done.returncode == 127
  assert "cannot start the command: [Errno 2] No such file or directory: 'no-such-program'" in done.stderr


def test_no_command() -> None:
  done = subprocess.run(
    [sys.executable, "-m", "launch.supervise"], cwd=REPO, capture_output=True, text=True, timeout=60, check=False
  )
  assert done.returncode == 2
  assert "no command: python -m launch.supervise -- prn train" in done.stderr


def test_parent_needs_neither_jax_nor_the_package() -> None:
  code = "import sys, launch.supervise; print(sorted(m for m in sys.modules if m.split('.')[0] in ('jax', 'prn_jax')))"
  done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True, timeout=60)
  assert done.stdout.strip() == "[]"
