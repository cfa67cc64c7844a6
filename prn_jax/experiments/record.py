"""What an experiment leaves: results.json, from which tables, pictures and the page in docs/ are made again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.experiments.runs import Result
from prn_jax.formats.files import write_text

FILE = "results.json"


@dataclasses.dataclass(frozen=True)
class Record:
  """An experiment, as far as it has come.

  Attributes:
    experiment: its name, such as "figure11".
    command: what repeats it.
    machine: where it ran: cores, device, versions.
    settings: equal for all trainings, by name.
    planned: number of trainings when it is finished.
    runs: those that are finished.
    latency: group and variant, as "vehicles yolov3-tiny" -> milliseconds; empty where none is measured.
  """

  experiment: str
  command: str
  machine: Mapping[str, Any]
  settings: Mapping[str, Any]
  planned: int
  runs: Sequence[Result]
  latency: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def write(self, path: Path) -> None:
    """Writes JSON, one training per line."""
    values = dataclasses.asdict(self)
    runs = ",\n".join(f"  {json.dumps(run)}" for run in values.pop("runs"))
    head = json.dumps(values, indent=1)
    write_text(path, f'{head[:-2]},\n "runs": [\n{runs}\n ]\n}}\n')


def read(path: Path) -> Record:
  """The record of a results.json.

  Raises:
    PrnError: the file does not exist or is none.
  """
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
    runs = [Result(**run | {"loss": [(epoch, loss) for epoch, loss in run["loss"]]}) for run in values.pop("runs")]
    return Record(**values, runs=runs)
  except OSError as error:
    raise PrnError(f"cannot read '{path}': {error.strerror}. Give a folder that an experiment has written.") from None
  except (ValueError, KeyError, TypeError) as error:
    raise PrnError(f"'{path}' is not the results.json of an experiment: {error}. Run the experiment again.") from None


def machine() -> dict[str, Any]:
  """Cores, device and versions of this computer."""
  import jax

  from prn_jax.version import __version__

  device = jax.devices()[0]
  return {
    "cores": os.cpu_count(),
    "device": f"{len(jax.devices())} x {device.device_kind}" if device.platform != "cpu" else "CPU",
    "jax": jax.__version__,
    "prn_jax": __version__,
  }


def machine_text(values: Mapping[str, Any]) -> str:
  """ "2 CPU cores, jax 0.10.2, prn_jax 0.1.0" """
  where = f"{values['cores']} CPU cores" if values["device"] == "CPU" else values["device"]
  return f"{where}, jax {values['jax']}, prn_jax {values['prn_jax']}"
