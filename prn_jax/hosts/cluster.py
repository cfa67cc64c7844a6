"""Which run this process belongs to, from the environment: coordinator, number of processes, which of them it is."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Mapping, Sequence

from prn_jax.errors import PrnError

VARIABLES = ("PRN_COORDINATOR", "PRN_NUM_PROCESSES", "PRN_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Where this process belongs.

  Attributes:
    coordinator: "host:port" of process 0.
    process_count: processes of the run.
    process_id: this one, from 0.
    local_device_ids: devices that this process may use; None means all of its host.
  """

  coordinator: str
  process_count: int
  process_id: int
  local_device_ids: Sequence[int] | None = None


def find_cluster(method: str, environ: Mapping[str, str], timeout_sec: float) -> Cluster | None:
  """Reads PRN_*, then JAX_*, then asks JAX's own detection; None if nothing says that there are other processes.

  Args:
    method: "auto", "off", or the name of one of JAX's detection methods.
    environ: the environment.
    timeout_sec: longest time that the detection may take (it may ask a metadata server).

  Raises:
    PrnError: the environment is incomplete, or the detection failed or took too long.
  """
  if method == "off":
    return None
  own = [environ.get(name, "") for name in VARIABLES]
  if any(own):
    return _checked(own, VARIABLES)
  address = environ.get("JAX_COORDINATOR_ADDRESS", "")
  count_name = "JAX_NUM_PROCESSES" if "JAX_NUM_PROCESSES" in environ else "JAX_PROCESS_COUNT"
  jax_own = [address, environ.get(count_name, ""), environ.get("JAX_PROCESS_ID", "")]
  if all(jax_own):
    return _checked(jax_own, ("JAX_COORDINATOR_ADDRESS", count_name, "JAX_PROCESS_ID"))
  found = _detected(address or None, None if method == "auto" else method, timeout_sec)
  if found is None and (address or method != "auto"):
    what = f"JAX_COORDINATOR_ADDRESS={address}" if address else f"cluster={method!r}"
    raise PrnError(
      f"{what} is set, but nothing says how many processes there are and which one this is. Set {', '.join(VARIABLES)}."
    )
  if found is None:
    _warn_if_alone(environ)
  return found


def _checked(values: Sequence[str], names: Sequence[str]) -> Cluster:
  """The three variables as numbers.

  Raises:
    PrnError: one is missing or no number, or the process id is outside the run.
  """
  said = ", ".join(
    f"{name}={value}" if value else f"{name} is not set" for name, value in zip(names, values, strict=True)
  )
  if not all(values):
    raise PrnError(f"{said}: set all three, or none to train on this host alone")
  address, count, index = values
  if not (count.isdigit() and index.isdigit() and 0 <= int(index) < int(count)):
    raise PrnError(f"{said}: expected a number of processes, and for each process its own number from 0 to that less 1")
  return Cluster(address, int(count), int(index))


def _detected(address: str | None, method: str | None, timeout_sec: float) -> Cluster | None:
  """What `jax.distributed.initialize()` would find out by itself, in a thread: a metadata server may never answer."""
  answers: list[Cluster | None] = []
  troubles: list[Exception] = []

  def ask() -> None:
    try:
      answers.append(_ask_jax(address, method, int(timeout_sec)))
    except Exception as error:
      troubles.append(error)

  thread = threading.Thread(target=ask, name="prn-cluster", daemon=True)
  thread.start()
  thread.join(timeout_sec)
  if answers:
    return answers[0]
  trouble = f"{type(troubles[0]).__name__}: {troubles[0]}" if troubles else f"no answer within {timeout_sec:g} s"
  raise PrnError(
    f"cannot find out which processes belong to this run ({trouble}). Set {', '.join(VARIABLES)}, or train on this host "
    "alone with the setting cluster=off."
  )


def _ask_jax(address: str | None, method: str | None, timeout_sec: int) -> Cluster | None:
  # Not public, but the same from 0.7.2 to 0.12; the public function would connect (and abort) at once.
  from jax._src.clusters import ClusterEnv

  logging.getLogger("jax._src.clusters").setLevel(logging.WARNING)
  coordinator, count, index, device_ids = ClusterEnv.auto_detect_unset_distributed_params(
    address, None, None, None, method, timeout_sec
  )
  if coordinator is None or count is None or index is None:
    return None
  import os

  # JAX gives every Slurm task the one GPU with its local number; a task that has the node to itself wants them all.
  if os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES")) == str(count):
    device_ids = None
  return Cluster(coordinator, int(count), int(index), device_ids)


def _warn_if_alone(environ: Mapping[str, str]) -> None:
  """Several processes that each think they are alone would overwrite each other's run."""
  if int(environ.get("SLURM_NTASKS", "1") or 1) > 1:
    hint = f"SLURM_NTASKS={environ['SLURM_NTASKS']}, but this process was not started by srun"
  elif "KUBERNETES_SERVICE_HOST" in environ and environ.get("JOB_COMPLETION_INDEX", "0") != "0":
    hint = f"this is pod {environ['JOB_COMPLETION_INDEX']} of an indexed Kubernetes job"
  else:
    return
  print(f"prn: {hint}; training on this host alone. For several hosts set {', '.join(VARIABLES)}.", file=sys.stderr)
