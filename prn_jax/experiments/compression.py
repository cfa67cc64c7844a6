"""Compression in small: sparse training, pruning by several methods at several rates, fine-tuning with and without a teacher.

    python -m prn_jax.experiments.compression --bccd ROOT --vehicles ROOT --out DIR [--seeds 1] [--epochs 40] [--tune-epochs 20]

Trains a network (--model, by default YOLOv3-tiny-PRN) from scratch (configs/bccd_tiny_prn.py, configs/vehicles_tiny_prn.py), then with a penalty on gammas
(configs/bccd_sparse.py), cuts it by every method of `METHODS` to every share of its operations of `FLOPS`, and fine-tunes
what is left alone and taught by the first network (configs/bccd_distilled.py). As controls the first network is fine-tuned
as well, and the smallest networks are trained from scratch for as many epochs as the whole way takes. Stop it at any time: the same
command goes on. After every training it writes DIR/results.json, DIR/compression.md and DIR/compression.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prn_jax.experiments.command import execute, make_record, parser, write_report
from prn_jax.experiments.compression_report import (
  AP50,
  DENSE,
  FLOPS,
  METHODS,
  SCRATCH,
  SPARSE,
  TEACHER,
  TITLE,
  TUNED_DENSE,
  blocks,
  picture,
  untuned_key,
)
from prn_jax.experiments.record import Record
from prn_jax.experiments.runs import Job, run_folder, scaled
from prn_jax.files.disk import write_text
from prn_jax.files.structured import read_json
from prn_jax.train.config import TrainConfig, typed

RECALIBRATION = 96  # images of training from which batch norm is estimated again after the cut
UNTUNED = "untuned.json"
ANCHORS_OF = ("yolov3-tiny-prn", "yolov3-tiny")  # networks that the anchors of the configurations fit
BURN_IN_STEPS, USUAL_EPOCHS = 100, 40.0  # shorter trainings warm up for less


class Way(NamedTuple):
  """Settings of all trainings of one call.

  Attributes:
    roots: group -> folder of the data set.
    out: the folder of the experiment.
    epochs: length of the first and of the sparse training.
    tune_epochs: length of fine-tuning.
    model: a registered detector, or a cfg file.
    scale: multiplies the input's sides, rounded to multiples of 32.
  """

  roots: dict[str, str]
  out: Path
  epochs: float
  tune_epochs: float
  model: str = "yolov3-tiny-prn"
  scale: float = 1.0


def jobs_of(way: Way, seeds: int) -> list[Job]:
  """All trainings: every seed's whole, data set by data set, what others start from first, gentle cuts before hard ones."""
  cuts = [[f"{method}:{share:g}" for method in METHODS] for share in FLOPS]
  order = [DENSE, SPARSE, *cuts[0], TUNED_DENSE, *(one for row in cuts[1:] for one in row)]
  order += [f"{one}{TEACHER}" for row in cuts for one in row]
  order += [f"{METHODS[0]}:{share:g}{SCRATCH}" for share in FLOPS]
  return [_job(way, group, variant, seed) for seed in range(seeds) for group in way.roots for variant in order]


def _job(way: Way, group: str, variant: str, seed: int) -> Job:
  from prn_jax.configs import bccd_sparse, bccd_tiny_prn, vehicles_tiny_prn

  config = {"bccd": bccd_tiny_prn, "vehicles": vehicles_tiny_prn}[group].get_config(way.roots[group])
  config.model, config.seed, config.total.epochs = way.model, seed, way.epochs
  config.width, config.height = (scaled(side, way.scale) for side in (config.width, config.height))
  if way.model not in ANCHORS_OF:
    config.anchors, config.fit_anchors = (), ":" not in variant
  dense = str(_run(way, group, DENSE, seed))
  if variant == SPARSE:
    recipe = bccd_sparse.get_config()
    config.optim, config.sparse, config.weights = recipe.optim, recipe.sparse, dense
  elif variant == TUNED_DENSE:
    config.weights = dense
    _fine_tune(config, way)
  elif variant != DENSE:
    config.model = str(_cut_folder(way, group, variant, seed))
    if variant.endswith(SCRATCH):
      config.total.epochs = 2 * way.epochs + way.tune_epochs
    else:
      config.weights = config.model
      _fine_tune(config, way)
    if variant.endswith(TEACHER):
      config.distill.teacher, config.distill.losses = dense, ("objectness", "cwd")
  config.optim.schedule.burn_in_steps = int(BURN_IN_STEPS * min(1.0, config.total.epochs / USUAL_EPOCHS))
  config.eval.every.epochs, config.eval.num_pictures = 10.0, 0
  config.keep_checkpoints = 1
  return Job(variant, seed, typed(config), group)


