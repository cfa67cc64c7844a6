"""Writes docs/experiments.md, and the pictures in it, from the results in docs/experiments/.

    python -m prn_jax.experiments.page [DIR ...]

DIR are folders of experiments; their results.json are taken over first. Without one, page and pictures are made again
from what is there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prn_jax.experiments import figure11_report, table2
from prn_jax.experiments import record as records
from prn_jax.files.disk import write_text

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXPERIMENTS = {"figure11": figure11_report, "table2": table2}

INTRODUCTION = """# The paper's experiments, at a small scale

Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination" (ICCVW 2019)
trains on ImageNet and COCO. What stands here is much smaller: it shows that the experiments can be repeated, and what
comes out at this scale. It is no reproduction of the paper's figures. Configurations for ImageNet are ready and not yet
run (`configs/imagenet_darknet53.py`, `configs/imagenet_darknet53_prn.py`).

Written by `python -m prn_jax.experiments.page`; do not edit. ± is the standard deviation over seeds; intervals are 95%
by Student's t over the seeds that both sides have. A difference whose interval holds 0 is not told apart from none."""


def page(docs: Path = DOCS) -> str:
  """The text of experiments.md, from the results that are in docs/experiments/."""
  parts = [INTRODUCTION]
  for name, module in EXPERIMENTS.items():
    path = docs / "experiments" / f"{name}.json"
    if path.is_file():
      lines = module.section(records.read(path), f"experiments/{name}.png")
    else:
      lines = [module.TITLE, "", f"Not yet run: `python -m prn_jax.experiments.{name} --help`."]
    parts.append("\n".join(lines))
  return "\n\n".join(parts) + "\n"


def update(docs: Path, folders: Sequence[Path] = ()) -> None:
  """Takes over the results of experiments' folders; writes pictures and page.

  Raises:
    PrnError: a folder holds no results.
  """
  for folder in folders:
    found = records.read(folder / records.FILE)
    found.write(docs / "experiments" / f"{found.experiment}.json")
  for name, module in EXPERIMENTS.items():
    path = docs / "experiments" / f"{name}.json"
    if path.is_file():
      module.picture(records.read(path), path.with_suffix(".png"))
  write_text(docs / "experiments.md", page(docs))


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
