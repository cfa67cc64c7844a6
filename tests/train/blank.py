"""`prn`, drawing none of its curves, and quick to ask a bucket again: for runs of which a test looks at everything else.

python -m tests.train.blank train --config=FILE --workdir=DIR ...
"""

from __future__ import annotations

import asyncio
import os
import sys
import types
from pathlib import Path

from matplotlib.figure import Figure

from prn_jax.cli.main import main
from prn_jax.detect.metrics import plots
from prn_jax.files import buckets
from prn_jax.files.disk import write_text
from prn_jax.train import curves


def empty(figure: Figure, path: Path) -> Path:
  write_text(path, "")
  return path


def draw_nothing() -> None:
  """Matplotlib lays out and draws six figures at the end of a run, as long as the training of a small network takes."""
  plots.save_png = curves.save_png = empty


def ask_again_soon() -> None:
  """gcsfs tries as often as ever, but waits a tenth of its half minute in between: the store of a test needs no rest."""
  buckets.file_system()  # it settles the protocol of gcsfs, which nobody may import before
  import gcsfs.retry

  gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 10))


if __name__ == "__main__":
  draw_nothing()
  if "STORAGE_EMULATOR_HOST" in os.environ:
    ask_again_soon()
  sys.exit(main())
