"""The best weights of a run as one file that other programs read: RUN/best.weights, or best.safetensors."""

from __future__ import annotations

import contextlib
from pathlib import Path

from prn_jax.errors import PrnError
from prn_jax.export import convert
from prn_jax.loading import load, with_weights
from prn_jax.model import Model

NAMES = ("best.weights", "best.safetensors")  # the first that can hold the network


def write_best(workdir: Path) -> str:
  """Writes the best checkpoint and reads it back; gives the name of the file.

  Raises:
    PrnError: what was read back is not what was written, or the place cannot be written.
  """
  model = load(workdir)
  digest, problem = model.digest(), PrnError(f"'{workdir}' has no weights")
  for name in NAMES:
    file = workdir / name
    try:
      convert.save(model, file)
      back = load(file) if name != NAMES[0] else with_weights(Model(model.graph, training=model.training), file)
    except PrnError as error:  # a network that Darknet's file cannot hold
      problem = error
      continue
    if back.digest() != digest:
      with contextlib.suppress(OSError):
        file.unlink()
      raise PrnError(
        f"'{file}' does not give the weights back that were written. Write it again: prn convert {workdir} {file}."
      )
    for other in NAMES:
      if other != name:
        (workdir / other).unlink(missing_ok=True)  # of an earlier network
    return name
  raise problem
