"""The pod on one machine: environment, prefixes, endings."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from launch.fake_pod import pod_environ, worst
from tests.conftest import REPO


def fake_pod(*arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, "-m", "launch.fake_pod", *arguments],
    cwd=REPO, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip


def test_environment_and_prefixes() -> None:
  code = (
    "import os; print(os.environ['PRN_PROCESS_ID'], os.environ['PRN_NUM_PROCESSES'], os.environ['JAX_NUM_CPU_DEVICES'])"
  )
  done = fake_pod("--processes", "3", "--devices", "2", "--", sys.executable, "-c", code)
  assert done.returncode == 0, done
  assert sorted(done.stdout.splitlines()) == ["[0] 0 3 2", "[1] 1 3 2", "[2] 2 3 2"]
  assert done.stderr.strip() == "[pod] process 0: 0, process 1: 0, process 2: 0"


def test_number_of_the_process_in_the_command() -> None:
  done = fake_pod("--skip", "0", "--", sys.executable, "-c", "print('I am {process}')")
  assert done.stdout == "[1] I am 1\n"


def test_other_clusters_are_not_inherited() -> None:
  environ = {
    "SLURM_NTASKS": "4", "JAX_COORDINATOR_ADDRESS": "a:1", "PRN_PROCESS_ID": "9", "PRN_SHARED": "/data",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_dump_to=/tmp/x", "HOME": "/root",
  }  # fmt: skip
  assert pod_environ(environ, 1, 2, 3, 1234) == {
    "PRN_SHARED": "/data", "HOME": "/root", "XLA_FLAGS": "--xla_dump_to=/tmp/x", "PYTHONUNBUFFERED": "1",
    "PRN_COORDINATOR": "127.0.0.1:1234", "PRN_NUM_PROCESSES": "2", "PRN_PROCESS_ID": "1",
    "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "3",
  }  # fmt: skip


def test_survivors_are_killed_after_the_grace_time() -> None:
  code = "import sys, time; time.sleep(0.2 + 60 * {process}); sys.exit(2)"
  began = time.monotonic()
  done = fake_pod("--grace-sec", "0.5", "--", sys.executable, "-c", code)
  assert time.monotonic() - began < 20
  assert "[pod] process 1 is still there: killing it" in done.stdout
  assert done.stderr.strip() == "[pod] process 0: 2, process 1: 137"
  assert done.returncode == 137


def test_abort_counts_as_a_lost_host() -> None:
  done = fake_pod("--", sys.executable, "-c", "import os; os.abort()")
  assert done.returncode == 76


@pytest.mark.parametrize(
  ("codes", "expected"),
  [([], 0), ([0, 0], 0), ([0, 75], 75), ([75, 76], 76), ([76, 2, 76], 2), ([1, 76], 1), ([3, 2], 3), ([137, 3], 137)],
)
def test_worst_code(codes: list[int], expected: int) -> None:
  assert worst(codes) == expected


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "no command: python -m launch.fake_pod --processes 2 -- prn train"),
    (["--processes", "0", "--", "x"], "--processes 0 --devices 1: both must be at least 1"),
  ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
  done = fake_pod(*arguments)
  assert done.returncode == 2
  assert message in done.stderr
