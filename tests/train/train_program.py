"""`prn train`, writing the sha256 of every global batch that reaches the devices to $BATCH_LOG.

python -m tests.train.train_program --config=FILE --workdir=DIR ...
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from prn_jax.cli.main import main
from prn_jax.train import loop
from tests.train.blank import draw_nothing


def sha256(batch: dict[str, Any]) -> str:
  total = hashlib.sha256()
  for key in sorted(batch):
    value = np.asarray(batch[key])
    total.update(f"{key} {value.shape} {value.dtype}".encode() + value.tobytes())
  return total.hexdigest()


@contextlib.contextmanager
def recorded(*args: Any, **kwargs: Any) -> Iterator[Iterator[tuple[int, Any]]]:
  def record(batches: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    with open(os.environ["BATCH_LOG"], "a") as log:
      for step, batch in batches:
        print(step, sha256(batch), file=log, flush=True)
        yield step, batch

  with on_devices(*args, **kwargs) as batches:
    yield record(batches)


if __name__ == "__main__":
  draw_nothing()
  on_devices = loop.on_devices
  loop.on_devices = recorded
  sys.exit(main(["train", *sys.argv[1:]]))
