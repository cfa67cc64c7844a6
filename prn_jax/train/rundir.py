"""The files of a run directory beside curves and checkpoints: what was run, and the step of the report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from prn_jax.errors import BucketError, PrnError
from prn_jax.files.disk import check_utf8, write_text
from prn_jax.files.places import WRITE_TEST
from prn_jax.files.structured import load_bytes, load_json
from prn_jax.files.values import Misfit
from prn_jax.formats import checkpoints
from prn_jax.formats.darknet_weights import Header
from prn_jax.graph.graph import Graph
from prn_jax.network import expected_variables
from prn_jax.train import diagnose, lock
from prn_jax.train.config import ConfigError, differences, to_dict
from prn_jax.train.effective import FILE as EFFECTIVE
from prn_jax.train.effective import changes, effective, is_sound, moved, of_checkpoint
from prn_jax.train.experiment import Experiment, environment

CONFIG, GRAPH = "config.json", "graph.cfg"
MOST_LISTED = 20
STEP_FILE = "step.txt"  # in the folder of a report: the updates that its weights have seen
LOG_SUFFIXES = (".log", ".out", ".err", ".txt")
ALWAYS = ("task", "model", "batch_size")  # keys of every configuration of a run


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What `prepare` found.

  Attributes:
    effective: what takes effect now, and what the run started from.
    changed: what is not as it was before, and was allowed.
  """

  effective: Mapping[str, Any]
  changed: tuple[str, ...] = ()


def prepare(experiment: Experiment, workdir: Path, allow_changes: bool = False) -> Prepared:
  """Makes the run directory, or checks that the run in it is the one that would go on.

  A run is what has a checkpoint. A start that failed before its first one leaves nothing to go on with, and must not
  stand in the way of the next, which will differ in what made it fail. The files of a run stay as they are until its
  state has been read (`record`): what cannot go on leaves no trace.

  Args:
    experiment: about to be trained.
    workdir: the run directory.
    allow_changes: go on although configuration, network, loss, classes or data differ.

  Raises:
    ConfigError: it holds another run, or things that are no run's.
  """
  check_utf8(workdir, ConfigError)
  file, asked = workdir / CONFIG, _asked(experiment)
  now = effective(experiment) | {"start": str(experiment.start)}
  if file.is_file():
    old = _read(file)
    if steps := checkpoints.complete_steps(workdir / checkpoints.FOLDER):
      before = _effective_before(workdir, max(steps))
      changed = _changes(old, asked, before, now)
      if changed and not allow_changes:
        raise ConfigError(_refusal(workdir, changed))
      return Prepared(now | {"start": before.get("start", "")}, tuple(changed))
  elif workdir.is_dir() and any(not _may_be_there(path) for path in workdir.iterdir()):
    raise ConfigError(f"'{workdir}' is not empty and holds no run (no {CONFIG}). Give a new --workdir.")
  _write(experiment, workdir, now)
  return Prepared(now)


def record(experiment: Experiment, workdir: Path, prepared: Prepared, step: int) -> None:
  """Writes what goes on after `step`, once its state has been read. What it did until then is kept where it differs: in
  the folder before_step_N.
  """
  if not step:
    return
  if prepared.changed:
    kept = workdir / f"before_step_{step}"
    for name in (CONFIG, GRAPH, EFFECTIVE):
      if (workdir / name).is_file() and not (kept / name).exists():  # twice at one step: the first is what trained
        write_text(kept / name, (workdir / name).read_text(encoding="utf-8", errors="surrogateescape"))
    write_text(kept / "changes.txt", "".join(f"{line}\n" for line in prepared.changed))
  _write(experiment, workdir, prepared.effective)