def _fine_tune(config: object, way: Way) -> None:
  config.optim.learning_rate, config.total.epochs = 1e-3, way.tune_epochs  # type: ignore[attr-defined]


def _run(way: Way, group: str, variant: str, seed: int) -> Path:
  return run_folder(Job(variant, seed, TrainConfig(), group), way.out)


def _cut_of(variant: str) -> str:
  """Method and share, however the cut network is trained."""
  return variant.removesuffix(TEACHER).removesuffix(SCRATCH)


def _cut_folder(way: Way, group: str, variant: str, seed: int) -> Path:
  return way.out / "cut" / Job(_cut_of(variant), seed, TrainConfig(), group).name


def prepare(way: Way, job: Job) -> None:
  """Cuts the network that a training starts from, unless it is there; beside it stands its AP50 before fine-tuning.

  Raises:
    PrnError: the sparse training is not finished, or the method cannot reach the share.
  """
  if job.variant in (DENSE, SPARSE, TUNED_DENSE):
    return
  folder = _cut_folder(way, job.group, job.variant, job.seed)
  if (folder / UNTUNED).is_file():
    return
  from prn_jax.data_pipelines.spec import open_spec
  from prn_jax.export.convert import convert
  from prn_jax.loading import load
  from prn_jax.prune.command import PruneOptions, figure, prune
  from prn_jax.prune.selection import Goal, Target

  method, _, share = _cut_of(job.variant).partition(":")
  options = PruneOptions(method=method, target=Target(Goal.FLOPS, float(share)), recalibrate=RECALIBRATION, force=True)
  sparse = load(_run(way, job.group, SPARSE, job.seed))
  skip = job.config.data.on_bad_data
  pruned = prune(sparse, options, open_spec(job.config.data.train, skip), skip).model
  value = figure(pruned, open_spec(job.config.data.valid, skip), skip)[1]
  convert(pruned, folder)
  # Written last: its presence says that the network is whole.
  write_text(folder / UNTUNED, json.dumps({AP50: value}) + "\n")


def _untuned(way: Way, jobs: Sequence[Job]) -> dict[str, float]:
  """Variant and seed -> AP50 after the cut, before fine-tuning."""
  found = {}
  for job in jobs:
    file = _cut_folder(way, job.group, job.variant, job.seed) / UNTUNED
    if ":" in job.variant and not job.variant.endswith((SCRATCH, TEACHER)) and file.is_file():
      root = read_json(file, advice="Delete its folder; the network is cut again.")
      found[untuned_key(job.group, job.variant, job.seed)] = root[AP50].number(0, 1)
  return found


# -- command -------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
  arguments = parser("compression", "Trains, prunes and fine-tunes YOLOv3-tiny-PRN on small data sets.")
  arguments.add_argument("--bccd", metavar="ROOT", help="blood cells: the folder with Annotations and ImageSets")
  arguments.add_argument("--vehicles", metavar="ROOT", help="Vehicles-OpenImages: data.yaml, train/, test/")
  arguments.add_argument(
    "--epochs", metavar="N", type=float, default=USUAL_EPOCHS, help="of the first and the sparse training"
  )
  arguments.add_argument("--tune-epochs", metavar="N", type=float, default=20.0, help="of fine-tuning (default 20)")
  arguments.add_argument("--model", metavar="NAME", default="yolov3-tiny-prn", help="a registered detector or a cfg")
  arguments.add_argument(
    "--scale", metavar="X", type=float, default=1.0, help="multiplies the input's sides (default 1)"
  )
  arguments.set_defaults(seeds=1)
  args = arguments.parse_args(argv)
  roots = {group: root for group in ("bccd", "vehicles") if (root := getattr(args, group))}
  if not roots:
    arguments.error("give --bccd ROOT, --vehicles ROOT or both")
  return run(args, Way(roots, Path(args.out), args.epochs, args.tune_epochs, args.model, args.scale))


def run(args: argparse.Namespace, way: Way) -> int:
  """The experiment; returns the exit code."""
  jobs = jobs_of(way, args.seeds)
  places = " ".join(f"--{group} ROOT" for group in way.roots)
  options = f"--seeds {args.seeds} --epochs {way.epochs:g} --tune-epochs {way.tune_epochs:g} --model {way.model} --scale {way.scale:g}"
  command = f"python -m prn_jax.experiments.compression {places} --out DIR {options}"
  settings = {"epochs": way.epochs, "tune_epochs": way.tune_epochs, "model": way.model, "scale": way.scale}

  def made(jobs: Sequence[Job], out: Path) -> Record:
    return make_record("compression", command, settings, jobs, out, untuned=_untuned(way, jobs))

  return execute(
    jobs,
    args,
    made,
    lambda one, out: write_report(one, out, TITLE, blocks(one), picture),
    lambda job: prepare(way, job),
  )


if __name__ == "__main__":
  sys.exit(main())
