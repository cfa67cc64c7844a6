"""Saving and restoring the state of a training run; `prn_jax.formats.checkpoints` says how it lies on the disk.

A save copies the state off the devices, then the caller goes on while Orbax writes it, and a thread hashes the files and
writes the manifest that declares the checkpoint finished. Only then are older ones deleted. So a kill at any instant
costs the steps since the last finished checkpoint, and no more.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from prn_jax.errors import BucketError, CheckpointError, PrnError
from prn_jax.files.disk import check_space, write_text
from prn_jax.files.places import bucket_error, is_remote, to_path
from prn_jax.formats import checkpoints as files
from prn_jax.formats.checkpoints import Rating, load_params
from prn_jax.nested import nested
from prn_jax.train.state_arrays import arrays_of, check_state, described, target

__all__ = ["Checkpoints", "load_params"]

State = TypeVar("State")
Meta = dict[str, Any]
_LOG = logging.getLogger(__name__)
_SHARED_TOKEN = ".shared-"
_EXIT_WAIT_S = 30.0  # for a save in flight when training ends by an exception: a dead peer must not hold us for long
_GO, _ALREADY_SAVED, _FAILED, _OUT_OF_REACH = range(4)


class Checkpoints:
  """The checkpoints of one run. With several processes, each calls every method, in the same order.

  Attributes:
    folder: RUN/checkpoints.
    blocking_s: seconds that the last `save` held its caller.
    writing_s: seconds from the start of the last finished save to its manifest; NaN before the first.
  """

  def __init__(
    self,
    folder: str | Path,
    *,
    keep: int = 2,
    keep_best: bool = True,
    on_damage: Literal["fall_back", "stop"] = "fall_back",
    timeout_s: float = 600.0,
    exchange: Callable[[str, Any], list[Any]] | None = None,
  ) -> None:
    """Makes the folder.

    Args:
      folder: RUN/checkpoints; with several hosts on a file system that all of them see, or in a bucket.
      keep: newest checkpoints to keep; with 2, a damaged newest one costs one interval and not the run.
      keep_best: also keep the one with the highest metric.
      on_damage: what `restore` does if the newest checkpoint is damaged: warn and take the next older, or stop.
      timeout_s: longest time for writing one checkpoint; a process that waits for a lost one gives up then.
      exchange: (name, value) -> that value of every process, as `Hosts.gather`; a name is used once. Without it, a
        collective of JAX does the same, which on CPUs waits 30 s and no longer: too short while one process hashes.

    Raises:
      PrnError: the folder cannot be written, or the hosts do not see the same one.
    """
    if keep < 1:
      raise PrnError(f"checkpoints to keep: {keep}; at least 1 is needed to resume.")
    self.folder = to_path(folder).resolve()
    self.blocking_s = 0.0
    self.writing_s = math.nan
    self._keep, self._keep_best, self._on_damage = keep, keep_best, on_damage
    self._writes = jax.process_index() == 0
    self._exchange, self._exchanges = exchange, 0
    self._damaged: set[int] = set()
    self._thread: threading.Thread | None = None
    self._failure: tuple[int, Exception] | None = None
    logging.getLogger("absl").addFilter(_is_ours_to_report)  # adding it twice does nothing
    _make_shared_folder(self.folder, self._gather)
    self._checkpointer = ocp.AsyncCheckpointer(
      # Compressing float weights saves a tenth of the size and costs most of the time.
      ocp.PyTreeCheckpointHandler(use_compression=False),
      async_options=ocp.AsyncOptions(timeout_secs=max(1, math.ceil(timeout_s))),
    )

  def save(
    self,
    step: int,
    state: Any,
    meta: Mapping[str, Any],
    *,
    metric: float | None = None,
    metric_of: Mapping[str, Any] | None = None,
    wait: bool = False,
  ) -> bool:
    """Starts a checkpoint, after the one before is finished. The state may be donated as soon as this returns.

    Args:
      step: updates done; the data position follows from it.
      state: pytree of arrays (named tuples, dicts, tuples); None leaves are left out.
      meta: JSON values to keep; "graph_cfg" (cfg text), "name", "names" and "resize" let the run be loaded as a model.
      metric: what "best" means; higher is better. None or NaN: not rated.
      metric_of: what the metric means, as JSON values; only metrics of equal meaning are compared.
      wait: return when the checkpoint is finished.

    Returns:
      False if this step has a finished checkpoint already; it stays, and takes the new rating if one is given.

    Raises:
      CheckpointError: this or the last save failed, or there are checkpoints of later steps.
      BucketError: this or the last save failed, in a bucket.
    """
    started = time.perf_counter()
    self.wait()
    arrays, _ = arrays_of(state)
    value = float(metric) if metric is not None and math.isfinite(metric) else None
    rating = Rating(value, None if metric_of is None else json.loads(json.dumps(metric_of)))
    plan, error = self._prepare(step, arrays, meta, rating) if self._writes else (_GO, None)
    plan = self._from_first_process(plan)
    if plan in (_FAILED, _OUT_OF_REACH):
      text = f"process 0 could not start the checkpoint of step {step}; see its message."
      raise error or (CheckpointError(text) if plan == _FAILED else BucketError(text, is_transient=True))
    if plan == _GO:
      try:
        self._checkpointer.save(
          str(self.folder / str(step) / files.STATE), args=ocp.args.PyTreeSave(nested(arrays)), force=True
        )
      except Exception as failure:
        raise self._save_error(step, failure) from failure
      self._damaged.discard(step)
      self._thread = threading.Thread(target=self._finish, args=(step, rating, started), name=f"checkpoint-{step}")
      self._thread.start()
      if wait:
        self.wait()
    self.blocking_s = time.perf_counter() - started
    _LOG.debug("checkpoint of step %d: training held for %.3f s", step, self.blocking_s)
    return plan == _GO

  def wait(self) -> None:
    """Returns when the save in flight is finished; CheckpointError if it failed."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._failure is not None:
      (step, failure), self._failure = self._failure, None
      raise self._save_error(step, failure) from failure

  def _gather(self, value: int) -> list[int]:
    """One value of every process, in their order; the same answer in all of them."""
    if jax.process_count() == 1:
      return [value]
    if self._exchange is not None:
      self._exchanges += 1
      return list(self._exchange(f"checkpoints {self._exchanges}", value))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.int32(value))).tolist()

  def _from_first_process(self, value: int) -> int:
    """Process 0's value, in every process."""
    return self._gather(value)[0]

  def latest_step(self) -> int | None:
    """The newest finished checkpoint, or None."""
    return _optional(self._from_first_process(max(self._complete(), default=-1)))

  def best_step(self) -> int | None:
    """The finished checkpoint with the highest metric (the earliest of equals), or None if none has a metric."""
    best = files.best_of(self._complete())
    return _optional(self._from_first_process(-1 if best is None else best))

  def best(self, metric_of: Mapping[str, Any] | None = None) -> tuple[int, float] | None:
    """(step, metric) of the best finished checkpoint as this process sees it; None if none has a metric.

    Args:
      metric_of: what the metric must mean; None takes the meaning of the newest.
    """
    ratings = self._complete()
    if metric_of is not None:
      ratings = {step: rating for step, rating in ratings.items() if rating.metric_of == metric_of}
    step = files.best_of(ratings)
    metric = None if step is None else ratings[step].metric
    return None if step is None or metric is None else (step, metric)

  def metrics(self) -> dict[int, float | None]:
    """Step -> metric of the finished checkpoints, as this process sees them."""
    return {step: rating.metric for step, rating in self._complete().items()}

  def metric_of(self, step: int) -> dict[str, Any] | None:
    """What the metric of a checkpoint means; None if it was not evaluated, or is not there."""
    return self._complete().get(step, Rating()).metric_of

  def meta(self, step: int | None = None) -> Meta:
    """Metadata of a checkpoint, by default the one that `restore` would take, without its arrays."""
    step = self._usable(step)
    return self._meta(step)

  def restore(self, example: State, step: int | None = None) -> tuple[State, Meta]:
    """Reads a state back.

    Args:
      example: a state of the wanted structure, shapes, types and shardings: arrays, or `jax.ShapeDtypeStruct`. A leaf
        with a sharding comes back as a `jax.Array` with it, on any number of devices; others as numpy arrays.
      step: the step to restore, by default the newest; a damaged one is passed over with a warning, unless `on_damage` is "stop".

    Returns:
      The state, and the metadata with "step", "metric", "metric_of" and "versions".

    Raises:
      CheckpointError: nothing to restore, a damaged file, or a state of another model or optimiser.
    """
    step = self._usable(step)
    checkpoint = self.folder / str(step)
    targets, structure = arrays_of(example)
    targets = {path: target(leaf) for path, leaf in targets.items()}
    check_state(files.read_meta(checkpoint)["arrays"], targets, checkpoint)
    restored = files.restore_arrays(checkpoint, targets)
    return jax.tree.unflatten(structure, [restored[path] for path in targets]), self._meta(step)

  def close(self) -> None:
    """Waits for the save in flight, and frees Orbax's threads."""
    try:
      self.wait()
    finally:
      self._checkpointer.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if error is None:
      self.close()
    elif self._thread is not None:
      self._thread.join(_EXIT_WAIT_S)
      if self._thread.is_alive() or self._failure:
        latest = "the one before" if is_remote(self.folder) else max(self._complete(), default=None)
        _LOG.warning("the checkpoint in flight could not be finished; the latest stays %s.", latest)

  def _prepare(
    self, step: int, arrays: Mapping[str, Any], meta: Mapping[str, Any], rating: Rating
  ) -> tuple[int, PrnError | None]:
    """What process 0 does before all of them write: decides, clears remains, writes meta.json."""
    checkpoint = self.folder / str(step)
    complete = self._complete()
    try:
      if step in complete:
        if rating not in (Rating(), complete[step]):
          files.write_manifest(checkpoint, step, rating, files.read_manifest(checkpoint)["sha256"])
        return _ALREADY_SAVED, None
      later = [other for other in complete if other > step]
      if later:
        raise CheckpointError(
          f"'{self.folder}' has checkpoints of later steps ({', '.join(map(str, later))}) than {step}: the run went back. "
          "Move them away, or use another workdir."
        )
      files.delete(checkpoint)
      check_space(self.folder, sum(int(array.nbytes) for array in arrays.values()))
      checkpoint.mkdir(parents=True)
      write_text(checkpoint / files.META, json.dumps(described(step, arrays, meta), indent=1))
    except BucketError as error:
      return _OUT_OF_REACH if error.is_transient else _FAILED, error
    except CheckpointError as error:
      return _FAILED, error
    except (PrnError, OSError) as error:
      return _FAILED, self._save_error(step, error)
    return _GO, None

  def _finish(self, step: int, rating: Rating, started: float) -> None:
    """In a thread: waits for Orbax (which waits for all processes), then process 0 declares the checkpoint finished."""
    try:
      self._checkpointer.wait_until_finished()
      if self._writes:
        checkpoint = self.folder / str(step)
        files.write_manifest(checkpoint, step, rating, files.hash_files(checkpoint, durable=True))
        try:
          self._prune()
        except BucketError as error:  # this checkpoint is finished; the next one clears up
          _LOG.warning("old checkpoints in '%s' were not deleted: %s", self.folder, error)
      self.writing_s = time.perf_counter() - started
      _LOG.debug("checkpoint of step %d finished after %.3f s", step, self.writing_s)
    except Exception as error:  # raised where the caller can act on it: by the next save, wait or close
      self._failure = step, error

  def _prune(self) -> None:
    """Deletes what is neither among the newest nor the best: older, unfinished and damaged ones."""
    complete = self._complete()
    kept = set(list(complete)[-self._keep :])
    best = files.best_of(complete) if self._keep_best else None
    for step in files.step_folders(self.folder):
      if step not in kept and step != best:
        try:
          files.delete(self.folder / str(step))
        except (OSError, BucketError) as error:
          _LOG.warning("cannot delete the old checkpoint '%s': %s", self.folder / str(step), _reason(error))

  def _complete(self) -> dict[int, Rating]:
    return {step: rating for step, rating in files.complete_steps(self.folder).items() if step not in self._damaged}

  def _usable(self, step: int | None) -> int:
    """The step to restore, verified. All processes share the reading and agree on the answer."""
    self.wait()
    if step is not None:
      self._verify(step)
      return step
    while (latest := self.latest_step()) is not None:
      self._warn_unfinished(latest)
      try:
        self._verify(latest)
      except CheckpointError as error:
        self._damaged.add(latest)
        older = self.latest_step()
        if self._on_damage == "stop" or older is None:
          raise CheckpointError(
            f"{error} "
            + ("There is no older checkpoint." if older is None else f"The next older checkpoint is of step {older}.")
            + " Restore the file from a copy, or move this checkpoint away."
          ) from None
        _LOG.warning("%s FALLING BACK from step %d to the older checkpoint of step %d.", error, latest, older)
        continue
      return latest
    unfinished = ", ".join(map(str, files.step_folders(self.folder)))
    raise CheckpointError(
      f"'{self.folder}' has no finished checkpoint" + (f" (unfinished: step {unfinished})." if unfinished else ".")
    )

  def _verify(self, step: int) -> None:
    """Raises CheckpointError in every process if any of them finds damage in its share of the files."""
    problem = None
    try:
      files.verify(self.folder / str(step), part=jax.process_index(), parts=jax.process_count())
    except CheckpointError as error:
      problem = error
    bad = _where(self._gather(int(problem is not None)))
    if bad:
      raise problem or CheckpointError(f"checkpoint '{self.folder / str(step)}': process {bad[0]} found damage.")

  def _warn_unfinished(self, latest: int) -> None:
    newer = [step for step in files.step_folders(self.folder) if step > latest and step not in self._damaged]
    if newer and self._writes:
      reasons = []
      for step in newer:
        try:
          files.read_manifest(self.folder / str(step))
        except CheckpointError as error:
          reasons.append(str(error))
      _LOG.warning("%s Resuming from step %d.", " ".join(reasons), latest)

  def _meta(self, step: int) -> Meta:
    checkpoint = self.folder / str(step)
    stored = files.read_meta(checkpoint)
    return {
      **stored["meta"],
      "step": step,
      **files.rating_of(files.read_manifest(checkpoint))._asdict(),
      "versions": stored["versions"],
    }

  def _save_error(self, step: int, error: Exception) -> PrnError:
    if is_remote(self.folder):  # which is not asked for the latest one: it may be out of reach
      cause = bucket_error(self.folder, error)
      return BucketError(
        f"the checkpoint of step {step} could not be written: {cause} The finished ones are as they were.",
        is_transient=cause.is_transient,
      )
    latest = max(self._complete(), default=None)
    return CheckpointError(
      f"the checkpoint of step {step} could not be written to '{self.folder}': {_first_line(error)} "
      + (f"The latest finished one is of step {latest}. " if latest is not None else "There is no earlier one. ")
      + "Make room or repair the place, then run again."
    )


