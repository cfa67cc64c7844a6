"""Neither threads nor worker processes keep the batches that they have handed over.

Ten thousand of them, which were run as well, take minutes: PRN_BATCHES=10000.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from pathlib import Path

import pytest

from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, train_batches
from prn_jax.data_pipelines.parallel import WorkerLostError
from tests.data_pipelines.pipeline_data import numbered

BATCHES = int(os.environ.get("PRN_BATCHES", "1500"))
SETTLED = 500


def resident_kb(pids: list[int]) -> int:
  """What processes hold in memory of their own, in kB."""
  total = 0
  for pid in pids:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    total += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Private_Clean:")))
  return total


def workers_of(pid: int) -> list[int]:
  """Processes that were spawned to work for one; the tracker of shared memory is none."""
  found = []
  for folder in Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
      if parent == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
        found.append(int(folder.name))
  return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_stays(workers: int) -> None:
  config = PipelineConfig(seed=0, batch_size=4, sizes=((16, 16), (24, 16)), max_boxes=8, threads=1, workers=workers)
  with train_batches(numbered(9), DetectionAugment(), config, num_steps=BATCHES) as batches:
    for step, batch in batches:
      assert len(batch["image"]) == 4
      if step == SETTLED:
        pids = [os.getpid(), *workers_of(os.getpid())]
        assert len(pids) == 1 + workers
        settled = resident_kb(pids)
      if step == BATCHES - 50:  # workers end before the last batch is taken
        assert resident_kb(pids) < 1.05 * settled
        return
  pytest.fail("it was never measured")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_a_worker_that_is_killed_is_an_error_within_seconds() -> None:
  config = PipelineConfig(seed=0, batch_size=4, sizes=((16, 16),), max_boxes=8, threads=1, workers=2)
  with train_batches(numbered(9), DetectionAugment(), config, num_steps=100_000) as batches:
    next(batches)
    os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(
      WorkerLostError, match=r"was killed \(signal 9\), as the system does when it is out of memory\. Fewer"
    ):
      deque(batches, maxlen=0)
    assert time.monotonic() < began + 30
