"""A run whose directory lies in a bucket, killed at any write and with a store that fails, is the run that nothing disturbed.

Real processes run `prn train` against an object store on this machine. `PRN_BUCKET_KILLS=50` makes the drill longer.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prn_jax.formats import darknet_cfg
from prn_jax.hosts.exit_codes import BAD_INPUT, HOST_LOST
from tests.conftest import REPO
from tests.nets import smooth_detector
from tests.object_store import BUCKET, Faults, ObjectStore, environment, serving

pytestmark = pytest.mark.slow
STEPS = 12
KILLS = int(os.environ.get("PRN_BUCKET_KILLS", "2"))

CONFIG = f"""
from prn_jax.configs import default

def get_config():
  config = default.get_config("detect")
  config.data.train, config.data.valid = "synthetic:traffic:24", "synthetic:traffic:4"
  config.data.cache_mb = 50
  config.model = "{{cfg}}"
  config.batch_size = 8
  config.total.steps = {STEPS}
  config.checkpoint_every.steps, config.eval.every.steps, config.log_every.steps = 4, 6, 1
  config.eval.num_pictures = 2
  config.augment.mosaic, config.augment.jitter = True, 0.3
  config.optim.learning_rate, config.optim.ema_decay = 3e-4, 0.9
  config.loss.head = {{{{"ignore_thresh": 1.0}}}}
  return config
