"""Several trainings after another in one process; what is finished is not repeated.

An experiment's folder has runs/NAME/, the run directory of `prn train` with result.json once it is done. Starting again
goes on where the last call ended, even within a run.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.files.disk import write_text
from prn_jax.files.structured import read_json
from prn_jax.files.values import Node, shown
from prn_jax.graph.cost import cost
from prn_jax.run.machine import machine
from prn_jax.train.config import TrainConfig, differences, to_dict

RESULT = "result.json"
STRIDE = 32


@dataclasses.dataclass(frozen=True)
class Job:
  """One training.

  Attributes:
    variant: what is compared, such as "shrink:0.5".
    seed: the seed of initialisation, order and augmentation.
    config: the configuration of the training; its seed is `seed`.
    group: what belongs into one table, such as a data set.
  """

  variant: str
  seed: int
  config: TrainConfig
  group: str = ""

  @property
  def name(self) -> str:
    """Of its folder."""
    variant = self.variant.replace(":", "_").replace(".", "").replace(", ", "_")
    parts = [self.group, variant, f"seed{self.seed}"]
    return "_".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished training.

  Attributes:
    group, variant, seed: see `Job`.
    params, bflops: the cost of the network; see `prn_jax.graph.cost`.
    train_images, epochs: size of the training set, and how often it was seen.
    seconds: duration of training, with evaluations.
    values: name -> figure at the end of training.
    curve: rows {"epoch", name -> figure} of the evaluations.
    loss: rows (epoch, training loss).
    machine: the machine on which it, or its last part, ran; see `prn_jax.run.machine`. None if that is not known.
  """

  group: str
  variant: str
  seed: int
  params: int
  bflops: float
  train_images: int
  epochs: float
  seconds: float
  values: dict[str, float]
  curve: list[dict[str, float]]
  loss: list[tuple[float, float]]
  machine: Mapping[str, Any] | None = None


def finished(jobs: Sequence[Job], out: Path) -> list[Result]:
  """Results of the jobs that are done, in the order of the jobs.

  Raises:
    PrnError: a result belongs to another configuration.
  """
  return [result for job in jobs if (result := _read(job, out)) is not None]


def run_missing(
  jobs: Sequence[Job], out: Path, max_jobs: int | None = None, prepare: Callable[[Job], None] | None = None
) -> Iterator[Result]:
  """Trains what is not finished, in the order of the jobs, and gives each result as soon as it is there.

  Ends early, without an error, when the process is asked to stop (SIGTERM): the run is saved and goes on next time.

  Args:
    jobs: what is wanted.
    out: folder of the experiment.
    max_jobs: trainings in this call at most.
    prepare: makes what a training starts from, right before it.

  Raises:
    PrnError: as `prepare`, `prn_jax.train.loop.train`, or as `finished`.
  """
  missing = [job for job in jobs if _read(job, out) is None]
  for number, job in enumerate(missing[:max_jobs], 1):
    _say(f"-- {job.name}: {number} of {len(missing)} that are missing")
    if prepare is not None:
      prepare(job)
    result = _train(job, out)
    if result is None:
      return
    yield result


def _train(job: Job, out: Path) -> Result | None:
  import jax

  from prn_jax.train.experiment import open_experiment
  from prn_jax.train.loop import train
  from prn_jax.train.outcome import Reason

  began = time.time()
  folder = run_folder(job, out)
  experiment = open_experiment(job.config)
  outcome = train(experiment, folder)
  if outcome.reason is not Reason.DONE:
    return None
  counted = cost(experiment.graph)
  epochs_per_step = job.config.batch_size / len(experiment.dataset)
  curve, loss = _curves(folder, epochs_per_step)
  result = Result(
    group=job.group,
    variant=job.variant,
    seed=job.seed,
    params=counted.params,
    bflops=counted.bflops,
    train_images=len(experiment.dataset),
    epochs=outcome.step * epochs_per_step,
    seconds=time.time() - began,
    values=outcome.values,
    curve=curve,
    loss=loss,
    machine=machine(),
  )
  # Written last and at once: its presence says that the run is finished.
  write_text(folder / RESULT, json.dumps(dataclasses.asdict(result), indent=1))
  jax.clear_caches()  # programs of this network; the next seed gets them from disk
  return result


