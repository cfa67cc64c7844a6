"""What an experiment leaves: results.json, from which tables, pictures and the page in docs/ are made again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.experiments.blocks import Stage
from prn_jax.experiments.runs import Result, machine_of, result_of
from prn_jax.files.disk import write_text
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Node
from prn_jax.run.machine import OF_REPORT, machines_text

FILE = "results.json"


@dataclasses.dataclass(frozen=True)
class Record:
  """An experiment, as far as it has come.

  Attributes:
    experiment: its name, such as "figure11".
    command: what repeats it.
    settings: equal for all trainings, by name.
    planned: number of trainings when it is finished.
    runs: those that are finished.
    latency: device -> group, variant and input, as "vehicles yolov3-tiny 256x256" -> milliseconds; empty where none
      is measured.
    blocks: variant -> its residual stages; see `prn_jax.experiments.blocks`. Empty where they do not matter.
    untuned: group, variant and seed, as "bccd slim:0.5 seed0" -> AP50 of a pruned network before fine-tuning; empty where
      nothing is pruned.
  """

  experiment: str
  command: str
  settings: Mapping[str, Any]
  planned: int
  runs: Sequence[Result]
  latency: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  blocks: Mapping[str, Sequence[Stage]] = dataclasses.field(default_factory=dict)
  untuned: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def write(self, path: Path) -> None:
    """Writes JSON, one training per line."""
    values = dataclasses.asdict(self)
    runs = ",\n".join(f"  {json.dumps(run)}" for run in values.pop("runs"))
    head = json.dumps(values, indent=1)
    write_text(path, f'{head[:-2]},\n "runs": [\n{runs}\n ]\n}}\n')


def read(path: Path) -> Record:
  """The record of a results.json.

  Earlier ones name one machine, that of the report, for all trainings; their latencies name none and are left out.

  Raises:
    PrnError: the file does not exist or is none.
  """
  return _read(path)[0]


def _read(path: Path) -> tuple[Record, dict[str, Any] | None]:
  """The record, and the machine of an earlier version's report."""
  advice = "Give a folder that an experiment has written, or run the experiment again."
  root = read_json(path, max_bytes=MAX_DATA_BYTES, advice=advice)
  reported = {**machine_of(root["machine"]), OF_REPORT: True} if "machine" in root else None
  runs = [_on(reported, result_of(run)) for run in root["runs"].items()]
  root["settings"].mapping()
  latency = {
    device: {name: value.number() for name, value in each.mapping().items()}
    for device, each in (root["latency"].mapping() if "latency" in root else {}).items()
    if isinstance(each.raw, dict)
  }
  return (
    Record(
      experiment=root["experiment"].text(),
      command=root["command"].text(),
      settings=root["settings"].raw,
      planned=root["planned"].whole(0),
      runs=runs,
      latency=latency,
      blocks=_blocks(root["blocks"]) if "blocks" in root else {},
      untuned={key: value.number(0, 1) for key, value in root["untuned"].mapping().items()}
      if "untuned" in root
      else {},
    ),
    reported,
  )


def _blocks(root: Node) -> dict[str, list[Stage]]:
  return {
    variant: [
      {key: [value.whole() for value in values.items()] for key, values in stage.mapping().items()}
      for stage in stages.items()
    ]
    for variant, stages in root.mapping().items()
  }


def with_machines(runs: Sequence[Result], path: Path) -> list[Result]:
  """The runs, and where one does not say where it was trained, the machine that an earlier report names.

  Args:
    runs: the runs in an experiment's folder.
    path: its results.json. Where there is none, or none that can be read, the machine stays unknown.
  """
  try:
    kept, reported = _read(path)
  except PrnError:
    return list(runs)
  machines = {_key(run): run.machine for run in kept.runs}
  return [_on(machines.get(_key(run)) or reported, run) for run in runs]


def _key(run: Result) -> tuple[str, str, int]:
  return run.group, run.variant, run.seed


def _on(machine: Mapping[str, Any] | None, run: Result) -> Result:
  return run if run.machine is not None else dataclasses.replace(run, machine=machine)


def run_lines(made: Record) -> list[str]:
  """How much of the experiment is there, where it ran, and its command; as Markdown."""
  machines = machines_text(run.machine for run in made.runs)
  return [
    f"{len(made.runs)} of {made.planned} trainings are finished. Run on {machines}, by",
    "",
    f"    {made.command}",
  ]
