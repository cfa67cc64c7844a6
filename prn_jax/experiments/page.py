"""Brings the tables and pictures of docs/experiments.md up to date with the results in docs/experiments/.

    python -m prn_jax.experiments.page [DIR ...]

DIR are folders of experiments; their results.json are taken over first. Without one, tables and pictures are made again
from what is there. The text between the tables is written by hand; tests/experiments/test_page.py checks its numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prn_jax.experiments import compression_report, figure11_report, table2
from prn_jax.experiments import record as records
from prn_jax.files.disk import write_text
from prn_jax.files.marked import filled
from prn_jax.files.structured import read_text

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXPERIMENTS = {"figure11": figure11_report, "table2": table2, "compression": compression_report}


def tables(docs: Path = DOCS) -> dict[str, str]:
  """ "EXPERIMENT: TABLE" -> the table, from the results in `docs`/experiments/."""
  made: dict[str, str] = {}
  for name, module in EXPERIMENTS.items():
    if (path := docs / "experiments" / f"{name}.json").is_file():
      made |= {f"{name}: {table}": "\n".join(lines) for table, lines in module.blocks(records.read(path)).items()}
  return made


def update(docs: Path, folders: Sequence[Path] = ()) -> None:
  """Takes over the results of experiments' folders; writes pictures and the tables of the page.

  Raises:
    PrnError: a folder holds no results, or the page asks for a table that they do not have.
  """
  for folder in folders:
    found = records.read(folder / records.FILE)
    found.write(docs / "experiments" / f"{found.experiment}.json")
  for name, module in EXPERIMENTS.items():
    path = docs / "experiments" / f"{name}.json"
    if path.is_file():
      module.picture(records.read(path), path.with_suffix(".png"))
  page = docs / "experiments.md"
  write_text(page, filled(read_text(page), tables(docs)))


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m prn_jax.experiments.page", description="Writes docs/experiments.md.")
  parser.add_argument("folders", metavar="DIR", type=Path, nargs="*", help="folder of an experiment")
  parser.add_argument("--docs", metavar="DIR", type=Path, default=DOCS, help="folder of the page")
  args = parser.parse_args(argv)
  update(args.docs, args.folders)
  print(f"wrote {args.docs / 'experiments.md'}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
