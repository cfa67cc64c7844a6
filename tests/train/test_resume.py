"""A run that is killed, asked to stop, or moved to other devices is the run that was never interrupted.

Real processes run `prn train` on a small detector, with everything that has a state or a random number: mosaic, colour
and crops, two input sizes, momentum, running averages.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prn_jax.formats import darknet_cfg
from prn_jax.hosts.exit_codes import PREEMPTED
from prn_jax.train.checkpoint import load_params
from tests.conftest import REPO
from tests.nets import smooth_detector

pytestmark = pytest.mark.slow
STEPS = 30
KILLS = int(os.environ.get("PRN_KILLS", "2"))

CONFIG = f"""
from prn_jax.configs import default

def get_config():
  config = default.get_config("detect")
  config.data.train = "synthetic:traffic:24"
  config.data.cache_mb = 50
  config.model = "{{cfg}}"
  config.batch_size = 8
  config.total.steps = {STEPS}
  config.checkpoint_every.steps = 7
  config.log_every.steps = 1
  config.sizes, config.resize_every_steps = ((64, 32),), 5
  config.augment.mosaic, config.augment.jitter, config.augment.hue = True, 0.3, 0.1
  config.optim.learning_rate, config.optim.ema_decay = 3e-4, 0.9
  config.loss.head = {{{{"ignore_thresh": 1.0}}}}
  return config
"""


@dataclasses.dataclass
class Run:
  """A run directory, and what was observed of the processes that worked in it."""

  workdir: Path
  config: Path
  cache: Path

  @property
  def batch_log(self) -> Path:
    return self.workdir.with_suffix(".batches")

  def start(self, devices: int = 1) -> subprocess.Popen[str]:
    env = os.environ | {
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
      "BATCH_LOG": str(self.batch_log),
      "JAX_COMPILATION_CACHE_DIR": str(self.cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "tests.train.train_program", f"--config={self.config}"]
    return subprocess.Popen(
      [*command, f"--workdir={self.workdir}", "--json"],
      cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

  def finish(self, devices: int = 1) -> str:
    """Runs to the end; the sha256 of the parameters."""
    out, err = self.start(devices).communicate(timeout=300)
    assert out, err
    result = json.loads(out.splitlines()[-1])
    assert (result["reason"], result["step"]) == ("done", STEPS), err
    return result["params_sha256"]

  def wait_for_step(self, process: subprocess.Popen[str], step: int) -> None:
    """Returns when batch `step` has gone to the devices."""
    deadline = time.monotonic() + 300
    while step not in self.batches():
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < deadline, f"no step {step} in 300 s"
      time.sleep(0.002)

  def batches(self) -> dict[int, str]:
    """Step -> sha256 of its batch; a step that was done twice must have seen the same one."""
    found: dict[int, str] = {}
    text = self.batch_log.read_text() if self.batch_log.is_file() else ""
    for line in text.splitlines(keepends=True):
      if line.endswith("\n"):  # not one that a kill has cut
        step, value = line.split()
        assert found.setdefault(int(step), value) == value, f"step {step} saw two different batches"
    return found

  def losses(self) -> list[float]:
    """Of the steps 1 to STEPS; each is there once, also after interruptions."""
    rows = [json.loads(line) for line in (self.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("resume")
  (folder / "net.cfg").write_text(darknet_cfg.dump(smooth_detector()))
  (folder / "config.py").write_text(CONFIG.format(cfg=folder / "net.cfg"))
  return folder


def new_run(folder: Path, name: str) -> Run:
  return Run(folder / name, folder / "config.py", folder / "cache")


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> tuple[Run, str]:
  """The run on one device that nothing disturbs, and the sha256 of its parameters."""
  run = new_run(folder, "uninterrupted")
  return run, run.finish()


def test_kill_and_restart_is_bit_identical(folder: Path, uninterrupted: tuple[Run, str]) -> None:
  reference, digest = uninterrupted
  run, rng = new_run(folder, "killed"), np.random.default_rng()  # another place every time; it must not matter
  kills = sorted(rng.choice(np.arange(1, STEPS - 2), KILLS, replace=False).tolist())
  for step in kills:
    process = run.start()
    run.wait_for_step(process, step)
    time.sleep(rng.uniform(0, 0.03))
    process.kill()
    process.communicate()
  assert run.finish() == digest, f"killed at steps {kills}"
  assert run.batches() == reference.batches()
  assert run.losses() == reference.losses()
  averaged, _ = load_params(run.workdir, "latest")  # the running averages too
  expected, _ = load_params(reference.workdir, "latest")
  for layer, arrays in averaged["params"].items():
    for (path, ours), theirs in zip(leaves(arrays), leaves(expected["params"][layer]), strict=True):
      np.testing.assert_array_equal(ours, theirs[1], err_msg=f"{layer}/{path}, killed at steps {kills}")


def leaves(tree: dict) -> list[tuple[str, np.ndarray]]:
  from prn_jax.network import flatten_variables

  return sorted(flatten_variables(tree).items())


def test_sigterm_saves_and_another_number_of_devices_goes_on(folder: Path, uninterrupted: tuple[Run, str]) -> None:
  """Any number of devices sees the same batches and comes to the same losses, also where it changes in between."""
  reference, _ = uninterrupted
  run = new_run(folder, "stopped")
  for devices, step in ((2, 8), (8, 20)):
    process = run.start(devices)
    run.wait_for_step(process, step)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == PREEMPTED, err
    _, meta = load_params(run.workdir, "latest")
    assert f"saved step {meta['step']}" in err
    assert step <= meta["step"] <= max(run.batches()) + 1  # no step that was computed is lost
  run.finish(1)
  assert run.batches() == reference.batches()
  assert len(run.batches()) == STEPS
  assert run.losses()[-1] < run.losses()[0] / 2  # it has learnt: equal losses say something
  np.testing.assert_allclose(run.losses(), reference.losses(), rtol=1e-5, atol=0)
