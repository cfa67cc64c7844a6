"""`prn train`, writing the sha256 of every image and truth that reaches this process's devices to $BATCH_LOG.PROCESS.

Those of evaluations go to $BATCH_LOG-eval.PROCESS, with the number of their record.

$SLOW_COMPILE=STEP:EVALUATION names the processes that sleep $SLOW_SEC while they compile the step, and the evaluation.

python -m tests.train.pod_program --config=FILE --workdir=DIR ...
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from prn_jax.cli.main import main
from prn_jax.run import eval_program
from prn_jax.train import loop
from tests.train.blank import draw_nothing


def row_hashes(batch: dict[str, jax.Array]) -> dict[int, str]:
  """{row of the global batch: sha256 over all keys}, for the rows on this process's devices."""
  found: dict[int, Any] = {}
  for key in sorted(batch):
    for shard in batch[key].addressable_shards:
      for row, value in enumerate(np.asarray(shard.data), shard.index[0].start or 0):
        found.setdefault(row, hashlib.sha256()).update(f"{key} {value.shape} {value.dtype}".encode() + value.tobytes())
  return {row: total.hexdigest() for row, total in found.items()}


def evaluated(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
  placed = put_batch(batch, mesh)
  hashes = row_hashes(placed)
  with open(f"{os.environ['BATCH_LOG']}-eval.{jax.process_index()}", "a") as log:
    for shard in placed["index"].addressable_shards:
      for row, record in enumerate(np.asarray(shard.data), shard.index[0].start or 0):
        print(record, hashes[row], file=log)
  return placed


@contextlib.contextmanager
def recorded(*args: Any, **kwargs: Any) -> Iterator[Iterator[tuple[int, Any]]]:
  def record(batches: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    with open(f"{os.environ['BATCH_LOG']}.{jax.process_index()}", "a") as log:
      for step, batch in batches:
        for row, text in sorted(row_hashes(batch).items()):
          print(step, row, text, file=log, flush=True)
        yield step, batch

  with on_devices(*args, **kwargs) as batches:
    yield record(batches)


def slowly(process: str) -> Callable[..., Any]:
  """`compiled`, in one process as on a machine that takes longer, or has the program not in its cache."""

  def compile_it(*args: Any) -> Any:
    program = compiled(*args)
    if str(jax.process_index()) == process:
      time.sleep(float(os.environ["SLOW_SEC"]))
    return program

  return compile_it


if __name__ == "__main__":
  draw_nothing()
  compiled = loop.compiled
  of_step, _, of_evaluation = os.environ.get("SLOW_COMPILE", "").partition(":")
  loop.compiled, eval_program.compiled = slowly(of_step), slowly(of_evaluation)
  on_devices = loop.on_devices
  loop.on_devices = recorded
  put_batch = eval_program.put_batch
  eval_program.put_batch = evaluated
  sys.exit(main(["train", *sys.argv[1:]]))
