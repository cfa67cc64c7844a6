"""Checkpoints of a run: whole after any kill, verified, and for any number of devices."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prn_jax.errors import CheckpointError, PrnError
from prn_jax.formats import checkpoints as files
from prn_jax.train.checkpoint import Checkpoints
from tests.train.checkpoint_states import (
  EXIT_AT_POINT,
  META,
  assert_same,
  flip,
  largest_file,
  metric_of,
  save_and_die,
  save_forever,
  save_together,
  shared_state,
  state_of,
)

KILLS = int(os.environ.get("PRN_KILLS", "6"))  # more of them make the drill longer


@pytest.fixture(scope="module")
def programs() -> Any:
  """Starts child processes from one that has imported JAX already: that costs seconds, not half a minute."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.train.checkpoint_states"])
  return context


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
  with Checkpoints(tmp_path / "run" / "checkpoints") as opened:
    yield opened


def sharding_over(count: int, *axes: str) -> NamedSharding:
  mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
  return NamedSharding(mesh, PartitionSpec(*axes))


def save_steps(checkpoints: Checkpoints, *steps: int, metric: bool = False) -> None:
  for step in steps:
    checkpoints.save(step, state_of(step), META, metric=metric_of(step) if metric else None)
  checkpoints.wait()


# Round trips


def test_state_and_metadata_come_back(checkpoints: Checkpoints) -> None:
  assert checkpoints.latest_step() is None
  assert checkpoints.save(7, state_of(7), META, metric=0.5)
  state, meta = checkpoints.restore(state_of(0))
  assert_same(state, state_of(7))
  assert isinstance(state.params["out"]["conv"]["bias"], np.ndarray)
  assert (meta["step"], meta["metric"], meta["config"]) == (7, 0.5, {"seed": 3})
  assert meta["versions"]["jax"] == jax.__version__
  assert checkpoints.meta() == meta
  assert checkpoints.blocking_s > 0
  assert checkpoints.writing_s > 0


def test_disk_holds_nested_dicts_keyed_by_strings(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  stored = json.loads((checkpoints.folder / "1" / "meta.json").read_text())
  assert stored["data_position"] == stored["step"] == 1
  assert stored["arrays"]["params/stem/conv/kernel"] == ["float32", [3, 3, 8, 16]]
  assert "opt_state/1/0/trace/stem/conv/kernel" in stored["arrays"]
  plain = ocp.PyTreeCheckpointer().restore(checkpoints.folder / "1" / "state")  # none of our classes
  np.testing.assert_array_equal(
    plain["opt_state"]["1"]["0"]["trace"]["out"]["conv"]["bias"],
    state_of(1).opt_state[1][0].trace["out"]["conv"]["bias"],
  )


def test_donated_state_is_saved_as_it_was(checkpoints: Checkpoints) -> None:
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = step(state_of(0, sharding_over(8), width=512))
  before = jax.tree.map(np.array, state)
  checkpoints.save(1, state, META)
  for _ in range(5):  # while it is being written
    state = step(state)
  restored, _ = checkpoints.restore(state_of(0, width=512))
  assert_same(restored, before)


def test_another_number_of_devices(checkpoints: Checkpoints) -> None:
  checkpoints.save(1, state_of(1, sharding_over(8)), META)
  one, _ = checkpoints.restore(state_of(0, sharding_over(1)))
  assert_same(one, state_of(1))
  checkpoints.save(2, one._replace(step=np.int32(2)), META)
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding_over(4)), state_of(0)
  )
  four, _ = checkpoints.restore(abstract)
  assert_same(four, state_of(1)._replace(step=np.int32(2)))
  assert four.params["stem"]["conv"]["kernel"].sharding == sharding_over(4)
  assert len(four.step.devices()) == 4


def test_sharded_arrays_change_their_sharding(checkpoints: Checkpoints) -> None:
  values = np.arange(64, dtype=np.float32).reshape(16, 4)
  checkpoints.save(1, {"a": jax.device_put(values, sharding_over(8, "data"))}, META)
  for count in (1, 4):
    target = jax.ShapeDtypeStruct((16, 4), np.float32, sharding=sharding_over(count, "data"))
    state, _ = checkpoints.restore({"a": target})
    np.testing.assert_array_equal(np.asarray(state["a"]), values)
    assert state["a"].sharding == target.sharding


