"""All figures of a file of tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.track import motchallenge
from prn_jax.track.metrics.clear import clear_mot
from prn_jax.track.metrics.hota import hota
from prn_jax.track.metrics.identity import identity
from prn_jax.track.metrics.matched import matched, of_one_class
from prn_jax.track.motchallenge import BoxTable

_COUNTS = ("IDSW", "CLR_FP", "CLR_FN", "CLR_TP", "MT", "ML", "PT", "Frag", "IDTP", "IDFP", "IDFN")
_ROWS = (
  ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr"),
  ("MOTA", "MOTP", "IDSW", "CLR_FP", "CLR_FN", "CLR_TP", "MT", "ML", "PT", "Frag"),
  ("IDF1", "IDP", "IDR", "IDTP", "IDFP", "IDFN"),
)


def evaluate(result: BoxTable, truth: BoxTable) -> dict[str, Any]:
  """Figures of tracks against truth, by MOTChallenge's rules.

  Returns:
    fractions and counts under trackeval's names: those of `hota` (means over its thresholds), `clear_mot` and
    `identity`; "HOTA_alpha" is the list of HOTA at 0.05, 0.10, ..., 0.95.

  Raises:
    TrackFileError: see `matched`.
  """
  data = matched(result, truth)
  by_alpha = hota(data)
  means = {key: float(np.mean(values)) for key, values in by_alpha.items()}
  return means | clear_mot(data) | identity(data) | {"HOTA_alpha": by_alpha["HOTA"].tolist()}


def evaluate_files(result: Path, truth: Path, *, all_classes: bool = False) -> dict[str, Any]:
  """`evaluate` of two files, with "frames", "tracks" and "boxes" of the result beside "metrics".

  Args:
    result, truth: the files.
    all_classes: see `of_one_class`.

  Raises:
    TrackFileError: a file cannot be read; see `motchallenge.read` and `matched`.
  """
  found, true = motchallenge.read(result), motchallenge.read(truth)
  sizes = {"frames": int(true.frames.max(initial=0)), "tracks": len(np.unique(found.ids)), "boxes": len(found)}
  pair = of_one_class(found, true) if all_classes else (found, true)
  return {"metrics": evaluate(*pair), **sizes, "protocol": "all classes" if all_classes else "motchallenge"}


def text(figures: dict[str, Any]) -> str:
  """The figures as three small tables: shares in percent, counts as they are."""
  lines = []
  for keys in _ROWS:
    shown = [f"{figures[key]:.0f}" if key in _COUNTS else f"{100 * figures[key]:.3f}" for key in keys]
    lines += ["".join(f"{key:>9}" for key in keys), "".join(f"{value:>9}" for value in shown), ""]
  return "\n".join(lines[:-1])
