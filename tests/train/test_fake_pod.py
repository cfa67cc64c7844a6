"""`prn train` on many hosts, imitated on this machine: the same batches and losses, and how a run survives its hosts."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest

from launch.fake_pod import Pod
from prn_jax.formats import darknet_cfg
from prn_jax.hosts.exit_codes import HOST_LOST, NO_START, PREEMPTED
from prn_jax.train.log import EVAL, read_metrics
from tests.conftest import REPO
from tests.nets import smooth_detector

RUN_SEC = 300.0
SMOOTH = ("--config.optim.learning_rate=3e-4", "--config.loss.head.ignore_thresh=1.0")  # see smooth_detector


@pytest.fixture(scope="session")
def detector_cfg(tmp_path_factory: pytest.TempPathFactory) -> Path:
  path = tmp_path_factory.mktemp("pod") / "smooth.cfg"
  path.write_text(darknet_cfg.dump(smooth_detector()))
  return path


def train(
  cfg: Path,
  workdir: Path,
  processes: int,
  devices: int,
  steps: int,
  *more: str,
  supervised: bool = False,
  slow: tuple[str, float] = ("", 0.0),
) -> Pod:
  supervisor = [sys.executable, "-m", "launch.supervise", "--max-restarts=5", "--backoff-sec=1", "--"]
  command = [
    *(supervisor if supervised else []), sys.executable, "-m", "tests.train.pod_program", "--config=default", f"--config.model={cfg}",
    "--config.data.train=synthetic:traffic:24", "--config.data.valid=synthetic:traffic:9@valid", "--config.batch_size=8",
    f"--config.total.steps={steps}", "--config.log_every.steps=1", "--config.checkpoint_every.steps=4",
    "--config.eval.conf=0.05", "--config.eval.num_pictures=0", "--config.data.cache_mb=50", *SMOOTH,
    "--config.hosts.silence_timeout_sec=10.0", f"--workdir={workdir}", *more,
  ]  # fmt: skip
  environ = dict(os.environ) | {
    "PYTHONPATH": str(REPO), "BATCH_LOG": f"{workdir}.batches", "PRN_JOIN_TIMEOUT_SEC": "120",
    "SLOW_COMPILE": slow[0], "SLOW_SEC": str(slow[1]),
  }  # fmt: skip
  return Pod(command, processes=processes, devices=devices, environ=environ, out=io.StringIO())


def rows(workdir: Path) -> dict[tuple[int, int], set[str]]:
  """(step, row of the global batch) -> hashes seen by any process, in any life of the run."""
  found: dict[tuple[int, int], set[str]] = {}
  for file in workdir.parent.glob(f"{workdir.name}.batches.*"):
    for line in file.read_text().splitlines():
      step, row, text = line.split()
      found.setdefault((int(step), int(row)), set()).add(text)
  return found


def evaluated(workdir: Path) -> list[tuple[int, str]]:
  """(record, hash) of every row of the evaluations, over all processes; record -1 is padding."""
  files = workdir.parent.glob(f"{workdir.name}.batches-eval.*")
  lines = [line.split() for file in files for line in file.read_text().splitlines()]
  return sorted((int(record), text) for record, text in lines)


def figures(workdir: Path) -> list[dict[str, float]]:
  rows = [{key: value for key, value in row.items() if key.startswith(EVAL)} for row in read_metrics(workdir)]
  return [row for row in rows if row]


def losses(workdir: Path) -> list[float]:
  return [row["loss"] for row in read_metrics(workdir) if "loss" in row]


@pytest.fixture(scope="session")
def alone(detector_cfg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A run of one process with four devices."""
  workdir = tmp_path_factory.mktemp("pod") / "alone"
  with train(detector_cfg, workdir, 1, 4, 12) as pod:
    assert pod.wait(timeout_sec=RUN_SEC) == {0: 0}, pod.lines
  return workdir


@pytest.mark.slow
def test_two_processes_train_like_one_device(detector_cfg: Path, tmp_path: Path) -> None:
  """Two processes with two devices each, and one device that has it all."""
  one, two = tmp_path / "one", tmp_path / "two"
  for workdir, processes, devices in ((one, 1, 1), (two, 2, 2)):
    with train(detector_cfg, workdir, processes, devices, 50) as pod:
      assert set(pod.wait(timeout_sec=RUN_SEC).values()) == {0}, pod.lines
  assert set(rows(one)) == {(step, row) for step in range(50) for row in range(8)}
  assert all(len(hashes) == 1 for hashes in rows(one).values())
  assert rows(two) == rows(one)
  assert len(losses(two)) == 50
  assert losses(two) == pytest.approx(losses(one), rel=1e-5)
  assert losses(one)[-1] < losses(one)[0] / 2  # it has learnt: equal losses say something
  # Nine images in batches of eight: one evaluation, each image once, seven rows of padding.
  assert [record for record, _ in evaluated(one)] == [-1] * 7 + list(range(9))
  assert evaluated(two) == evaluated(one)
  assert len(figures(one)) == 1
  assert figures(two) == [pytest.approx(row, rel=1e-5) for row in figures(one)]