# Which are kept


def test_newest_and_best_are_kept(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, *range(1, 8), metric=True)  # metrics 7 3 10 6 2 9 5
  assert checkpoints.metrics() == {3: 10.0, 6: 9.0, 7: 5.0}
  assert (checkpoints.latest_step(), checkpoints.best_step(), checkpoints.best()) == (7, 3, (3, 10.0))
  state, meta = checkpoints.restore(state_of(0), step=checkpoints.best_step())
  assert_same(state, state_of(3))
  assert meta["metric"] == 10.0


def test_metric_can_come_later_and_nan_is_none(checkpoints: Checkpoints) -> None:
  checkpoints.save(1, state_of(1), META)
  assert checkpoints.best_step() is checkpoints.best() is None
  assert not checkpoints.save(1, state_of(1), META, metric=0.25)
  assert not checkpoints.save(1, state_of(1), META)  # does not take it away
  checkpoints.save(2, state_of(2), META, metric=float("nan"), wait=True)
  assert checkpoints.metrics() == {1: 0.25, 2: None}
  files.verify(checkpoints.folder / "1")


AP50, MAP = {"name": "AP50", "protocol": "coco", "conf": 0.005}, {"name": "mAP", "protocol": "voc", "conf": 0.005}


def test_only_figures_that_mean_the_same_are_compared(
  checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
  for step, metric, meaning in ((1, 0.4, AP50), (2, 0.3, AP50), (3, 0.1, MAP)):
    checkpoints.save(step, state_of(step), META, metric=metric, metric_of=meaning, wait=True)
  assert checkpoints.best_step() == 3, "the newest figure says what counts"
  assert checkpoints.best() == (3, 0.1)
  assert checkpoints.best(AP50) == (2, 0.3)
  assert checkpoints.metric_of(3) == MAP
  assert checkpoints.restore(state_of(0))[1]["metric_of"] == MAP
  with caplog.at_level(logging.INFO):
    assert files.load_params(checkpoints.folder)[1]["metric_of"] == MAP
  assert "step 3 (mAP 0.1), averaged" in caplog.text
  checkpoints.save(3, state_of(3), META, metric=0.2, metric_of=AP50)  # evaluated again
  assert checkpoints.best() == (2, 0.3)
  checkpoints.save(3, state_of(3), META, metric=float("nan"), metric_of=AP50)
  assert (checkpoints.metrics()[3], checkpoints.metric_of(3)) == (None, AP50), "it was evaluated, without a figure"


def test_manifests_that_do_not_say_what_the_metric_means_are_read(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1, 2, metric=True)  # 7 3
  for step in (1, 2):
    path = checkpoints.folder / str(step) / files.MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["metric_of"], manifest["checksum"]
    path.write_text(json.dumps(manifest | {"checksum": files._checksum(manifest)}))
  assert checkpoints.best() == (1, 7.0)
  assert files.load_params(checkpoints.folder)[1]["metric"] == 7.0
  checkpoints.save(3, state_of(3), META, metric=0.5, metric_of=AP50, wait=True)
  assert checkpoints.best() == (3, 0.5)


def test_without_keep_best_only_the_newest_stay(tmp_path: Path) -> None:
  with Checkpoints(tmp_path, keep=1, keep_best=False) as checkpoints:
    save_steps(checkpoints, *range(1, 5), metric=True)
    assert list(checkpoints.metrics()) == [4]


def test_going_back_is_refused(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 5, 6)
  with pytest.raises(CheckpointError, match=r"checkpoints of later steps \(5, 6\) than 4: the run went back"):
    checkpoints.save(4, state_of(4), META)
  assert list(checkpoints.metrics()) == [5, 6]


# Kills


@pytest.mark.slow
def test_kill_at_any_time(tmp_path: Path, programs: Any) -> None:
  rng = np.random.default_rng(0)
  finished, started, bests, pace_sec = 0, 0, [], 0.0
  for _ in range(KILLS + 1):  # the last one only resumes
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = programs.Process(target=save_forever, args=(tmp_path, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(60)
    message, resumed, metrics = ours.recv()
    assert message == "resumed"
    assert finished <= resumed <= started + 1  # nothing finished is lost; the one in flight may have been finished
    best = max((metric_of(step) for step in range(1, finished + 1)), default=None)
    assert best is None or max(metrics.values()) >= best
    bests.append(best)
    if not pace_sec:
      began = time.monotonic()
      assert ours.poll(60)
      pace_sec = max(1.0, 4 * (time.monotonic() - began))  # kills shall hit saves on a busy machine, too
    time.sleep(rng.uniform(0, pace_sec))
    process.kill()
    process.join()
    finished = started = resumed
    while ours.poll():
      try:
        finished = ours.recv()[1]
        started = finished + 1
      except EOFError:
        break
    ours.close()
  assert finished > 3 * KILLS // 4  # the kills hit saves, not start-ups
  assert bests[-1] == 10.0


POINTS = {
  "write_text before": 2,  # an empty folder
  "write_text after": 2,  # meta.json
  "Checkpoints._finish before": 2,  # Orbax writes
  "files.hash_files before": 2,  # Orbax has finished
  "files.write_manifest before": 2,
  "files.os.replace before": 4,  # of the second manifest: its temporary file is there
  "files.write_manifest after": 2,  # finished, but nothing pruned
  "files.remove_tree before": 3,  # the old one has lost its manifest
}


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_every_point(tmp_path: Path, programs: Any, point: str) -> None:
  process = programs.Process(target=save_and_die, args=(tmp_path, point, POINTS[point]), daemon=True)
  process.start()
  process.join(60)
  assert process.exitcode == EXIT_AT_POINT
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    latest = checkpoints.latest_step()
    assert latest is not None
    state, _ = checkpoints.restore(state_of(0))
    assert_same(state, state_of(latest))
    save_steps(checkpoints, latest + 1, latest + 2, metric=True)
    assert_same(checkpoints.restore(state_of(0))[0], state_of(latest + 2))
    kept = {checkpoints.latest_step(), checkpoints.best_step()}
    assert {int(entry.name) for entry in checkpoints.folder.iterdir()} == kept  # no remains


# Several processes


def start_two(programs: Any, folder: Path, dies: bool) -> list[Any]:
  """Runs `save_together`; returns what the processes sent, None for the one that died."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  pipes = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
  processes = [
    programs.Process(target=save_together, args=(folder, theirs, port, index, dies), daemon=True)
    for index, (_, theirs) in enumerate(pipes)
  ]
  for process in processes:
    process.start()
  received = []
  for ours, theirs in pipes:
    theirs.close()
    try:
      received.append(ours.recv() if ours.poll(60) else "silent")
    except EOFError:
      received.append(None)
    ours.close()
  for process in processes:
    process.join(60)
  assert processes[1].exitcode == (EXIT_AT_POINT if dies else 0)
  return received


@pytest.mark.slow
def test_two_processes_and_the_death_of_one(tmp_path: Path, programs: Any) -> None:
  assert start_two(programs, tmp_path, dies=False) == [(0, 2), (0, 2)]
  (start, message), died = start_two(programs, tmp_path, dies=True)
  assert (start, died) == (2, None)
  assert "checkpoint of step 3 could not be written" in message
  assert "latest finished one is of step 2" in message
  with Checkpoints(tmp_path) as checkpoints:  # on one process, with half the devices
    state, _ = checkpoints.restore(shared_state(0))
    for key, value in shared_state(2).items():
      np.testing.assert_array_equal(np.asarray(state[key]), np.asarray(value))
    checkpoints.save(3, shared_state(3), META, wait=True)
    assert list(checkpoints.metrics()) == [2, 3]
  assert start_two(programs, tmp_path, dies=False) == [(3, 5), (3, 5)]  # and back to two


# Damage


def test_flipped_byte_falls_back_with_a_warning(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
  save_steps(checkpoints, 1, 2)
  victim = largest_file(checkpoints.folder / "2" / "state")
  flip(victim)
  with caplog.at_level(logging.WARNING):
    state, meta = checkpoints.restore(state_of(0))
  assert_same(state, state_of(1))
  assert meta["step"] == 1
  assert f"'{victim}' has changed since it was saved" in caplog.text
  assert "FALLING BACK from step 2 to the older checkpoint of step 1" in caplog.text
  save_steps(checkpoints, 2)  # training arrives there again and replaces the damaged one
  assert_same(checkpoints.restore(state_of(0))[0], state_of(2))


def test_every_file_is_guarded(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  for path in sorted(p for p in (checkpoints.folder / "1").rglob("*") if p.is_file() and p.stat().st_size):
    flip(path)
    with pytest.raises(CheckpointError, match=path.name):
      checkpoints.restore(state_of(0), step=1)
    flip(path)
  assert_same(checkpoints.restore(state_of(0), step=1)[0], state_of(1))


def test_stop_policy_and_no_older_one(tmp_path: Path) -> None:
  with Checkpoints(tmp_path, on_damage="stop") as checkpoints:
    save_steps(checkpoints, 1, 2)
    flip(largest_file(tmp_path / "2" / "state"))
    with pytest.raises(
      CheckpointError, match=r"has changed .* The next older checkpoint is of step 1\. Restore the file"
    ):
      checkpoints.restore(state_of(0))
  with Checkpoints(tmp_path) as checkpoints:
    flip(largest_file(tmp_path / "1" / "state"))
    with pytest.raises(CheckpointError, match=r"1/state/.* has changed .* There is no older checkpoint\."):
      checkpoints.restore(state_of(0))


def test_truncated_and_missing_files_are_named(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1, 2)
  victim = largest_file(checkpoints.folder / "2" / "state")
  victim.write_bytes(victim.read_bytes()[:-7])
  with pytest.raises(CheckpointError, match=rf"{victim.name}' has changed since it was saved"):
    checkpoints.restore(state_of(0), step=2)
  victim.unlink()
  with pytest.raises(CheckpointError, match=rf"' is incomplete: '.*{victim.name}' is missing\.$"):
    checkpoints.restore(state_of(0), step=2)


def test_without_manifest_it_is_unfinished(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
  save_steps(checkpoints, 1, 2)
  (checkpoints.folder / "2" / "manifest.json").unlink()
  assert checkpoints.latest_step() == 1
  with caplog.at_level(logging.WARNING):
    assert_same(checkpoints.restore(state_of(0))[0], state_of(1))
  assert "2' is unfinished (no manifest.json): its save was interrupted. Resuming from step 1." in caplog.text
  with pytest.raises(CheckpointError, match=r"2' is unfinished"):
    checkpoints.restore(state_of(0), step=2)


def test_nothing_to_restore(checkpoints: Checkpoints) -> None:
  with pytest.raises(CheckpointError, match=r"has no finished checkpoint\."):
    checkpoints.restore(state_of(0))
  (checkpoints.folder / "30" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
  assert checkpoints.latest_step() is None
  with pytest.raises(CheckpointError, match=r"has no finished checkpoint \(unfinished: step 30\)"):
    checkpoints.restore(state_of(0))


def test_newer_format_is_told_apart_from_damage(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  path = checkpoints.folder / "1" / "manifest.json"
  manifest = json.loads(path.read_text()) | {"version": 99}
  del manifest["checksum"]
  path.write_text(json.dumps(manifest | {"checksum": files._checksum(manifest)}))
  with pytest.raises(CheckpointError, match=r"version 99; this prn_jax reads 'prn_jax checkpoint' up to 1\. Update"):
    checkpoints.restore(state_of(0), step=1)


# Checkpoints of something else


def test_other_model_lists_keys(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  other = state_of(0)
  renamed = {"first": other.params["stem"], "out": {"conv": {"bias": np.zeros(4, np.float32)}}}
  with pytest.raises(CheckpointError) as error:
    checkpoints.restore(other._replace(params=renamed))
  text = str(error.value)
  assert "1 missing: params/first/conv/kernel" in text
  assert "1 extra: params/stem/conv/kernel" in text
  assert "params/out/conv/bias (16,) instead of (4,)" in text
  assert "optimiser" not in text


def test_other_optimiser_and_ema_are_named(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  with pytest.raises(CheckpointError, match=r"extra: opt_state/.* belong to the optimiser: it has changed as well"):
    checkpoints.restore(state_of(0)._replace(opt_state=()))
  with pytest.raises(CheckpointError, match=r"4 extra: ema_params/.*, ema_batch_stats/"):
    checkpoints.restore(state_of(0, ema=False))


def test_other_type_is_named(checkpoints: Checkpoints) -> None:
  save_steps(checkpoints, 1)
  with pytest.raises(CheckpointError, match=r"of another type: step int32 instead of float32"):
    checkpoints.restore(state_of(0)._replace(step=np.float32(0)))


# Places that cannot be written


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(
    PrnError, match=r"cannot write checkpoints to '.*file/checkpoints': Not a directory. Give another"
  ):
    Checkpoints(tmp_path / "file" / "checkpoints")
  with pytest.raises(
    PrnError, match=r"'s3://bucket/run': s3:// is not supported; expected a path of this machine or gs://"
  ):
    Checkpoints("s3://bucket/run")
  with pytest.raises(PrnError, match=r"checkpoints to keep: 0; at least 1"):
    Checkpoints(tmp_path, keep=0)


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(self))

  monkeypatch.setattr(Path, "touch", refuse)
  with pytest.raises(PrnError, match=r"cannot write checkpoints to '.*': Read-only file system. Give another workdir"):
    Checkpoints(tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's other writers, ended with it
def test_full_disk_keeps_the_old_checkpoint(checkpoints: Checkpoints) -> None:
  checkpoints.save(1, state_of(1, width=4096), META, wait=True)
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # every write beyond fails, in Orbax's C++ as well
  try:
    checkpoints.save(2, state_of(2, width=4096), META)
    with pytest.raises(
      CheckpointError, match=r"step 2 could not be written .* latest finished one is of step 1\. Make room"
    ):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
  assert_same(checkpoints.restore(state_of(0, width=4096))[0], state_of(1, width=4096))
  save_steps(checkpoints, 3)  # and goes on when there is room again
  assert checkpoints.latest_step() == 3


def test_failure_before_writing(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
  save_steps(checkpoints, 1)

  def full(path: Path, text: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr("prn_jax.train.checkpoint.write_text", full)
  with pytest.raises(CheckpointError, match=r"step 2 could not be written .*No space left on device\. The latest"):
    checkpoints.save(2, state_of(2), META)
  monkeypatch.undo()
  save_steps(checkpoints, 2)
  assert checkpoints.latest_step() == 2


def test_error_in_training_does_not_hide_behind_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  def broken(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(files, "write_manifest", broken)

  def train() -> None:
    with Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(1, state_of(1), META)
      raise RuntimeError("diverged")

  with pytest.raises(RuntimeError, match="diverged"):
    train()


def test_processes_wait_for_each_other_outside_of_collectives(
  checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
  """A collective on CPUs waits 30 s, and process 0 may hash for longer: the run's own exchange has the run's own limit."""
  save_steps(checkpoints, 1, 2)
  asked: list[tuple[str, Any]] = []

  def exchange(name: str, value: Any) -> list[Any]:
    asked.append((name, value))
    return [value, 0]  # process 1 has found no checkpoint, and no damage

  def collective(*_: Any, **__: Any) -> None:
    raise AssertionError("a collective")

  with Checkpoints(checkpoints.folder, exchange=exchange) as opened:
    assert not asked, "a process that is alone asks nobody"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for name in ("broadcast_one_to_all", "process_allgather", "sync_global_devices"):
      monkeypatch.setattr(multihost_utils, name, collective)
    assert opened.latest_step() == 2
    assert opened.meta()["step"] == 2
    monkeypatch.undo()
  assert [value for _, value in asked] == [2, 2, 0]
  assert len({name for name, _ in asked}) == 3, "a name is used once"
