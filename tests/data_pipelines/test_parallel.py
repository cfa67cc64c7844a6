"""Worker processes: what signals do to them, and what becomes of them when their parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from prn_jax.data_pipelines.parallel import OrderedMap
from tests.conftest import REPO

PROGRAM = """
  import multiprocessing, sys, time
  import numpy as np
  from prn_jax.data_pipelines.parallel import OrderedMap

  def make(i):
    time.sleep(0.01)
    return np.full(3, i)

  if __name__ == "__main__":
    with OrderedMap(make, 0, 40, num_threads=1, buffer=1, num_workers=2) as items:
      found = [int(next(items)[0]), int(next(items)[0])]
      print(*[child.pid for child in multiprocessing.active_children()], flush=True)
      sys.stdin.readline()
      print(*found, *[int(item[0]) for item in items])
"""


@pytest.fixture
def program(tmp_path: Path) -> subprocess.Popen[str]:
  """A program that has read two items from two workers, printed their process ids, and waits."""
  script = tmp_path / "program.py"
  script.write_text(textwrap.dedent(PROGRAM))
  pipe = subprocess.PIPE
  return subprocess.Popen(
    [sys.executable, "-W", "error", script], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)}, stdin=pipe,
    stdout=pipe, stderr=pipe, text=True,
  )  # fmt: skip


def workers_of(program: subprocess.Popen[str]) -> list[int]:
  assert program.stdout is not None
  line = program.stdout.readline()
  found = [int(word) for word in line.split()]
  assert len(found) == 2, line
  return found


def test_signals_to_the_group_leave_workers_at_work(program: subprocess.Popen[str]) -> None:
  for worker in workers_of(program):
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGINT)
  out, err = program.communicate("go on\n", timeout=60)
  assert [int(word) for word in out.split()] == list(range(40))
  assert (program.returncode, err) == (0, "")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_signals_to_workers_that_still_import_leave_them_at_work(program: subprocess.Popen[str]) -> None:
  end = time.monotonic() + 60
  while not (new := [pid for pid in children_of(program.pid) if "spawn_main" in command_of(pid)]):
    assert time.monotonic() < end
    time.sleep(0.005)
  for number in (signal.SIGINT, signal.SIGTERM):
    os.kill(new[0], number)
  workers_of(program)
  out, err = program.communicate("go on\n", timeout=60)
  assert [int(word) for word in out.split()] == list(range(40))
  assert (program.returncode, err) == (0, "")


def children_of(pid: int) -> list[int]:
  return [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()]


def command_of(pid: int) -> str:
  try:
    return Path(f"/proc/{pid}/cmdline").read_text()
  except (FileNotFoundError, ProcessLookupError):
    return ""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(program: subprocess.Popen[str]) -> None:
  workers = workers_of(program)
  program.kill()
  program.communicate(timeout=60)
  end = time.monotonic() + 20
  while any(_lives(worker) for worker in workers) and time.monotonic() < end:
    time.sleep(0.05)
  assert not any(_lives(worker) for worker in workers)


def _lives(pid: int) -> bool:
  """Whether a process runs; one that nobody has waited for yet does not."""
  try:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
  except (FileNotFoundError, ProcessLookupError):
    return False


def test_threads_alone_keep_the_order() -> None:
  with OrderedMap(lambda i: i * i, 3, 9, num_threads=3, buffer=2) as items:
    assert list(items) == [i * i for i in range(3, 9)]