@pytest.mark.slow
def test_killed_host_ends_the_other_and_the_run_goes_on(alone: Path, detector_cfg: Path, tmp_path: Path) -> None:
  workdir = tmp_path / "killed"
  with train(detector_cfg, workdir, 2, 2, 12) as pod:
    assert pod.wait_for_line("step 6/12  loss", RUN_SEC), pod.lines
    pod.processes[1].kill()
    codes = pod.wait(grace_sec=30.0)
    assert codes == {0: HOST_LOST, 1: 128 + signal.SIGKILL}, pod.lines
    assert any("process 1 (" in line and "is gone" in line for line in pod.lines), pod.lines
  with train(detector_cfg, workdir, 2, 2, 12) as pod:
    assert pod.wait(timeout_sec=RUN_SEC) == {0: 0, 1: 0}, pod.lines
    assert any("going on in" in line and "after step 4" in line for line in pod.lines), pod.lines
  # Both lives saw the batches of an undisturbed run, each step the same in either life.
  assert rows(workdir) == rows(alone)
  assert losses(workdir) == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.slow
def test_sigterm_to_one_host_saves_on_all_and_fewer_hosts_go_on(
  alone: Path, detector_cfg: Path, tmp_path: Path
) -> None:
  workdir = tmp_path / "preempted"
  with train(detector_cfg, workdir, 2, 2, 12) as pod:
    assert pod.wait_for_line("step 3/12  loss", RUN_SEC), pod.lines
    pod.processes[1].send_signal(signal.SIGTERM)
    assert pod.wait(timeout_sec=RUN_SEC) == {0: PREEMPTED, 1: PREEMPTED}, pod.lines
    assert any("asked to stop: saved step" in line for line in pod.lines), pod.lines
  with train(detector_cfg, workdir, 1, 4, 12) as pod:
    assert pod.wait(timeout_sec=RUN_SEC) == {0: 0}, pod.lines
  assert rows(workdir) == rows(alone)
  assert losses(workdir) == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the supervisor's child from /proc")
def test_supervised_hosts_go_on_by_themselves(alone: Path, detector_cfg: Path, tmp_path: Path) -> None:
  workdir = tmp_path / "supervised"
  with train(detector_cfg, workdir, 2, 2, 12, supervised=True) as pod:
    assert pod.wait_for_line("step 6/12  loss", RUN_SEC), pod.lines
    supervisor = pod.processes[0].pid  # of the coordinator: its death aborts JAX on the other host
    child = int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])
    os.kill(child, signal.SIGKILL)
    assert pod.wait(timeout_sec=RUN_SEC) == {0: 0, 1: 0}, pod.lines
  for process in (0, 1):
    assert any(line.startswith(f"[{process}] supervise: restart 1 of 5") for line in pod.lines), pod.lines
  assert rows(workdir) == rows(alone)
  assert losses(workdir) == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.slow
def test_processes_meet_after_compiling_however_long_one_of_them_takes(
  alone: Path, detector_cfg: Path, tmp_path: Path
) -> None:
  """Gloo waits 30 s. One process needs 35 s more for the first step of a run, and for that after a restart, when only
  process 0 finds the programs in its cache; then the other for the evaluation."""
  workdir = tmp_path / "slow"
  with train(detector_cfg, workdir, 2, 2, 12, slow=("1:", 35.0)) as pod:
    assert pod.wait_for_line("step 6/12  loss", RUN_SEC), pod.lines
    pod.signal(signal.SIGKILL)
    pod.wait()
  with train(detector_cfg, workdir, 2, 2, 12, slow=("1:0", 35.0)) as pod:
    assert pod.wait(timeout_sec=RUN_SEC) == {0: 0, 1: 0}, pod.lines
  assert rows(workdir) == rows(alone)
  assert losses(workdir) == pytest.approx(losses(alone), rel=1e-5)
  assert not (workdir / "starts.json").exists()


@pytest.mark.slow
def test_a_start_that_always_fails_the_same_way_is_given_up(detector_cfg: Path, tmp_path: Path) -> None:
  workdir = tmp_path / "never"
  limit = "--config.hosts.first_step_timeout_sec=10.0"
  with train(detector_cfg, workdir, 2, 1, 12, limit, supervised=True, slow=("1:", 600.0)) as pod:
    codes = pod.wait(timeout_sec=RUN_SEC)
    assert set(codes.values()) == {NO_START}, pod.lines
  for process in (0, 1):
    assert sum(line.startswith(f"[{process}] supervise: restart") for line in pod.lines) == 2, pod.lines
  said = "\n".join(pod.lines)
  assert "this was start number 3 in a row of this run that ended before its first step" in said
  assert "no progress for 10 s while waiting for the first step at 32x32" in said
  assert not (workdir / "starts.json").exists(), "the next start counts from one"
