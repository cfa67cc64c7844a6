"""The paper's figure 11 in small: residual and partial residual forms of one network, trained alike, several seeds.

    python -m prn_jax.experiments.figure11 --data ROOT --out DIR [--seeds 3] [--epochs 30] [--width 1]

Trains darknet-cifar on CIFAR-10 (configs/cifar10_prn.py) as it is, as shrink, expand and bottleneck at every gamma,
and as fprn, whose number is rho, the share of channels that a shortcut does not add. The paper's variants are trained
with the first seed, then with the second, ...; then fprn. Stop it at any time: the same command goes on. After every
training it writes DIR/results.json, DIR/figure11.md and DIR/figure11.png.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from prn_jax.experiments.blocks import trained_stages
from prn_jax.experiments.command import execute, make_record, parser, write_report
from prn_jax.experiments.figure11_report import FPRN, TITLE, blocks, picture, variants
from prn_jax.experiments.record import Record
from prn_jax.experiments.runs import RESULT, Job, by_seed, run_folder
from prn_jax.train.config import typed


def job(variant: str, seed: int, *, root: str, epochs: float, width: float) -> Job:
  """One training; `width` multiplies the network's channels."""
  from prn_jax.configs import cifar10_prn

  config = cifar10_prn.get_config(f"{variant},{root}")
  config.seed = seed
  config.total.epochs = epochs
  config.eval.every.epochs = max(1.0, epochs / 10)
  config.model_options["width_multiplier"] = width
  config.optim.schedule.burn_in_steps = 100
  config.keep_checkpoints = 1
  config.log_every.steps = 100
  return Job(variant, seed, typed(config))


# -- command -------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
  arguments = parser("figure11", "Trains residual and partial residual networks on CIFAR-10 and compares them.")
  arguments.add_argument(
    "--data", metavar="ROOT", required=True, help="folder with cifar10_train.tar.gz and cifar10_test.tar.gz"
  )
  arguments.add_argument("--epochs", metavar="N", type=float, default=30.0, help="length of a training (default 30)")
  arguments.add_argument("--width", metavar="X", type=float, default=1.0, help="multiplies the channels (default 1)")
  args = arguments.parse_args(argv)
  make = functools.partial(job, root=args.data, epochs=args.epochs, width=args.width)
  compared = [name for name in variants() if not name.startswith(FPRN)]
  beside = [name for name in variants() if name not in compared]  # not in the paper's figure: trained last
  jobs = by_seed(make, compared, args.seeds) + by_seed(make, beside, args.seeds)
  options = f"--seeds {args.seeds} --epochs {args.epochs:g} --width {args.width:g}"
  command = f"python -m prn_jax.experiments.figure11 --data ROOT --out DIR {options}"

  def made(jobs: Sequence[Job], out: Path) -> Record:
    settings = {"width": args.width, "epochs": args.epochs, "test_images": _num_test_images(jobs[0])}
    folders = {j.variant: folder for j in jobs if (folder := run_folder(j, out)).joinpath(RESULT).is_file()}
    graphs = {name: folder / "graph.cfg" for name, folder in folders.items()}
    return make_record("figure11", command, settings, jobs, out, blocks=trained_stages(graphs))

  return execute(jobs, args, made, lambda one, out: write_report(one, out, TITLE, blocks(one), picture))


@functools.cache
def _num_images(spec: str) -> int:
  from prn_jax.data_pipelines.spec import open_spec

  return len(open_spec(spec))


def _num_test_images(job: Job) -> int:
  return _num_images(job.config.data.valid)


if __name__ == "__main__":
  sys.exit(main())
