"""`prn`, drawing none of its curves: for runs of which a test looks at everything else.

python -m tests.train.blank train --config=FILE --workdir=DIR ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from prn_jax.cli.main import main
from prn_jax.detect.metrics import plots
from prn_jax.files.disk import write_text
from prn_jax.train import curves


def empty(figure: Figure, path: Path) -> Path:
  write_text(path, "")
  return path


def draw_nothing() -> None:
  """Matplotlib lays out and draws six figures at the end of a run, as long as the training of a small network takes."""
  plots.save_png = curves.save_png = empty


if __name__ == "__main__":
  draw_nothing()
  sys.exit(main())