"""


@dataclasses.dataclass
class Cloud:
  """A store, and how `prn train` is run on it."""

  store: ObjectStore
  config: Path
  cache: Path
  bucket: str = BUCKET

  def start(self, name: str, program: str = "tests.train.blank") -> subprocess.Popen[str]:
    env = os.environ | environment(self.store) | {
      "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
      "JAX_COMPILATION_CACHE_DIR": str(self.cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    command = [sys.executable, "-m", program, "train", f"--config={self.config}", "--json"]
    return subprocess.Popen(
      [*command, f"--workdir=gs://{self.bucket}/{name}"],
      cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

  def finish(self, name: str, max_starts: int = 1, **options: str) -> dict[str, Any]:
    """Runs to the end, starting again as often as it may where the exit code asks for that; the last line."""
    for _ in range(max_starts):
      process = self.start(name, **options)
      out, err = process.communicate(timeout=600)
      if process.returncode != HOST_LOST:
        break
    assert out, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert (result["reason"], result["step"]) == ("done", STEPS), err
    return result

  def rows(self, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in self.store.read(f"{name}/metrics.jsonl").splitlines()]
    return [{key: value for key, value in row.items() if "_sec" not in key and "_frac" not in key} for row in rows]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
  folder = tmp_path_factory.mktemp("bucket")
  (folder / "net.cfg").write_text(darknet_cfg.dump(smooth_detector()))
  (folder / "config.py").write_text(CONFIG.format(cfg=folder / "net.cfg"))
  with serving() as store:
    yield Cloud(store, folder / "config.py", folder / "cache")


@pytest.fixture(scope="module")
def undisturbed(cloud: Cloud) -> dict[str, Any]:
  """The last line of a run that nothing disturbs, in the bucket as `calm`."""
  return cloud.finish("calm", program="prn_jax.cli.main")


def test_a_run_directory_in_a_bucket_has_everything(cloud: Cloud, undisturbed: dict[str, Any]) -> None:
  assert undisturbed["workdir"] == f"gs://{BUCKET}/calm"
  found = {name.removeprefix("calm/") for name in cloud.store.names("calm/")}
  top = {name.split("/")[0] for name in found}
  assert top >= {
    "config.json",
    "graph.cfg",
    "env.json",
    "metrics.csv",
    "metrics.jsonl",
    "curves.png",
    "eval",
    "checkpoints",
  }
  assert any(name.startswith("events.out.tfevents") for name in top)
  assert {"eval/coco.json", "eval/step.txt", "eval/pr_curves.png", f"checkpoints/{STEPS}/manifest.json"} <= found
  assert len([name for name in found if name.startswith("eval/examples/")]) == 2
  assert [row["step"] for row in cloud.rows("calm") if "loss" in row] == list(range(1, STEPS + 1))
  assert not Path(REPO, "gs:").exists()


def killed_at(cloud: Cloud, name: str, write: int) -> tuple[int, str]:
  """Runs until the store sees write number `write` of this start, and kills there; gives exit code and stderr."""
  process, count = cloud.start(name), itertools.count(1)

  def kill(what: str) -> None:
    if next(count) == write:
      process.kill()

  cloud.store.on_write = kill
  try:
    _, err = process.communicate(timeout=600)
  finally:
    cloud.store.on_write = lambda what: None
  return process.returncode, err


def check_same(cloud: Cloud, name: str, result: dict[str, Any], expected: dict[str, Any]) -> None:
  """The run `name` has come to the same bits, rows and files as the undisturbed one."""
  assert result["params_sha256"] == expected["params_sha256"]
  assert result["metrics"] == expected["metrics"]
  assert cloud.rows(name) == cloud.rows("calm")
  assert cloud.store.read(f"{name}/graph.cfg") == cloud.store.read("calm/graph.cfg")
  assert names_below(cloud, f"{name}/eval") == names_below(cloud, "calm/eval")


def names_below(cloud: Cloud, folder: str) -> set[str]:
  return {name.removeprefix(folder) for name in cloud.store.names(f"{folder}/")}


def test_killed_at_any_write_it_goes_on_to_the_same_bits(cloud: Cloud, undisturbed: dict[str, Any]) -> None:
  name, rng, seconds = "killed", random.Random(), []  # other places every time; it must not matter
  for _ in range(KILLS):
    began = time.monotonic()
    code, err = killed_at(cloud, name, rng.randrange(1, 40))
    seconds.append(time.monotonic() - began)
    if code == 0:  # it came to its end before that write
      break
    assert code == -9, err
  result = cloud.finish(name)
  print(f"{len(seconds)} kills, {sum(seconds) / len(seconds):.1f} s each")
  check_same(cloud, name, result, undisturbed)


def test_two_runs_of_one_directory_are_one_run(cloud: Cloud, undisturbed: dict[str, Any]) -> None:
  """The second is refused although it comes while the first is busy; what the first leaves is what it would alone."""
  name, other = "twice", list[subprocess.Popen[str]]()

  def begin(what: str) -> None:
    if what == f"PUT {name}/checkpoints/4/manifest.json" and not other:
      other.append(cloud.start(name))
      other[0].wait(300)

  cloud.store.on_write = begin
  try:
    result = cloud.finish(name)
  finally:
    cloud.store.on_write = lambda what: None
  _, err = other[0].communicate(timeout=300)
  assert other[0].returncode == BAD_INPUT, err
  assert f"'gs://{BUCKET}/{name}' is being written by another run (process " in err
  check_same(cloud, name, result, undisturbed)
  assert f"{name}/.run.lock" not in cloud.store.objects


def test_a_store_that_fails_now_and_then_changes_nothing(cloud: Cloud, undisturbed: dict[str, Any]) -> None:
  cloud.store.num_faults = 0
  cloud.store.faults = Faults(refused=0.01, done_but_refused=0.01, dropped=0.01, slow=0.02)
  began = time.monotonic()
  try:
    result = cloud.finish("flaky", max_starts=5)
  finally:
    cloud.store.faults = Faults()
  assert cloud.store.num_faults > 3
  print(f"{cloud.store.num_faults} faults, {time.monotonic() - began:.0f} s")
  check_same(cloud, "flaky", result, undisturbed)


def test_an_outage_ends_with_the_code_for_again_and_loses_nothing(cloud: Cloud, undisturbed: dict[str, Any]) -> None:
  """The store is out of reach when TensorStore, which would try for a quarter of an hour, has written its part."""
  name = "outage"

  def cut(what: str) -> None:
    if what.startswith("PUT") and what.endswith("/checkpoints/8/state/commit_success.txt"):
      cloud.store.faults = Faults(refused=1)

  cloud.store.on_write = cut
  process = cloud.start(name)
  try:
    _, err = process.communicate(timeout=600)
  finally:
    process.kill()
    cloud.store.on_write, cloud.store.faults = (lambda what: None), Faults()
  assert process.returncode == HOST_LOST, err
  assert "could not be reached" in err
  assert "Run the same command again" in err
  assert f"{name}/checkpoints/8/manifest.json" not in cloud.store.objects
  assert "Traceback" not in err
  check_same(cloud, name, cloud.finish(name), undisturbed)


def test_a_bucket_that_is_not_there_is_told_at_once(cloud: Cloud) -> None:
  process = dataclasses.replace(cloud, bucket="no-such-bucket").start("run")
  _, err = process.communicate(timeout=300)
  assert process.returncode == BAD_INPUT
  assert err.startswith("prn train: 'gs://no-such-bucket/run/")
  assert "there is no bucket of this name" in err
