"""Checkpoints and curves in a bucket: whole after any kill, verified, and never taken for damaged because of an outage."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest

from prn_jax.errors import BucketError, CheckpointError
from prn_jax.files.places import to_path
from prn_jax.formats.checkpoints import load_params
from prn_jax.train import log
from prn_jax.train.checkpoint import Checkpoints
from prn_jax.train.log import MetricsLog, last_evaluation, read_metrics
from tests.files.test_places import impatient  # noqa: F401  (a fixture)
from tests.object_store import Faults, ObjectStore, connect, environment, serving
from tests.train.checkpoint_states import (
  META,
  assert_same,
  metric_of,
  save_forever,
  save_together,
  shared_state,
  state_of,
)
from tests.train.test_checkpoint import start_two

RUN = "gs://bucket/run/checkpoints"
KILLS = int(os.environ.get("PRN_BUCKET_KILLS", "4"))


@pytest.fixture
def checkpoints(store: ObjectStore) -> Iterator[Checkpoints]:
  with Checkpoints(RUN) as opened:
    yield opened


def save_steps(checkpoints: Checkpoints, *steps: int) -> None:
  for step in steps:
    checkpoints.save(step, state_of(step), META, metric=metric_of(step))
  checkpoints.wait()


def test_state_metadata_and_rating_come_back(store: ObjectStore, checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1, 2, 3, 4)
  state, meta = checkpoints.restore(state_of(0))
  assert_same(state, state_of(4))
  assert (meta["step"], meta["config"]) == (4, META["config"])
  assert checkpoints.metrics() == {3: 10.0, 4: 6.0}, "the newest two, of which one is the best"
  assert {name.split("/")[2] for name in store.names("run/")} == {"3", "4"}
  params, meta = load_params("gs://bucket/run", "best")
  assert meta["step"] == 3
  assert params["params"].keys() == state_of(3).params.keys()
  assert load_params(f"{RUN}/4")[1]["step"] == 4


def test_the_manifest_comes_last(store: ObjectStore, checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  last = max(store.objects, key=lambda name: store.objects[name].generation)
  assert last == "run/checkpoints/1/manifest.json"
  manifest = json.loads(store.read(last))
  others = {name.removeprefix("run/checkpoints/1/") for name in store.names("run/checkpoints/1/")} - {"manifest.json"}
  assert manifest["sha256"].keys() == others


def test_one_that_is_deleted_loses_its_manifest_first(store: ObjectStore, checkpoints: Checkpoints) -> None:
  checkpoints.save(1, state_of(1), META)
  checkpoints.save(2, state_of(2), META)
  checkpoints.wait()
  store.writes.clear()
  checkpoints.save(3, state_of(3), META, wait=True)
  deleted = [what for _, what in store.writes if what.startswith("DELETE run/checkpoints/1/")]
  assert deleted[0] == "DELETE run/checkpoints/1/manifest.json"
  assert not store.names("run/checkpoints/1/")


def test_a_changed_byte_falls_back(
  store: ObjectStore, checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
  save_steps(checkpoints, 1, 2)
  name = max(store.names("run/checkpoints/2/state"), key=lambda name: len(store.read(name)))
  data = bytearray(store.read(name))
  data[len(data) // 2] ^= 1
  store.put(name, bytes(data))
  with caplog.at_level(logging.WARNING):
    state, _ = checkpoints.restore(state_of(0))
  assert_same(state, state_of(1))
  assert "has changed since it was saved" in caplog.text
  with pytest.raises(CheckpointError, match=r"'gs://bucket/run/checkpoints/2/state/.*has changed since it was saved"):
    load_params("gs://bucket/run", "latest")


def test_remains_of_a_save_are_no_checkpoint(store: ObjectStore, checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1, 2)
  del store.objects["run/checkpoints/2/manifest.json"]
  assert checkpoints.latest_step() == 1
  save_steps(checkpoints, 2)
  assert_same(checkpoints.restore(state_of(0))[0], state_of(2))


@pytest.mark.usefixtures("impatient")
def test_an_outage_is_not_damage(store: ObjectStore, checkpoints: Checkpoints) -> None:
  """Who took an unreadable manifest for a missing one would start from scratch, and clear up what is not finished."""
  save_steps(checkpoints, 1, 2)
  before = store.names()
  store.faults = Faults(refused=1)
  for question in (
    checkpoints.latest_step,
    checkpoints.metrics,
    lambda: checkpoints.restore(state_of(0)),
    lambda: checkpoints.save(3, state_of(3), META),
    lambda: load_params("gs://bucket/run"),
  ):
    with pytest.raises(BucketError, match="could not be reached") as caught:
      question()
    assert caught.value.is_transient
  store.faults = Faults()
  assert store.names() == before
  save_steps(checkpoints, 3)
  assert checkpoints.latest_step() == 3


@pytest.mark.usefixtures("impatient")
def test_an_outage_in_the_middle_of_a_save(store: ObjectStore, checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)

  def cut(what: str) -> None:
    if what.startswith("PUT") and what.endswith("/_METADATA"):
      store.forbids = True  # TensorStore tries for minutes where it is told to try again

  store.on_write = cut
  with pytest.raises(
    BucketError, match=r"the checkpoint of step 2 could not be written: .*finished ones are as they were"
  ):
    checkpoints.save(2, state_of(2), META, wait=True)
  store.forbids, store.on_write = False, lambda what: None
  assert checkpoints.latest_step() == 1
  save_steps(checkpoints, 3)
  assert list(checkpoints.metrics()) == [1, 3]
  assert not store.names("run/checkpoints/2/"), "the remains are cleared"


# -- curves ------------------------------------------------------------------------------------------------------------


def test_rows_are_there_when_the_checkpoint_is(store: ObjectStore) -> None:
  folder = to_path("gs://bucket/run")
  writer = MetricsLog(folder)
  writer.write(1, {"loss": 2.0})
  writer.push()
  writer.write(2, {"loss": 1.0})
  assert [row["step"] for row in read_metrics(folder)] == [1], "a kill now costs step 2, which no checkpoint has"
  writer.write_evaluation(2, {"AP50": 0.5})
  writer.close()
  assert last_evaluation(folder, 2) == (2, {"AP50": 0.5})
  assert store.read(f"run/{log.CSV}").decode().splitlines() == ["step,loss,eval/AP50", "1,2.0,", "2,1.0,", "2,,0.5"]
  again = MetricsLog(folder, start_step=1)
  again.write(2, {"loss": 1.5})
  again.close()
  assert [(row["step"], row["loss"]) for row in read_metrics(folder)] == [(1, 2.0), (2, 1.5)]
  assert len([name for name in store.names() if "events.out.tfevents" in name]) == 2


# -- kills -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs() -> Any:
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.train.checkpoint_states"])
  return context


def save_forever_in_bucket(variables: dict[str, str], pipe: Connection) -> None:
  connect(variables)
  save_forever(RUN, pipe)  # type: ignore[arg-type]


def save_together_in_bucket(variables: dict[str, str], pipe: Connection, port: int, index: int, dies: bool) -> None:
  connect(variables)
  save_together(RUN, pipe, port, index, dies)  # type: ignore[arg-type]


@pytest.mark.slow
def test_kill_at_any_write(programs: Any) -> None:
  rng, finished = random.Random(), 0
  began = time.monotonic()
  with serving() as store:
    for _ in range(KILLS + 1):  # the last one only resumes
      count, last = itertools.count(1), rng.randrange(1, 90)
      ours, theirs = multiprocessing.Pipe(duplex=False)
      process = programs.Process(target=save_forever_in_bucket, args=(environment(store), theirs), daemon=True)

      def kill(what: str, process: Any = process, count: Iterator[int] = count, last: int = last) -> None:
        if next(count) == last:
          process.kill()

      store.on_write = kill
      process.start()
      theirs.close()
      resumed = finished
      while True:  # until it is killed
        try:
          message, step, _ = ours.recv()
        except EOFError:
          break
        if message == "resumed":  # it has proved the values right
          assert finished <= step <= finished + 1, "nothing finished is lost; the one in flight may have been finished"
          resumed = step
        finished = max(resumed, step)
      process.join()
      assert process.exitcode == -9
      ours.close()
  assert finished > KILLS // 4, "the kills hit saves, not start-ups"
  print(f"{KILLS + 1} kills, {finished} steps, {time.monotonic() - began:.0f} s")


@pytest.mark.slow
def test_two_processes_and_the_death_of_one(programs: Any, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
  monkeypatch.setattr("tests.train.test_checkpoint.save_together", save_together_in_bucket)
  variables: Any = environment(store)
  assert start_two(programs, variables, dies=False) == [(0, 2), (0, 2)]
  (start, message), died = start_two(programs, variables, dies=True)
  assert (start, died) == (2, None)
  assert "checkpoint of step 3 could not be written" in message
  with Checkpoints(RUN) as checkpoints:  # on one process, with half the devices
    state, _ = checkpoints.restore(shared_state(0))
    assert (state["step"] == shared_state(2)["step"]).all() if "step" in state else True
    checkpoints.save(3, shared_state(3), META, wait=True)
    assert list(checkpoints.metrics()) == [2, 3]
  assert start_two(programs, variables, dies=False) == [(3, 5), (3, 5)]  # and back to two
