"""Where something was trained or timed, as every result keeps it: figures of different machines must not mix unseen."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

UNKNOWN = "a machine that is not recorded"
OF_REPORT = "of_report"  # key of a machine that was recorded for the report, and not by the training itself


def machine() -> dict[str, Any]:
  """Cores, their name, device and versions of this computer."""
  import jax

  from prn_jax.version import __version__

  device = jax.devices()[0]
  return {
    "cores": os.cpu_count(),
    "cpu": _cpu(),
    "device": f"{len(jax.devices())} x {device.device_kind}" if device.platform != "cpu" else "CPU",
    "jax": jax.__version__,
    "prn_jax": __version__,
  }


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
  """Name of the processor; where Linux does not tell it, that of its architecture."""
  try:
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
  except OSError:
    lines = []
  names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
  return " ".join(names[0].split()) if names else platform.processor() or platform.machine()


def machine_text(values: Mapping[str, Any] | None) -> str:
  """ "2 CPU cores (Xeon), jax 0.10.2, prn_jax 0.1.0" """
  if values is None:
    return UNKNOWN
  cpu = f" ({values['cpu']})" if values.get("cpu") else ""
  where = f"{values['cores']} CPU cores{cpu}" if values["device"] == "CPU" else values["device"]
  source = " (as recorded with the report, not by the trainings)" if values.get(OF_REPORT) else ""
  return f"{where}, jax {values['jax']}, prn_jax {values['prn_jax']}{source}"


def machines_text(machines: Iterable[Mapping[str, Any] | None]) -> str:
  """The machines of all trainings, one for each training, with the number of trainings if there are several.

  Example: "2 CPU cores, jax 0.10.2, prn_jax 0.1.0 (12 trainings) and a machine that is not recorded (1 training)".
  """
  found = Counter(map(machine_text, machines))
  if len(found) == 1:
    return next(iter(found))
  return " and ".join(f"{name} ({num} training{'s' if num > 1 else ''})" for name, num in found.items())
