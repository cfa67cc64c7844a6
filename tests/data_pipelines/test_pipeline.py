"""Training batches are a pure function of (seed, step), whatever makes them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.feed.batching import EpochOrder
from prn_jax.data_pipelines.feed.pipeline import (
  Batch,
  PipelineConfig,
  batch_at,
  darknet_sizes,
  size_of_step,
  train_batches,
)
from prn_jax.data_pipelines.joined import Draws
from prn_jax.data_pipelines.records import DataError, Dataset, RecordList
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pipeline_data import Failing, Noisy, Slow, numbered

REPO = Path(__file__).resolve().parents[2]
SIZES = ((32, 32), (64, 48), (48, 64))
NUM_STEPS = 9


def config(**changes: object) -> PipelineConfig:
  values = {"seed": 3, "batch_size": 8, "sizes": SIZES, "resize_every": 2, "largest_last_steps": 2, "max_boxes": 4}
  return PipelineConfig(**(values | {"threads": 1} | changes))  # type: ignore[arg-type]


def digest(batch: Batch) -> str:
  """Of all names, types, shapes and bytes."""
  parts = [f"{key} {batch[key].dtype} {batch[key].shape}".encode() + batch[key].tobytes() for key in sorted(batch)]
  return hashlib.sha256(b"|".join(parts)).hexdigest()


def digests(dataset: Dataset, augment: object, settings: PipelineConfig, **options: int) -> list[tuple[int, str]]:
  with train_batches(dataset, augment, settings, num_steps=NUM_STEPS, **options) as batches:  # type: ignore[arg-type]
    return [(step, digest(batch)) for step, batch in batches]


def joined(
  dataset: Dataset, augment: object, settings: PipelineConfig, count: int, start: int
) -> list[tuple[int, str]]:
  """The global batches of `count` processes, put together in the order of the processes."""
  streams = [
    train_batches(
      dataset, augment, settings, start_step=start, num_steps=NUM_STEPS, process_index=process, process_count=count
    )
    for process in range(count)
  ]  # type: ignore[arg-type]
  result = []
  for parts in zip(*streams, strict=True):
    assert len({step for step, _ in parts}) == 1
    rows = {key: np.concatenate([batch[key] for _, batch in parts]) for key in parts[0][1]}
    result.append((parts[0][0], digest(rows)))
  return result


@pytest.mark.parametrize("augment", [Noisy(), Noisy(4), DetectionAugment(jitter=0.3, hue=0.1, saturation=1.5)])
def test_processes_threads_and_start_change_no_byte(augment: object) -> None:
  dataset = numbered(13)
  if isinstance(augment, DetectionAugment):
    scenes = open_spec("synthetic:traffic:13")
    records = tuple(scenes[index] for index in range(13))
    dataset = RecordList(scenes.names, scenes.category_ids, records)
  whole = digests(dataset, augment, config(threads=0))
  assert [step for step, _ in whole] == list(range(NUM_STEPS))
  assert len({text for _, text in whole}) == NUM_STEPS
  for threads in (1, 3):
    assert digests(dataset, augment, config(threads=threads, prefetch=threads)) == whole
  assert digests(dataset, augment, config(cache_mb=1)) == whole
  for count in (2, 4):
    if 8 % (count * augment.group_size) == 0:  # type: ignore[attr-defined]
      assert joined(dataset, augment, config(), count, 0) == whole
      assert joined(dataset, augment, config(), count, 5) == whole[5:], "resumed on another number of processes"
  for start in range(NUM_STEPS + 2):
    assert digests(dataset, augment, config(), start_step=start) == whole[start:]
  for step, text in whole:
    assert digest(batch_at(dataset, augment, config(), step, NUM_STEPS)) == text  # type: ignore[arg-type]


@pytest.mark.slow
def test_worker_processes_change_no_byte_and_leave_no_noise(tmp_path: Path) -> None:
  dataset, augment = numbered(13, bad=(4,)), Noisy(4)
  settings = config(on_bad_data="skip", cache_mb=1)
  whole = digests(dataset, augment, settings)
  script = tmp_path / "program.py"
  script.write_text(
    textwrap.dedent("""
      import dataclasses, json
      from tests.data_pipelines.test_pipeline import NUM_STEPS, Noisy, config, digest, digests, numbered, train_batches

      if __name__ == "__main__":
        settings = config(on_bad_data="skip", cache_mb=1, workers=2)
        with train_batches(numbered(13, bad=(4,)), Noisy(4), settings, num_steps=NUM_STEPS) as batches:
          found = [(step, digest(batch)) for step, batch in batches]
        problems = [str(problem) for problem in batches.report.problems]
        early = train_batches(numbered(13), Noisy(), config(workers=1), start_step=2)
        next(early)
        early.close()
        left_open = train_batches(numbered(13), Noisy(), config(threads=2))
        next(left_open)
        print(json.dumps([found, problems]))
    """)
  )
  done = subprocess.run(
    [sys.executable, "-W", "error", str(script)], cwd=REPO, env={"PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu"},
    capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  noise = [line for line in done.stderr.splitlines() if "picture_4" not in line]  # the warning about the bad image
  assert noise == []
  found, problems = json.loads(done.stdout)
  assert [tuple(pair) for pair in found] == whole
  assert len(problems) == 1
  assert "picture_4" in problems[0]


def test_faults_of_an_augmentation_are_not_hidden() -> None:
  batches = train_batches(numbered(5), Failing(), config(threads=2))
  with batches, pytest.raises(ArithmeticError, match="no augmentation for 1 images"):
    next(batches)


def test_every_epoch_has_every_record_once_in_another_order() -> None:
  dataset, count = numbered(12), 12
  with train_batches(dataset, Noisy(), config(batch_size=4), num_steps=9) as batches:
    seen = np.concatenate([batch["index"] for _, batch in batches]).reshape(3, count)
  for epoch in seen:
    assert Counter(epoch.tolist()) == Counter(range(count))
  assert len({tuple(epoch) for epoch in seen.tolist()}) == 3


def test_neighbouring_seeds_share_no_order() -> None:
  def order(seed: int, epoch: int) -> tuple[int, ...]:
    epochs = EpochOrder([Draws(50, 1)], seed)
    return tuple(epochs.record_at(epoch * 50 + offset) for offset in range(50))

  orders = {order(seed, epoch) for seed in range(4) for epoch in range(4)}
  assert len(orders) == 16


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**63), st.lists(st.integers(0, 400), min_size=1, max_size=30))
def test_order_does_not_depend_on_what_was_asked_before(num_records: int, seed: int, positions: list[int]) -> None:
  used = EpochOrder([Draws(num_records, 1)], seed)
  assert [used.record_at(at) for at in positions] == [
    EpochOrder([Draws(num_records, 1)], seed).record_at(at) for at in positions
  ]


def test_sizes_are_drawn_per_block_and_end_with_the_largest() -> None:
  settings = config(resize_every=10, largest_last_steps=100)
  sizes = [size_of_step(settings, step, 1000) for step in range(1000)]
  blocks = [set(sizes[start : start + 10]) for start in range(0, 1000, 10)]
  assert all(len(block) == 1 for block in blocks)
  assert blocks[0] == {(64, 48)}, "the first of the largest sizes, so that a lack of memory shows at once"
  assert set(sizes[900:]) == {(64, 48)}
  assert set(sizes[10:900]) == set(SIZES)
  assert sizes[:900] == [size_of_step(settings, step) for step in range(900)], "the length matters at the end alone"
  assert sizes != [size_of_step(config(seed=4, resize_every=10), step, 1000) for step in range(1000)]
  assert size_of_step(config(sizes=((32, 32),)), 77) == (32, 32)


def test_batches_have_the_size_of_their_step() -> None:
  with train_batches(numbered(5), Noisy(), config(), num_steps=NUM_STEPS) as batches:
    for step, batch in batches:
      width, height = size_of_step(config(), step, NUM_STEPS)
      assert batch["image"].shape == (8, height, width, 3)
      assert batch["image"].dtype == np.uint8
      assert (batch["truth"].shape, batch["truth"].dtype) == ((8, 4, 5), np.float32)
      assert (batch["index"].shape, batch["index"].dtype) == ((8,), np.int32)


def test_darknet_sizes() -> None:
  # 416 with random=1: from round(416 / 1.4 / 32 + 1) * 32 = 320 up to round(1.4 * 416 / 32 + 1) * 32 = 608.
  assert set(darknet_sizes(416, 416)) == {(side, side) for side in range(320, 609, 32)}
  assert len(darknet_sizes(416, 416)) == 10
  assert darknet_sizes(416, 416) == darknet_sizes(416, 416, ratio=1)
  assert all(width % 32 == 0 == height % 32 for width, height in darknet_sizes(640, 352, 1.2))
  assert darknet_sizes(32, 32, 1.1) == ((32, 32), (64, 64))


@pytest.mark.parametrize(
  ("changes", "group_size", "count", "message"),
  [
    ({"batch_size": 6}, 4, 1, "batch_size 6 .* 1 processes, in groups of 4 .* multiple of 4, such as 4 or 8"),
    ({"batch_size": 60}, 4, 4, "batch_size 60 .* 4 processes, in groups of 4 .* multiple of 16, such as 48 or 64"),
    ({"batch_size": 3}, 1, 2, "batch_size 3 cannot be split over 2 processes; .* such as 2 or 4"),
    ({"batch_size": 1}, 1, 2, "batch_size 1 cannot be split over 2 processes; .* multiple of 2, such as 2"),
    ({"batch_size": 0}, 1, 1, "batch_size .* is 0; expected at least 1"),
    ({"seed": -1}, 1, 1, "seed of the input pipeline is -1; expected at least 0"),
    ({"threads": -1}, 1, 1, "threads .* is -1"),
    ({"sizes": ()}, 1, 1, r"sizes .* are \(\); expected as in"),
    ({"sizes": ((0, 4),)}, 1, 1, r"sizes .* \(\(0, 4\),\); expected as in"),
    ({"on_bad_data": "ignore"}, 1, 1, "on_bad_data is 'ignore'; expected 'stop' or 'skip'"),
  ],
)
def test_messages(changes: dict[str, object], group_size: int, count: int, message: str) -> None:
  with pytest.raises(DataError, match=message):
    train_batches(numbered(3), Noisy(group_size), config(**changes), process_count=count)


def test_empty_data_and_wrong_process() -> None:
  with pytest.raises(DataError, match="the data set is empty"):
    train_batches(numbered(0), Noisy(), config())
  with pytest.raises(ValueError, match="process 2 of 2; expected 0 to 1"):
    train_batches(numbered(3), Noisy(), config(), process_index=2, process_count=2)


def test_another_thread_may_close() -> None:
  batches = train_batches(numbered(20), Slow(0.05), config(threads=2))
  seen: list[int] = []
  failures: list[BaseException] = []

  def consume() -> None:
    try:
      seen.extend(step for step, _ in batches)
    except BaseException as error:  # the point of the test
      failures.append(error)

  thread = threading.Thread(target=consume)
  thread.start()
  while not seen and thread.is_alive():
    time.sleep(0.01)
  batches.close()
  thread.join(20)
  assert not thread.is_alive()
  assert not failures
  assert seen == list(range(len(seen)))


def test_importing_the_pipeline_does_not_import_jax() -> None:
  code = "import sys, prn_jax.data_pipelines.feed.pipeline, prn_jax.data_pipelines.feed.evaluation_batches; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


def test_closing_ends_the_iteration_and_the_threads() -> None:
  before = threading.active_count()
  batches = train_batches(numbered(20), Noisy(), config(threads=3))
  next(batches)
  batches.close()
  batches.close()
  assert next(batches, None) is None
  for thread in threading.enumerate():
    if thread is not threading.current_thread() and "grain" in thread.name:
      thread.join(20)
  assert threading.active_count() <= before
