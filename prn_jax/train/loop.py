"""The training loop: steps, log lines, evaluations, checkpoints, and what happens when something ends it early.

A run is a function of its configuration: batches follow from (seed, step), so that its whole state is what the
checkpoint holds. Starting in a directory that has checkpoints goes on after the newest.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from prn_jax import interrupts
from prn_jax.compiling import compiling
from prn_jax.data_pipelines.feed.pipeline import TrainBatches, batch_at, first_rows, size_of_step, train_batches
from prn_jax.errors import BucketError, PrnError
from prn_jax.files.disk import write_text
from prn_jax.files.json_text import json_text
from prn_jax.files.places import folder_beside
from prn_jax.formats.checkpoints import FOLDER
from prn_jax.formats.safetensors import digest
from prn_jax.graph.sizes import Size
from prn_jax.hosts.group import Hosts, Preemption
from prn_jax.hosts.starts import Starts
from prn_jax.hosts.watchdog import Watchdog
from prn_jax.network import flatten_variables
from prn_jax.run.mesh import compiled, put_state
from prn_jax.train import bad_data, diagnose
from prn_jax.train import step as steps
from prn_jax.train.advice import FILE as WHY_ZERO
from prn_jax.train.advice import why_zero
from prn_jax.train.agreement import check_hosts, metric_of
from prn_jax.train.checkpoint import Checkpoints
from prn_jax.train.curves import write_curves
from prn_jax.train.diagnose import DivergedError, Suspect, diagnosis
from prn_jax.train.evaluation import Figures
from prn_jax.train.experiment import Experiment
from prn_jax.train.export import NAMES as BEST
from prn_jax.train.export import write_best
from prn_jax.train.gammas import write_gammas, write_picture
from prn_jax.train.lock import locked, nothing
from prn_jax.train.log import MetricsLog, Stopwatch, evaluations, last_evaluation, progress_line, say
from prn_jax.train.outcome import Outcome, Reason
from prn_jax.train.pauses import Pauses
from prn_jax.train.prefetch import on_devices
from prn_jax.train.profile import Tracer
from prn_jax.train.ratings import Ratings
from prn_jax.train.rundir import STEP_FILE, prepare, record, reported_step, run_metadata
from prn_jax.train.samples import MOST as MOST_SAMPLES
from prn_jax.train.samples import write_training_samples, write_validation_samples
from prn_jax.train.sharding import StepFn, put_constants
from prn_jax.train.sparse import sparsity_figures
from prn_jax.train.step_metrics import Totals

STEPS_IN_FLIGHT = 2  # so that a signal, or a step that hangs, is noticed soon


def train(experiment: Experiment, workdir: Path, hosts: Hosts | None = None, *, allow_changes: bool = False) -> Outcome:
  """Runs an experiment to its end, or to the end of this process's life.

  Args:
    experiment: see `open_experiment`.
    workdir: run directory; a run in it is taken up again.
    hosts: the processes of the run, from `initialize`; None is this one alone.
    allow_changes: go on although the configuration differs from that of the run in `workdir`.

  Raises:
    ConfigError: `workdir` holds a run of another configuration. DivergedError: loss or gradient not finite.
    PrnError: bad data, or a directory that cannot be written.
  """
  hosts = hosts or Hosts()
  # The lock first: while it waits for a dead owner there is nothing to save, and a signal may end this process at once.
  lock = locked(workdir, hosts) if hosts.is_main else contextlib.nullcontext(nothing)
  with lock as confirm_lock, Preemption(hosts) as preemption:
    check_hosts(experiment, hosts)
    prepared = prepare(experiment, workdir, allow_changes) if hosts.is_main else None
    hosts.gather("run directory", None)  # nobody looks at it before it is complete
    with (
      Checkpoints(workdir / FOLDER, keep=experiment.config.keep_checkpoints, exchange=_exchange(hosts)) as checkpoints,
      Starts(workdir, hosts, checkpoints.latest_step() or 0) as starts,
    ):
      run = _Run(experiment, workdir, checkpoints, hosts, preemption, starts, confirm_lock)
      if prepared is not None:
        record(experiment, workdir, prepared, run.start_step)
      return run.run()


def _exchange(hosts: Hosts) -> Callable[[str, Any], list[Any]] | None:
  """`Hosts.gather` with the patience of a save: process 0 may hash for minutes before it answers."""
  if hosts.peers is None:
    return None
  return functools.partial(hosts.gather, timeout_sec=hosts.settings.pause_timeout_sec)


class _AskedToStop(Exception):
  """Ends an evaluation between two batches."""


class _Run:
  """One life of a run in this process."""

  def __init__(
    self, experiment: Experiment, workdir: Path, checkpoints: Checkpoints, hosts: Hosts, preemption: Preemption,
    starts: Starts, confirm_lock: Callable[[], None],
  ) -> None:  # fmt: skip
    self.experiment, self.workdir, self.checkpoints, self.hosts = experiment, workdir, checkpoints, hosts
    self.preemption, self.starts, self.confirm_lock = preemption, starts, confirm_lock
    self.config, self.is_main = experiment.config, hosts.is_main
    self.watchdog = Watchdog(hosts)
    self.tracer = Tracer(workdir / "profile", self.config.profile_steps)
    self.programs: dict[Size, StepFn] = {}
    self.state, self.start_step = self._start()
    self.constants = put_constants(experiment.objective.constants, experiment.mesh, experiment.objective.specs)
    hosts.check_same({"first step": self.start_step}, "first step")
    self.log = MetricsLog(workdir, self.start_step) if self.is_main else None
    self.watch = Stopwatch(self.config.batch_size, self.start_step, experiment.total_steps)
    pauses = Pauses(hosts, self.watchdog, self.watch, self.config.hosts.pause_timeout_sec)
    self.pause, self.meet = pauses.pause, pauses.meet
    self.values: dict[str, float] = {}
    self.figures: Figures | None = None
    self.metric_of = metric_of(experiment)
    best = checkpoints.best(self.metric_of or None)
    self.ratings = Ratings(self.metric_of.get("name", ""), self.config.eval.patience, best)
    self.totals = Totals()
    self.source: TrainBatches

  def run(self) -> Outcome:
    began, done = time.perf_counter(), self.start_step
    with self._rows_kept(), self.watchdog, self.tracer, self._batches() as batches:
      is_stopped = done < self.experiment.total_steps and self.preemption.requested(done)
      is_stopped = is_stopped or not self._make_up_evaluation()
      if not is_stopped and not self.ratings.is_over:
        self._show_training_images()
        done, is_stopped = self._train(batches)
      with self.pause("the end of the run"):
        reason = self._finish(done, is_stopped)
    return Outcome(
      reason=reason,
      step=done,
      values=self.values,
      best=self.ratings.best,
      seconds=time.perf_counter() - began,
      digest=digest(flatten_variables(jax.device_get(self.state.params))),
    )

  @contextlib.contextmanager
  def _rows_kept(self) -> Iterator[None]:
    """Brings the last rows to a run directory in a bucket when the run ends early, unless it ends because of that."""
    try:
      yield
    except BaseException as error:
      if self.log and not isinstance(error, BucketError):
        with contextlib.suppress(BucketError):
          self.log.push()
      raise

  def _train(self, batches: Iterator[tuple[int, Any]]) -> tuple[int, bool]:
    """All steps that are left. The whole order of a training is in this function; do not change it lightly.

    The checkpoint comes before the evaluation: that may take long, and what ends the run meanwhile must not cost steps.
    Every process asks once after each step whether to stop, for all of them must get the same answer.

    Returns:
      How many updates are done, and whether the run was asked to stop before its end.
    """
    done, flying = self.start_step, deque[Any]()
    for step, batch in self._timed(batches):
      flying.append(self._step(step, batch))
      if len(flying) > STEPS_IN_FLIGHT:
        jax.block_until_ready(flying.popleft())
        self.watchdog.feed(step - STEPS_IN_FLIGHT)
        if not self.totals.add_up(num_running=len(flying)):
          self._check_finite()
      done = step + 1
      if self._is_logged(done):
        self._log(done)
      if self._is_saved(done):
        self._save(done)
      if done < self.experiment.total_steps and self.preemption.requested(done):
        return done, True
      if self._is_evaluated(done):
        if not self._evaluate(done):
          return done, True
        self._rate(done)
      if self.ratings.is_over:
        break
    return done, False

  def _step(self, step: int, batch: Any) -> Any:
    """Starts one update; returns what is ready when it is done."""
    height, width = batch["image"].shape[1:3]
    self.tracer.before(step)
    with self._compiled((width, height), batch) as program:
      self.state, metrics = program(self.state, batch, self.constants)
    self.tracer.after(step, metrics)
    self.totals.add(metrics)
    return metrics["loss"]

  @contextlib.contextmanager
  def _compiled(self, size: Size, batch: Any) -> Iterator[StepFn]:
    """The program of a size. Gives the first step its time, and keeps it out of the speed.

    All processes compile before any of them starts: some find the program in their cache, others compile for minutes,
    and a collective does not wait so long (Gloo, of CPUs: 30 s).
    """
    if size in self.programs:
      yield self.programs[size]
      return
    name, limit_sec = f"the first step at {size[0]}x{size[1]}", self.config.hosts.first_step_timeout_sec
    config, is_new = self.config, not self.programs  # before the first step there is nothing to save
    what = f"the step of {self.experiment.graph.name} {size[0]}x{size[1]}, batch {config.batch_size}, {config.dtype}"
    with self.pause(name, limit_sec, is_first_step=True):
      with contextlib.ExitStack() as stack:
        if self.is_main:
          stack.enter_context(compiling(f"{what}, {jax.default_backend()}"))
        if is_new:
          stack.enter_context(interrupts.hasty())
        self.programs[size] = compiled(self.experiment.steps[size], self.state, batch, self.constants)
      self.meet(name, limit_sec)
      yield self.programs[size]
      jax.block_until_ready(self.state.step)
    self.starts.succeeded()

  def _start(self) -> tuple[steps.TrainState, int]:
    """The state to begin with: the newest checkpoint's, or a new one."""
    experiment = self.experiment
    state = put_state(jax.device_get(steps.init_state(experiment.variables, experiment.recipe)), experiment.mesh)
    if self.checkpoints.latest_step() is None:
      self._say(str(experiment.start))
      return state, 0
    state, _ = self.checkpoints.restore(state)
    self._say(f"going on in {self.workdir}/ after step {int(state.step):,}")
    return state, int(state.step)

  @contextlib.contextmanager
  def _batches(self) -> Iterator[Iterator[tuple[int, Any]]]:
    experiment = self.experiment
    self.source = train_batches(
      experiment.dataset,
      self.config.augment,
      experiment.pipeline,
      start_step=self.start_step,
      num_steps=experiment.total_steps,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    with self.source, on_devices(iter(self.source), experiment.mesh) as batches:
      yield batches

  def _timed(self, batches: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    while True:
      began = time.perf_counter()
      item = next(batches, None)
      self.watch.waited(time.perf_counter() - began)
      if item is None:
        return
      yield item

  def _is_logged(self, done: int) -> bool:
    every = self.experiment.log_steps
    return done == self.experiment.total_steps or (every > 0 and done % every == 0)

  def _is_saved(self, done: int) -> bool:
    is_due = done == self.experiment.total_steps or done % self.experiment.checkpoint_steps == 0
    return is_due or self._is_evaluated(done)

  def _is_evaluated(self, done: int) -> bool:
    every = self.experiment.eval_steps
    is_due = done == self.experiment.total_steps or (every > 0 and done % every == 0)
    return self.experiment.evaluator is not None and done > 0 and is_due

  def _make_up_evaluation(self) -> bool:
    """What an earlier part of the run evaluated, and the evaluation of its checkpoint if it ended before that; False if
    it was asked to stop meanwhile."""
    if self.experiment.evaluator is None:
      return True
    done = self.start_step
    name, rated = self.ratings.name, self.checkpoints.metric_of(done) == self.metric_of
    own = (last_evaluation(self.workdir, done), rated, evaluations(self.workdir, name, done))
    found, is_rated, history = self.hosts.gather("last evaluation", own if self.is_main else None)[0]
    self.ratings.take_up(history)
    if found:
      self.values = found[1]
    if self._is_evaluated(done) and not (is_rated and found and found[0] == done):
      return self._evaluate(done) and self._rate(done)
    return True

  def _log(self, done: int) -> None:
    self._check_finite()
    values = self.totals.take() | {"learning_rate": float(self.experiment.schedule(done - 1))} | self.watch.lap(done)
    if self.log:
      if self.experiment.sparsity:
        values |= sparsity_figures(list(self._scales().values()))
        values["sparse/strength"] = float(self.experiment.sparsity.strength(done - 1))
      self.log.write(done, {key: value for key, value in values.items() if key != "eta_sec"})
      say(progress_line(done, self.experiment.total_steps, values))

  def _evaluate(self, done: int) -> bool:
    """Figures of the state after `done` updates; False if it was asked to stop meanwhile, and there are none."""
    self._check_finite()
    assert self.experiment.evaluator is not None
    began = time.perf_counter()
    with self.pause("evaluation") as renew:

      def on_batch() -> None:
        if self.preemption.is_noticed:
          raise _AskedToStop
        renew()

      def on_compiled() -> None:
        self.meet("the first evaluation")
        renew()

      try:
        on_batch()
        self.figures = self.experiment.evaluator(steps.eval_variables(self.state), on_batch, on_compiled)
      except _AskedToStop:
        return False
    self.values = self.figures.values
    if self.log:
      self.log.write_evaluation(done, self.values, self.figures.point)
      shown = "  ".join(f"{key} {value:.4f}" for key, value in list(self.values.items())[:4])
      say(f"evaluation at step {done:,}: {shown}  ({time.perf_counter() - began:.0f} s)")
      if reason := self._why_zero(done):
        say(f"  {reason}")
    return True

  def _why_zero(self, done: int) -> str:
    return why_zero(self.experiment, self.figures, self.ratings.name, done) if self.figures else ""

  def _rate(self, done: int) -> bool:
    """Notes in the checkpoint of `done` updates what its evaluation gave; True, so that it can follow `_evaluate`."""
    figure = self.values.get(self.ratings.name, math.nan)
    self.ratings.add(done, figure)
    self._save(done, metric=figure, metric_of=self.metric_of)
    if self.ratings.is_over and done < self.experiment.total_steps:
      self._say(self.ratings.why_over(done, self.experiment.total_steps))
    return True

  def _save(self, done: int, **rating: Any) -> None:
    self._check_finite()
    with self.pause("saving a checkpoint"):
      self.confirm_lock()
      if self.log:
        if self.experiment.sparsity:
          scales = self._scales()
          self.log.histograms(done, {f"gamma/{name}": values for name, values in scales.items()})
          write_gammas(self.workdir, done, scales)
        self.log.push()
      self.checkpoints.save(done, self.state, run_metadata(self.experiment, done), **rating)

  def _scales(self) -> dict[str, Any]:
    """The scales of batch norm that are pressed, averaged where there are averages: what a pruning would see."""
    assert self.experiment.sparsity is not None
    scales: dict[str, Any] = jax.device_get(self.experiment.sparsity.scales(steps.eval_variables(self.state)["params"]))
    return scales

  def _finish(self, done: int, is_stopped: bool) -> Reason:
    """The last log line and checkpoint, and, at the end of the run, the report of the evaluation."""
    self.tracer.stop(self.state)
    if self.totals:
      self._log(done)
    if self.checkpoints.latest_step() != done:
      self._save(done)
    self.checkpoints.wait()
    if is_stopped or (is_stopped := not self._report(done)):
      self._say(f"asked to stop: saved step {done:,}. The same command goes on from here.")
    elif self.tracer.problem() and done > self.start_step:
      self._say(self.tracer.problem())
    if self.log:
      self.log.close()
      write_curves(self.workdir)
      if self.experiment.sparsity:
        write_picture(self.workdir, self._scales())
      if not is_stopped and (done > self.start_step or not any((self.workdir / name).exists() for name in BEST)):
        with self.pause("writing the best weights"):
          self._say(f"best weights as one file: {self.workdir / write_best(self.workdir)}")
    self._tell_bad_data()
    return Reason.PREEMPTED if is_stopped else Reason.DONE

  def _show_training_images(self) -> None:
    """A sheet of what the first steps see, at the start of a run."""
    experiment = self.experiment
    if self.is_main and not self.start_step:
      with contextlib.suppress(PrnError):  # the training meets the same image, and says what is to be said
        rows = first_rows(
          experiment.dataset, self.config.augment, experiment.pipeline, MOST_SAMPLES, experiment.total_steps
        )
        write_training_samples(rows, experiment.names, self.workdir)

  def _tell_bad_data(self) -> None:
    found = bad_data.collect(self.experiment, self.source.report)
    if self.is_main and (found := bad_data.write(found, self.workdir, is_resumed=self.start_step > 0)):
      say(found.text(self.workdir / bad_data.FILE, self.config.data.max_boxes))

  def _report(self, done: int) -> bool:
    """Tables, curves and pictures of the last evaluation, once in a run's life; False if it was asked to stop before."""
    evaluator, folder = self.experiment.evaluator, self.workdir / "eval"
    if evaluator is None:
      return True
    is_reported = self.hosts.gather("reported step", reported_step(folder))[0] == done
    if is_reported and self.figures is None:
      return True
    if self.figures is None and not (
      self._evaluate(done) and self._rate(done)
    ):  # killed between the last evaluation and the report
      return False
    if self.log and self.figures is not None:
      # In place of that of the run before it was made longer, if it was.
      with self.pause("the report"), folder_beside(folder, STEP_FILE) as part:
        evaluator.report(self.figures, part, self.config.eval.num_pictures)
        self.log.pictures(done, part / "examples")
        write_validation_samples(sorted((part / "examples").glob("*.jpg")), self.workdir)
        if reason := self._why_zero(done):
          write_text(part / WHY_ZERO, f"{reason}\n")
        write_text(part / STEP_FILE, f"{done}\n")
    return True

  def _check_finite(self) -> None:
    """Raises DivergedError after a step that was not finite."""
    bad_step = int(self.state.bad_step)
    if bad_step == steps.NEVER:
      return
    experiment, total = self.experiment, self.experiment.total_steps
    suspect = Suspect(
      state=self.state,
      recipe=experiment.recipes[size_of_step(experiment.pipeline, bad_step, total)],
      mesh=experiment.mesh,
      bn_scope=self.config.bn_scope,
      rate=float(experiment.schedule(bad_step)),
      constants=self.constants,
      meet=lambda: self.meet("the search for what diverged"),
    )
    with self.pause("the search for what diverged"):
      found = diagnosis(
        suspect,
        lambda: batch_at(experiment.dataset, self.config.augment, experiment.pipeline, bad_step, total),
        lambda index: experiment.dataset[index].image_id,
        self.config.augment.group_size,
      )
    file = self.workdir / diagnose.FILE
    if self.is_main:
      with contextlib.suppress(PrnError):  # a full disk is not why this run ends
        write_text(file, json_text(found.to_json(), indent=1))
    raise DivergedError(found.text(file))

  def _say(self, text: str) -> None:
    if self.is_main:
      say(text)