def _curves(folder: Path, epochs_per_step: float) -> tuple[list[dict[str, float]], list[tuple[float, float]]]:
  from prn_jax.train.log import read_metrics

  curve, loss = [], []
  for row in read_metrics(folder):
    epoch = round(row["step"] * epochs_per_step, 4)
    figures = {key.removeprefix("eval/"): value for key, value in row.items() if key.startswith("eval/")}
    if figures:
      curve.append({"epoch": epoch} | figures)
    if "loss" in row:
      loss.append((epoch, row["loss"]))
  return curve, loss


def run_folder(job: Job, out: Path) -> Path:
  """The run directory of a job."""
  return out / "runs" / job.name


def _read(job: Job, out: Path) -> Result | None:
  folder = run_folder(job, out)
  if not (folder / RESULT).is_file():
    return None
  old = read_json(folder / "config.json", advice="Give another --out.")
  old.mapping()
  changed = differences(old.raw, json.loads(json.dumps(to_dict(job.config))))
  if changed:
    raise PrnError(
      f"'{folder}' holds a run of another configuration ({'; '.join(changed[:4])}). Use another --out, or the old "
      "settings: results of unequal training cannot be compared."
    )
  return result_of(read_json(folder / RESULT, advice=f"Delete '{folder}'; it is trained again."))


def result_of(root: Node) -> Result:
  """The result that was written as JSON, by this version or by one that did not record the machine yet.

  Raises:
    PrnError: it is none.
  """
  known = {field.name for field in dataclasses.fields(Result)}
  if other := sorted(root.mapping().keys() - known):
    raise root.fault(f"has the key {shown(other[0])}, which no result has")
  return Result(
    group=root["group"].text(),
    variant=root["variant"].text(),
    seed=root["seed"].whole(),
    params=root["params"].whole(0),
    bflops=root["bflops"].number(),
    train_images=root["train_images"].whole(0),
    epochs=root["epochs"].number(),
    seconds=root["seconds"].number(),
    values=_figures(root["values"]),
    curve=[_figures(row) for row in root["curve"].items()],
    loss=[_point(pair) for pair in root["loss"].items()],
    machine=machine_of(root["machine"]) if "machine" in root else None,
  )


def machine_of(root: Node) -> dict[str, Any]:
  """A machine as `prn_jax.run.machine` describes it."""
  for key in ("device", "jax", "prn_jax"):
    root[key].text()
  root["cores"].whole(0)
  root.get("cpu", "").text()
  return dict(root.raw)


def _figures(root: Node) -> dict[str, float]:
  return {key: _figure(value) for key, value in root.mapping().items()}


def _figure(value: Node) -> Any:
  """A figure; what is not defined is None, or NaN as an earlier version wrote it."""
  return value.raw if value.raw is None or isinstance(value.raw, float) else value.number()


def _point(pair: Node) -> tuple[float, float]:
  values = [_figure(value) for value in pair.items()]
  if len(values) != 2:
    raise pair.fault(f"is {shown(pair.raw)}; expected epoch and loss")
  return values[0], values[1]


def check_networks(results: Sequence[Result]) -> None:
  """PrnError unless all seeds of a variant have trained the same network, as far as its size tells.

  Configurations that are equal give other networks after the code that builds them has changed.
  """
  first: dict[tuple[str, str], Result] = {}
  for result in results:
    known = first.setdefault((result.group, result.variant), result)
    if known.params != result.params:
      raise PrnError(
        f"seeds {known.seed} and {result.seed} of '{result.variant}' have trained networks of {known.params:,} and "
        f"{result.params:,} parameters; expected equal ones. The code has changed between them: use another --out."
      )


def by_seed(make: Callable[[str, int], Job], variants: Sequence[str], seeds: int) -> list[Job]:
  """All variants with the first seed, then all with the second, ...: a table that is broken off is balanced."""
  return [make(variant, seed) for seed in range(seeds) for variant in variants]


def scaled(side: int, scale: float) -> int:
  """`side` times `scale`, as the multiple of 32 pixels that is nearest; the heads' stride."""
  return max(1, round(side * scale / STRIDE)) * STRIDE


def _say(text: str) -> None:
  from prn_jax.train.log import say

  say(text)