def _write(experiment: Experiment, workdir: Path, now: Mapping[str, Any]) -> None:
  write_text(workdir / CONFIG, json.dumps(_asked(experiment), indent=1))
  write_text(workdir / EFFECTIVE, json.dumps(now, indent=1))
  write_text(workdir / GRAPH, experiment.graph_cfg())
  write_text(workdir / "parameters.txt", parameter_overview(experiment.graph) + "\n")
  write_text(workdir / "env.json", json.dumps(environment(experiment), indent=1))
  (workdir / diagnose.FILE).unlink(missing_ok=True)  # of an earlier part of the run


def parameter_overview(graph: Graph) -> str:
  """A table of the learnable arrays of a network: name, shape, type, size; and their sum."""
  from clu.parameter_overview import get_parameter_overview

  learned = {
    name.removeprefix("params/"): jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in expected_variables(graph).items()
    if name.startswith("params/")
  }
  return str(get_parameter_overview(learned, include_stats=False))


def _asked(experiment: Experiment) -> dict[str, Any]:
  asked: dict[str, Any] = json.loads(json.dumps(to_dict(experiment.asked)))
  return asked


def _changes(
  old: Mapping[str, Any], asked: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
  """Keys of the configuration, without those that name another place of the same thing; then what took effect."""
  keys = [line for line in differences(old, asked) if not moved(line.partition(":")[0], before, now)]
  return [*keys, *changes(before, now, asked)]


def _refusal(workdir: Path, changed: Sequence[str]) -> str:
  listed = "\n  ".join(changed[:MOST_LISTED])
  more = f"\n  and {len(changed) - MOST_LISTED} more" if len(changed) > MOST_LISTED else ""
  return (
    f"'{workdir}' holds a run of another configuration:\n  {listed}{more}\nTake the old values to go on with it; give "
    f"--allow-changes to go on with the new ones; or begin another run: a new --workdir, with "
    f"--config.weights={workdir} from the weights of this one."
  )


def _effective_before(workdir: Path, step: int) -> dict[str, Any]:
  """What took effect in the run so far; of a run of an older version, or where the file is damaged, what the checkpoint
  of `step` says of it."""
  try:
    found = load_json(load_bytes(workdir / EFFECTIVE))
    if is_sound(found):
      return dict(found)
  except (OSError, Misfit):
    pass
  try:
    return of_checkpoint(checkpoints.read_meta(workdir / checkpoints.FOLDER / str(step))["meta"])
  except BucketError:
    raise
  except (OSError, PrnError, KeyError, TypeError):
    return {}  # a damaged checkpoint: who restores it says so


def _read(file: Path) -> dict[str, Any]:
  """The configuration in a run directory; another program's file of that name is not overwritten."""
  text = file.read_bytes()
  try:
    old = load_json(text)
  except Misfit:
    raise ConfigError(f"'{file}' is damaged. Restore it, or use another --workdir.") from None
  if not isinstance(old, dict) or any(key not in old for key in ALWAYS):
    raise ConfigError(f"'{file}' is not the configuration of a run. Give a new --workdir.")
  return old


def _may_be_there(path: Path) -> bool:
  """Files of a directory that no run has used: what a killed start left, and the log that a user's shell writes."""
  is_ours = path.name == lock.FILE or path.name.startswith((f".{CONFIG}.", WRITE_TEST))
  return is_ours or path.suffix in LOG_SUFFIXES


def reported_step(folder: Path) -> int | None:
  """Updates done at the report in `folder`; None if there is none."""
  try:
    text = (folder / STEP_FILE).read_bytes()
  except OSError:
    return None
  try:
    return int(text)
  except ValueError:
    return None


def run_metadata(experiment: Experiment, step: int = 0) -> dict[str, Any]:
  """What a checkpoint of `step` keeps beside the state, so that it can be used without the run directory."""
  return {
    "header": dataclasses.asdict(Header(seen=step * experiment.config.batch_size)),
    "config": to_dict(experiment.config),
    "name": experiment.graph.name,
    "graph_cfg": experiment.graph_cfg(),
    "names": list(experiment.names),
    "resize": experiment.resize,
    checkpoints.ONLY_FOR_TRAINING: list(experiment.lessons.adapter_names) if experiment.lessons else [],
  }
