"""The paper's table 2 in small: YOLOv3-tiny with concatenation, with the PRN head, and with a multi-source PRN head.

    python -m prn_jax.experiments.table2 --vehicles ROOT --traffic ROOT --out DIR [--seeds 3] [--steps 1000] [--scale 1]

Trains the variants of configs/small_head_vehicles.py on two small data sets, alike. Stop it at any time: the same
command goes on. After every training it writes DIR/results.json, DIR/table2.md and DIR/table2.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prn_jax.experiments.cameras import split_by_camera
from prn_jax.experiments.command import execute, make_record, parser, write_report
from prn_jax.experiments.curves import draw_curves, legend, panels, save
from prn_jax.experiments.record import Record, run_lines
from prn_jax.experiments.runs import Job, Result, scaled
from prn_jax.experiments.summary import (
  deviation_text,
  difference,
  estimate,
  figures,
  markdown_table,
  with_deviation,
  with_interval,
)
from prn_jax.files.disk import write_text
from prn_jax.files.structured import read_json
from prn_jax.run.machine import machine, machine_text
from prn_jax.train.config import TrainConfig, typed

TITLE = "## Table 2 in small: YOLOv3-tiny's head"
VARIANTS = ("yolov3-tiny", "yolov3-tiny-prn", "multi-source")
BASELINE = VARIANTS[0]
GROUPS = {"vehicles": "vehicles-openimages", "traffic": "traffic cameras (ATL-version-2)"}
TRAFFIC_VALID = ("A",)  # the camera whose images validate; it has most of the bikes and buses
AP50 = "AP50"


def job(group: str, variant: str, seed: int, *, spec: tuple[str, str], steps: int, scale: float) -> Job:
  """One training.

  Args:
    group: one of `GROUPS`.
    variant: one of `VARIANTS`.
    seed: see `Job`.
    spec: training and validation images.
    steps: length; 16 images each.
    scale: multiplies the input's sides, rounded to multiples of 32.
  """
  from prn_jax.configs import small_head_traffic, small_head_vehicles

  config = {"vehicles": small_head_vehicles, "traffic": small_head_traffic}[group].get_config(variant)
  config.data.train, config.data.valid = spec
  config.seed = seed
  config.width, config.height = (scaled(side, scale) for side in (config.width, config.height))
  config.total.epochs, config.total.steps = 0.0, steps
  config.optim.schedule.burn_in_steps = min(config.optim.schedule.burn_in_steps, steps // 10)
  config.eval.every.epochs, config.eval.every.steps = 0.0, max(1, steps // 5)
  config.eval.num_pictures = 0
  config.keep_checkpoints = 1
  return Job(variant, seed, typed(config), group)


def specs(args: argparse.Namespace) -> dict[str, tuple[str, str]]:
  """Group -> training and validation images, of the data sets that are given."""
  result = {}
  if args.vehicles:
    result["vehicles"] = (f"yolo:{args.vehicles}/data.yaml:train", f"yolo:{args.vehicles}/data.yaml:test")
  if args.traffic:
    root = Path(args.traffic)
    train, valid = split_by_camera(
      root / "derived" / "coco.json", root / "sources.csv", TRAFFIC_VALID, Path(args.out) / "traffic"
    )
    result["traffic"] = (f"coco:{train}:{root / 'images'}", f"coco:{valid}:{root / 'images'}")
  return result


# -- report --------------------------------------------------------------------------------------------------


def picture(made: Record, path: Path) -> Path:
  """AP50 over the epochs, one panel for each data set."""
  groups = _groups(made.runs)
  figure, axes = panels(1, len(groups))
  for one, group in zip(axes, groups, strict=True):
    draw_curves(one, _of(made.runs, group), {variant: variant for variant in VARIANTS}, AP50)
    one.set_title(f"{group}; mean and deviation over seeds", fontsize=10)
    legend(one)
  return save(figure, path)


def blocks(made: Record) -> dict[str, list[str]]:
  """Name -> lines of Markdown: what was run, and a table for each data set."""
  devices = _devices(made)
  where = "; ".join(f"{device}{_mark(i, devices)}" for i, device in enumerate(devices))
  latency = ["", f"Latencies were measured on {where}."] if devices else []
  return {"run": [*run_lines(made), *latency]} | {group: _table(made, group) for group in _groups(made.runs)}


def _groups(results: Sequence[Result]) -> list[str]:
  return [group for group in GROUPS if _of(results, group)]


def _of(results: Sequence[Result], group: str) -> list[Result]:
  return [r for r in results if r.group == group]


def _table(made: Record, group: str) -> list[str]:
  results, rows = _of(made.runs, group), []
  devices = _devices(made)
  for variant in VARIANTS:
    values = list(figures(results, variant, AP50).values())
    if not values:
      rows.append([variant, "not yet run", *[""] * (5 + len(devices))])
      continue
    one = next(r for r in results if r.variant == variant)
    less = difference(results, variant, BASELINE, AP50) if variant != BASELINE else None
    times = [
      made.latency[device].get(_latency_key(group, variant, made.settings["sizes"][group])) for device in devices
    ]
    rows.append([
      variant, with_deviation(estimate(values)), str(len(values)), with_interval(less), deviation_text(less),
      f"{one.params:,}", f"{one.bflops:.3f}", *(f"{time:.1f}" if time else "" for time in times),
    ])  # fmt: skip
  header = ("network", "mAP50, %", "seeds", f"minus {BASELINE} (95%)", "± of it", "parameters", "BFLOPs")
  return markdown_table((*header, *(f"latency{_mark(i, devices)}, ms" for i in range(len(devices)))), rows)


def _devices(made: Record) -> list[str]:
  """Those that latencies of what is reported were measured on: one column each, so that machines do not mix."""
  keys = {_latency_key(r.group, r.variant, made.settings["sizes"][r.group]) for r in made.runs}
  return [device for device, values in made.latency.items() if keys & values.keys()]


def _mark(index: int, devices: Sequence[str]) -> str:
  return f" ({index + 1})" if len(devices) > 1 else ""


# -- command -------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
  arguments = parser("table2", "Trains YOLOv3-tiny with three heads on small data sets and compares them.")
  arguments.add_argument("--vehicles", metavar="ROOT", help="Vehicles-OpenImages: data.yaml, train/, test/")
  arguments.add_argument("--traffic", metavar="ROOT", help="ATL-version-2: images/, derived/coco.json, sources.csv")
  arguments.add_argument("--steps", metavar="N", type=int, default=1000, help="of 16 images (default 1000)")
  arguments.add_argument(
    "--scale", metavar="X", type=float, default=1.0, help="multiplies the input's sides (default 1)"
  )
  args = arguments.parse_args(argv)
  if not (args.vehicles or args.traffic):
    arguments.error("give --vehicles ROOT, --traffic ROOT or both")
  given = specs(args)
  jobs = [
    job(group, variant, seed, spec=spec, steps=args.steps, scale=args.scale)
    for seed in range(args.seeds)
    for group, spec in given.items()
    for variant in VARIANTS
  ]
  places = " ".join(f"--{group} ROOT" for group in given)
  options = f"--seeds {args.seeds} --steps {args.steps} --scale {args.scale:g}"
  command = f"python -m prn_jax.experiments.table2 {places} --out DIR {options}"
  settings = {"steps": args.steps, "sizes": {j.group: f"{j.config.width}x{j.config.height}" for j in jobs}}

  def made(jobs: Sequence[Job], out: Path) -> Record:
    return make_record("table2", command, settings, jobs, out, latency=_latency(jobs, out))

  return execute(jobs, args, made, lambda one, out: write_report(one, out, TITLE, blocks(one), picture))


def _latency_key(group: str, variant: str, size: str) -> str:
  """Of one measurement on one device; the group decides the number of classes."""
  return f"{group} {variant} {size}"


def _latency(jobs: Sequence[Job], out: Path) -> dict[str, dict[str, float]]:
  """Device -> group, variant and input -> milliseconds: what is kept in the experiment's folder, and what was missing.

  The networks of one group are always measured together, since they are to be compared.
  """
  path = out / "latency.json"
  kept = _kept_latency(path)
  here = kept.setdefault(machine_text(machine()), {})
  for group in dict.fromkeys(j.group for j in jobs):
    chosen = {
      _latency_key(group, j.variant, f"{j.config.width}x{j.config.height}"): j.config for j in jobs if j.group == group
    }
    if not chosen.keys() <= here.keys():
      here |= _measured(chosen)
      write_text(path, json.dumps(kept, indent=1))
  return kept


def _kept_latency(path: Path) -> dict[str, dict[str, float]]:
  """What was measured before; without what an earlier version measured, which does not say on which machine."""
  if not path.is_file():
    return {}
  devices = read_json(path, advice="Delete it; the latencies are measured again.").mapping()
  return {
    device: {name: value.number() for name, value in each.mapping().items()}
    for device, each in devices.items()
    if isinstance(each.raw, dict)
  }


def _measured(configs: Mapping[str, TrainConfig]) -> dict[str, float]:
  """Name -> milliseconds of the networks of these configurations, which share their data."""
  from prn_jax.data_pipelines.spec import open_spec
  from prn_jax.run.latency import latencies
  from prn_jax.train.experiment import build_network

  classes = len(open_spec(next(iter(configs.values())).data.train, "skip").names)
  return latencies({name: build_network(config, classes)[0] for name, config in configs.items()})


if __name__ == "__main__":
  sys.exit(main())
