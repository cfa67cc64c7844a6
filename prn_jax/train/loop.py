"""The training loop: steps, log lines, evaluations, checkpoints, and what happens when something ends it early.

A run is a function of its configuration: batches follow from (seed, step), so that its whole state is what the
checkpoint holds. Starting in a directory that has checkpoints goes on after the newest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.pipeline import batch_at, size_of_step, train_batches
from prn_jax.formats.files import write_text
from prn_jax.network import flatten_variables
from prn_jax.train import step as steps
from prn_jax.train.checkpoint import Checkpoints
from prn_jax.train.config import ConfigError, differences, to_dict
from prn_jax.train.curves import write_curves
from prn_jax.train.diagnose import DivergedError, diagnosis
from prn_jax.train.evaluation import Figures
from prn_jax.train.experiment import Experiment, Size, environment
from prn_jax.train.hosts import Hosts, Preemption
from prn_jax.train.log import MetricsLog, Stopwatch, progress_line, say
from prn_jax.train.prefetch import on_devices
from prn_jax.train.sharding import put_state
from prn_jax.train.watchdog import Watchdog

SLOW_SEC = 3600.0  # longest evaluation, save or report
STEPS_IN_FLIGHT = 2  # so that a signal, or a step that hangs, is noticed soon


class Reason(StrEnum):
  """Why a run ended."""

  DONE = "done"
  PREEMPTED = "preempted"


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a run came to.

  Attributes:
    reason: see `Reason`.
    step: updates done.
    values: figures of the last evaluation.
    best: (step, figure) of the best checkpoint, if anything was evaluated.
    seconds: duration of this part of the run.
    digest: sha256 of the parameters.
  """

  reason: Reason
  step: int
  values: dict[str, float]
  best: tuple[int, float] | None
  seconds: float
  digest: str

  def to_json(self) -> dict[str, Any]:
    """The last line of `prn train --json`."""
    return {
      "reason": str(self.reason),
      "step": self.step,
      "metrics": self.values,
      "best": None if self.best is None else {"step": self.best[0], "metric": self.best[1]},
      "seconds": self.seconds,
      "params_sha256": self.digest,
    }


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
  _check_hosts(experiment, hosts)
  if hosts.is_main:
    _prepare(experiment, workdir, allow_changes)
  hosts.gather("run directory", None)  # nobody looks at it before it is complete
  with Checkpoints(workdir / "checkpoints", keep=experiment.config.keep_checkpoints) as checkpoints:
    return _Run(experiment, workdir, checkpoints, hosts).run()


