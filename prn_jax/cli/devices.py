"""What a command computes on: said first, and when a faster device lies idle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from prn_jax.errors import PrnError

TIMEOUT_SEC = 5.0
GPU_EXTRA = 'pip install "jax[cuda12]"'
TPU_EXTRA = 'pip install "jax[tpu]"'


def quiet_compiler() -> None:
  """Hides the compiler's own log (its alarm of slow compilations is ten lines long); before the first use of JAX.

  What it fails at is raised as an error all the same. TF_CPP_MIN_LOG_LEVEL in the environment wins.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def announce_device(command: str) -> None:
  """One line on stderr: which device computes, and which does not although it is here.

  Raises:
    PrnError: JAX finds no device.
  """
  print(f"prn {command}: {device_text()}", file=sys.stderr, flush=True)
  if hint := idle_accelerator():
    print(f"prn {command}: {hint}", file=sys.stderr, flush=True)


def device_text() -> str:
  """ "on 1 x NVIDIA H100 (gpu), jax 0.10.2"."""
  import jax

  try:
    devices = jax.devices()
  except RuntimeError as error:
    wanted = os.environ.get("JAX_PLATFORMS")
    asked = f" for JAX_PLATFORMS={wanted}" if wanted else ""
    raise PrnError(f"JAX finds no device{asked}: {str(error).splitlines()[0]}") from None
  first = devices[0]
  if first.platform == "cpu":
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"on the CPU, {cores} core{'s' if cores > 1 else ''}, jax {jax.__version__}"
  return f"on {len(devices)} x {first.device_kind} ({first.platform}), jax {jax.__version__}"


def idle_accelerator() -> str:
  """A sentence if this machine has a GPU or TPU that JAX does not use, and nobody chose that; else ""."""
  import jax

  if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS"):
    return ""
  if gpu := _nvidia_gpu():
    return f"there is a GPU ({gpu}), but this JAX has no working CUDA support: {GPU_EXTRA}"
  if any(Path("/dev").glob("accel[0-9]*")):
    return f"there is a TPU, but this JAX cannot use it: {TPU_EXTRA}"
  return ""


def _nvidia_gpu() -> str:
  """Name of the first GPU that the driver knows, or ""."""
  program = shutil.which("nvidia-smi")
  if program is None:
    return ""
  try:
    asked = subprocess.run(
      [program, "--query-gpu=name", "--format=csv,noheader"],
      capture_output=True, text=True, timeout=TIMEOUT_SEC, check=True,
    )  # fmt: skip
  except (OSError, subprocess.SubprocessError):
    return ""
  return asked.stdout.strip().split("\n")[0]