def _is_ours_to_report(record: logging.LogRecord) -> bool:
  """False for the stack traces that Orbax logs from each thread when a save fails; `Checkpoints.wait` raises the reason."""
  return record.levelno < logging.ERROR or not record.pathname.endswith(("async_checkpointer.py", "futures/future.py"))


def _make_shared_folder(folder: Path, gather: Callable[[int], list[int]]) -> None:
  """Makes the folder, and checks that it can be written and that all processes see the same one."""
  problem: OSError | BucketError | None = None
  token = folder / f"{_SHARED_TOKEN}{gather(secrets.randbits(30))[0]}"
  if jax.process_index() == 0:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      token.touch()
    except (OSError, BucketError) as error:
      problem = error
  if any(gather(int(problem is not None))):
    if isinstance(problem, BucketError):
      raise problem
    reason = (problem.strerror or str(problem)) if problem else "see the message of process 0"
    raise PrnError(f"cannot write checkpoints to '{folder}': {reason}. Give another workdir.") from problem
  blind = _where(gather(int(not token.exists())))
  if jax.process_index() == 0:
    token.unlink(missing_ok=True)
  if blind:
    raise PrnError(
      f"checkpoint folder '{folder}': processes {', '.join(map(str, blind))} do not see what process 0 wrote there. "
      "Put the workdir on a file system that all hosts share (NFS, Filestore), or in a bucket (gs://BUCKET/NAME)."
    )


def _where(flags: list[int]) -> list[int]:
  """Indices of the processes whose flag is set."""
  return [index for index, flag in enumerate(flags) if flag]


def _reason(error: OSError | BucketError) -> str:
  return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _optional(step: int) -> int | None:
  return None if step < 0 else step


def _first_line(error: Exception) -> str:
  text = str(error).strip().splitlines()
  return (text[0] if text else type(error).__name__).rstrip(".") + "."
