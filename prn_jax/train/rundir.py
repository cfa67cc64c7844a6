"""The files of a run directory beside curves and checkpoints: what was run, and the step of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prn_jax.formats import checkpoints
from prn_jax.formats.files import write_text
from prn_jax.train import diagnose
from prn_jax.train.config import ConfigError, differences, to_dict
from prn_jax.train.experiment import Experiment, environment

CONFIG = "config.json"
STEP_FILE = "step.txt"  # in the folder of a report: the updates that its weights have seen
LOG_SUFFIXES = (".log", ".out", ".err", ".txt")
ALWAYS = ("task", "model", "batch_size")  # keys of every configuration of a run


def prepare(experiment: Experiment, workdir: Path, allow_changes: bool = False) -> None:
  """Makes the run directory, or checks that the run in it is of the same configuration.

  A run is what has a checkpoint. A start that failed before its first one leaves nothing to go on with, and must not
  stand in the way of the next, which will differ in what made it fail.

  Args:
    experiment: about to be trained.
    workdir: the run directory.
    allow_changes: go on although the configuration differs.

  Raises:
    ConfigError: it holds a run of another configuration, or things that are no run's.
  """
  file, now = workdir / CONFIG, json.loads(json.dumps(to_dict(experiment.config)))
  if file.is_file():
    old = _read(file)
    changed = differences(old, now) if checkpoints.complete_steps(workdir / checkpoints.FOLDER) else []
    if changed and not allow_changes:
      listed = "\n  ".join(changed[:10])
      raise ConfigError(
        f"'{workdir}' holds a run of another configuration:\n  {listed}\nUse another --workdir, take the old values, or "
        "give --allow-changes to go on with the new ones."
      )
  elif workdir.is_dir() and any(not _may_be_there(path) for path in workdir.iterdir()):
    raise ConfigError(f"'{workdir}' is not empty and holds no run (no {CONFIG}). Give a new --workdir.")
  write_text(file, json.dumps(now, indent=1))
  write_text(workdir / "graph.cfg", experiment.graph_cfg())
  write_text(workdir / "env.json", json.dumps(environment(experiment), indent=1))
  (workdir / diagnose.FILE).unlink(missing_ok=True)  # of an earlier part of the run


def _read(file: Path) -> dict[str, Any]:
  """The configuration in a run directory; another program's file of that name is not overwritten."""
  try:
    old = json.loads(file.read_text(encoding="utf-8"))
  except ValueError:
    raise ConfigError(f"'{file}' is damaged. Restore it, or use another --workdir.") from None
  if not isinstance(old, dict) or any(key not in old for key in ALWAYS):
    raise ConfigError(f"'{file}' is not the configuration of a run. Give a new --workdir.")
  return old


def _may_be_there(path: Path) -> bool:
  """Files of a directory that no run has used: what a killed start left, and the log that a user's shell writes."""
  return path.name.startswith(f".{CONFIG}.") or path.suffix in LOG_SUFFIXES


def reported_step(folder: Path) -> int | None:
  """Updates done at the report in `folder`; None if there is none."""
  try:
    return int((folder / STEP_FILE).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return None


def run_metadata(experiment: Experiment) -> dict[str, Any]:
  """What a checkpoint keeps beside the state, so that it can be used without the run directory."""
  return {
    "config": to_dict(experiment.config),
    "name": experiment.graph.name,
    "graph_cfg": experiment.graph_cfg(),
    "names": list(experiment.names),
    "resize": experiment.resize,
  }