class _Run:
  """One life of a run in this process."""

  def __init__(self, experiment: Experiment, workdir: Path, checkpoints: Checkpoints, hosts: Hosts) -> None:
    self.experiment, self.workdir, self.checkpoints, self.hosts = experiment, workdir, checkpoints, hosts
    self.config, self.is_main = experiment.config, hosts.is_main
    self.watchdog = Watchdog(hosts)
    self.compiled: set[Size] = set()
    self.state, self.start_step = self._start()
    hosts.check_same({"first step": self.start_step}, "first step")
    self.log = MetricsLog(workdir, self.start_step) if self.is_main else None
    self.watch = Stopwatch(self.config.batch_size, self.start_step, experiment.total_steps)
    self.values: dict[str, float] = {}
    self.figures: Figures | None = None
    self.best = checkpoints.best()
    self.pending: list[Any] = []

  def run(self) -> Outcome:
    began, total = time.perf_counter(), self.experiment.total_steps
    reason, done = Reason.DONE, self.start_step
    with self.watchdog, Preemption(self.hosts) as preemption, self._batches() as batches:
      flying: deque[Any] = deque()
      for done, batch in self._timed(batches):
        flying.append(self._step(done, batch))
        if len(flying) > STEPS_IN_FLIGHT:
          jax.block_until_ready(flying.popleft())
          self.watchdog.feed(done - STEPS_IN_FLIGHT)
        done += 1
        self._after(done)
        if done < total and preemption.requested(done):
          reason = Reason.PREEMPTED
          break
      with self.watchdog.phase("the last checkpoint and report", SLOW_SEC):
        self._finish(done, reason)
    return Outcome(
      reason=reason,
      step=done,
      values=self.values,
      best=self.best,
      seconds=time.perf_counter() - began,
      digest=digest(self.state.params),
    )

  def _step(self, step: int, batch: Any) -> Any:
    """Starts one update; gives what is ready when it is done."""
    height, width = batch["image"].shape[1:3]
    with self._profiled(step), self._compiling((width, height)):
      self.state, metrics = self.experiment.steps[width, height](self.state, batch)
    self.pending.append(metrics)
    return metrics["loss"]

  @contextlib.contextmanager
  def _compiling(self, size: Size) -> Iterator[None]:
    """Gives the first step of every size its time, and keeps it out of the speed."""
    if size in self.compiled:
      yield
      return
    self.compiled.add(size)
    began = time.perf_counter()
    with self.watchdog.phase(f"the first step at {size[0]}x{size[1]}", self.config.hosts.first_step_timeout_sec):
      yield
      jax.block_until_ready(self.state.step)
    self.watch.paused(time.perf_counter() - began)

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
    source = train_batches(
      experiment.dataset,
      self.config.augment,
      experiment.pipeline,
      start_step=self.start_step,
      num_steps=experiment.total_steps,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    with contextlib.closing(source), on_devices(iter(source), experiment.mesh) as batches:
      yield batches

  def _timed(self, batches: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    while True:
      began = time.perf_counter()
      item = next(batches, None)
      self.watch.waited(time.perf_counter() - began)
      if item is None:
        return
      yield item

  def _after(self, done: int) -> None:
    """What is due after `done` updates."""
    experiment, is_last = self.experiment, done == self.experiment.total_steps
    if is_last or (experiment.log_steps and done % experiment.log_steps == 0):
      self._log(done)
    metric = None
    if experiment.evaluator and (is_last or (experiment.eval_steps and done % experiment.eval_steps == 0)):
      metric = self._evaluate(done)
    if is_last or metric is not None or done % experiment.checkpoint_steps == 0:
      self._save(done, metric)

  def _log(self, done: int) -> None:
    self._check_finite()
    summed = jax.tree.map(lambda *parts: np.sum(parts, 0), *jax.device_get(self.pending))
    self.pending.clear()
    values = steps.mean(summed) | {"learning_rate": float(self.experiment.schedule(done - 1))} | self.watch.lap(done)
    if self.log:
      self.log.write(done, {key: value for key, value in values.items() if key != "eta_sec"})
      say(progress_line(done, self.experiment.total_steps, values))

  def _evaluate(self, done: int) -> float:
    self._check_finite()
    assert self.experiment.evaluator is not None
    began = time.perf_counter()
    with self.watchdog.phase("evaluation", SLOW_SEC):
      self.figures = self.experiment.evaluator(steps.eval_variables(self.state))
    self.values, name = self.figures.values, self.experiment.evaluator.metric
    metric, seconds = self.values[name], time.perf_counter() - began
    self.watch.paused(seconds)
    if self.best is None or metric > self.best[1]:
      self.best = (done, metric)
    if self.log:
      self.log.write(done, {f"eval/{key}": value for key, value in self.values.items()})
      shown = "  ".join(f"{key} {value:.4f}" for key, value in list(self.values.items())[:4])
      say(f"evaluation at step {done:,}: {shown}  ({seconds:.0f} s)")
    return metric

  def _save(self, done: int, metric: float | None) -> None:
    self._check_finite()
    began = time.perf_counter()
    with self.watchdog.phase("saving a checkpoint", SLOW_SEC):
      self.checkpoints.save(done, self.state, run_metadata(self.experiment), metric=metric)
    self.watch.paused(time.perf_counter() - began)

  def _finish(self, done: int, reason: Reason) -> None:
    """The last checkpoint, and, at the end of the run, the report of the evaluation."""
    if self.checkpoints.latest_step() != done:
      self._save(done, None)
    self.checkpoints.wait()
    if reason is Reason.PREEMPTED:
      self._say(f"asked to stop: saved step {done:,}. The same command goes on from here.")
    elif self.experiment.evaluator:
      self._report(done)
    if self.log:
      self.log.close()
      write_curves(self.workdir)
    problems = self.experiment.dataset.problems
    if problems:
      self._say(f"{len(problems)} bad entries were left out of the training data ('prn data inspect' lists them)")

  def _report(self, done: int) -> None:
    """Tables, curves and pictures of the last evaluation, once in a run's life."""
    assert self.experiment.evaluator is not None
    folder = self.workdir / "eval"
    if self.hosts.gather("report exists", folder.is_dir())[0] and self.figures is None:
      return
    if self.figures is None:  # killed between the last checkpoint and the report
      self._evaluate(done)
    if self.is_main and self.figures is not None:
      self.experiment.evaluator.report(self.figures, folder, self.config.eval.num_pictures)

  def _check_finite(self) -> None:
    """Raises DivergedError after a step that was not finite."""
    bad_step = int(self.state.bad_step)
    if bad_step == steps.NEVER:
      return
    experiment = self.experiment
    rate = float(experiment.schedule(bad_step))
    batch = batch_at(experiment.dataset, self.config.augment, experiment.pipeline, bad_step, experiment.total_steps)
    ids = [experiment.dataset[int(index)].image_id for index in batch["index"]]
    recipe = experiment.recipes[size_of_step(experiment.pipeline, bad_step, experiment.total_steps)]
    with self.watchdog.phase("the search for what diverged", SLOW_SEC):
      raise DivergedError(diagnosis(jax.device_get(self.state), batch, recipe, ids, rate))

  @contextlib.contextmanager
  def _profiled(self, step: int) -> Iterator[None]:
    """A profiler trace over the steps that the configuration asks for."""
    window = self.config.profile_steps
    if window and step == window[0]:
      jax.profiler.start_trace(str(self.workdir / "profile"))
    yield
    if window and step == window[-1]:
      jax.block_until_ready(self.state)
      jax.profiler.stop_trace()

  def _say(self, text: str) -> None:
    if self.is_main:
      say(text)


def run_metadata(experiment: Experiment) -> dict[str, Any]:
  """What a checkpoint keeps beside the state, so that it can be used without the run directory."""
  return {
    "config": to_dict(experiment.config),
    "name": experiment.graph.name,
    "graph_cfg": experiment.graph_cfg(),
    "names": list(experiment.names),
    "resize": experiment.resize,
  }


def digest(params: Any) -> str:
  """sha256 over names, shapes and bytes of the parameters."""
  total = hashlib.sha256()
  for key, value in sorted(flatten_variables(jax.device_get(params)).items()):
    total.update(f"{key} {value.shape} {value.dtype}\n".encode())
    total.update(np.ascontiguousarray(value).tobytes())
  return total.hexdigest()


def _check_hosts(experiment: Experiment, hosts: Hosts) -> None:
  """Raises HostsDifferError unless all processes are about to do the same."""
  text = json.dumps(to_dict(experiment.config), sort_keys=True)
  facts: dict[str, str | int | float] = {
    "config": hashlib.sha256(text.encode()).hexdigest()[:12],
    "training images": len(experiment.dataset),
    "classes": ",".join(experiment.names),
    "steps": experiment.total_steps,
  }
  hosts.check_same(facts)


def _prepare(experiment: Experiment, workdir: Path, allow_changes: bool) -> None:
  """Makes the run directory, or checks that the one that exists is of the same configuration."""
  file, now = workdir / "config.json", json.loads(json.dumps(to_dict(experiment.config)))
  if file.is_file():
    try:
      old = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
      raise ConfigError(f"'{file}' is damaged. Restore it, or use another --workdir.") from None
    changed = differences(old, now)
    if changed and not allow_changes:
      listed = "\n  ".join(changed[:10])
      raise ConfigError(
        f"'{workdir}' holds a run of another configuration:\n  {listed}\nUse another --workdir, take the old values, or "
        "give --allow-changes to go on with the new ones."
      )
  elif workdir.is_dir() and any(not path.name.startswith(".config.json.") for path in workdir.iterdir()):
    raise ConfigError(f"'{workdir}' is not empty and holds no run (no config.json). Give a new --workdir.")
  write_text(file, json.dumps(now, indent=1))
  write_text(workdir / "graph.cfg", experiment.graph_cfg())
  write_text(workdir / "env.json", json.dumps(environment(experiment), indent=1))
