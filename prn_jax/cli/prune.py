"""`prn prune`: a smaller network out of a trained one."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from prn_jax.cli.common import (
  add_json,
  add_model,
  add_weights,
  load_model,
  output_folder,
  print_json,
  require_weights,
  return_freed_memory,
  start_computing,
)
from prn_jax.errors import PrnError
from prn_jax.prune.method_names import DEFAULT_METHOD, METHOD_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    "dst",
    metavar="OUT",
    nargs="?",
    help="dir/ (a model of ours), x.weights, x.cfg, x.safetensors or x.onnx; not with --sweep",
  )
  add_weights(parser)
  parser.add_argument(
    "--method",
    metavar="NAME",
    default=DEFAULT_METHOD,
    help=f"what decides: {', '.join(METHOD_NAMES)} (default {DEFAULT_METHOD}; docs/compression.md)",
  )
  parser.add_argument(
    "--percent", type=float, metavar="P", help="of the channels in the scope of the method that go, 0 to 100"
  )
  parser.add_argument("--target-flops", type=float, metavar="R", help="share of the operations that stay, 0 to 1")
  parser.add_argument(
    "--blocks", type=int, default=0, metavar="N", help="residual blocks that go as a whole, before the channels"
  )
  parser.add_argument(
    "--round-to", type=int, metavar="N", help="leave multiples of N filters: 8, 16 or 32 suit hardware"
  )
  parser.add_argument(
    "--min-keep", type=int, default=1, metavar="N", help="of every layer at least so many filters stay (default 1)"
  )
  parser.add_argument(
    "--data",
    metavar="SPEC",
    help="annotated images (`prn data --help`): figures before and after, and images for --recalibrate",
  )
  parser.add_argument(
    "--on-bad-data", choices=("stop", "skip"), default="stop", help="stop at bad data (default), or skip it"
  )
  parser.add_argument(
    "--calibrate", metavar="SPEC", help="images for --recalibrate, such as those of training (default: --data)"
  )
  parser.add_argument("--recalibrate", type=int, default=0, metavar="N", help="estimate batch norm again from N images")
  parser.add_argument(
    "--sweep", metavar="P,P,...", help="only a table of figures at these percentages; needs --data, writes nothing"
  )
  parser.add_argument("--force", action="store_true", help="go on although gammas are not sparse")
  parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the method random (default 0)")
  parser.add_argument(
    "--report",
    metavar="DIR",
    help="write report.json, layers.png and report.html here, with all layers before and after",
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.spec import open_spec
  from prn_jax.export import convert as converter
  from prn_jax.prune import command as pruning
  from prn_jax.prune.report import write_report
  from prn_jax.run.evaluate import open_data

  options = _options(args)
  if args.dst:
    converter.file_type(args.dst)  # a wrong type fails before the work starts
  return_freed_memory()
  start_computing("prune")
  model = load_model(args)
  require_weights(model, args.model)
  dataset = open_data(args.data, model, args.on_bad_data) if args.data else None
  calibration = open_spec(args.calibrate, args.on_bad_data) if args.calibrate else dataset
  if args.sweep:
    return _sweep(args, model, options, dataset, calibration)
  pruned = pruning.prune(model, options, calibration, args.on_bad_data)
  report = {"method": options.method} | pruning.sizes(model, pruned.model) | pruned.to_json()
  if dataset is not None:
    for key, one in (("before", model), ("after", pruned.model)):
      name, value = pruning.figure(one, dataset, args.on_bad_data)
      report[f"{name}_{key}"] = value
  converter.convert(pruned.model, args.dst)
  if args.report:
    write_report(output_folder(args.report, "--report"), model.graph.name, report)
  if args.json:
    print_json({"dst": str(args.dst)} | report)
  else:
    _print(args.dst, report)
  return 0


def _options(args: argparse.Namespace) -> Any:
  from prn_jax.prune.command import PruneOptions

  if args.sweep and (args.dst or args.percent is not None or args.target_flops is not None or args.report):
    raise PrnError("--sweep writes nothing: leave OUT, --percent, --target-flops and --report out.")
  if args.sweep is None and not args.dst:
    raise PrnError(
      "OUT is missing: name a folder, or x.weights, x.cfg, x.safetensors, x.onnx; or ask for a table with --sweep."
    )
  if args.percent is not None and args.target_flops is not None:
    raise PrnError("--percent and --target-flops both say how much goes; give one of them.")
  if args.percent is not None and not 0 < args.percent < 100:
    raise PrnError(f"--percent {args.percent:g}: expected more than 0 and less than 100.")
  if args.target_flops is not None and not 0 < args.target_flops < 1:
    raise PrnError(f"--target-flops {args.target_flops:g}: expected the share that stays, more than 0 and less than 1.")
  if args.sweep is None and args.percent is None and args.target_flops is None and not args.blocks:
    raise PrnError("nothing to remove: give --percent P, --target-flops R or --blocks N.")
  for option, value, least in (
    ("--recalibrate", args.recalibrate, 0),
    ("--blocks", args.blocks, 0),
    ("--min-keep", args.min_keep, 1),
    ("--round-to", args.round_to or 1, 1),
  ):
    if value < least:
      raise PrnError(f"{option} {value}: expected at least {least}.")
  if args.sweep and not args.data:
    raise PrnError("--sweep needs images: give --data SPEC.")
  if args.recalibrate and not (args.calibrate or args.data):
    raise PrnError("--recalibrate needs images: give --calibrate SPEC or --data SPEC.")
  if args.calibrate and not args.recalibrate:
    raise PrnError(f"--calibrate {args.calibrate} has no effect without --recalibrate N, the number of images.")
  return PruneOptions(
    method=args.method,
    share=None if args.percent is None else args.percent / 100,
    flops=args.target_flops,
    round_to=args.round_to,
    min_keep=args.min_keep,
    blocks=args.blocks,
    recalibrate=args.recalibrate,
    seed=args.seed,
    force=args.force,
  )


def _sweep(args: argparse.Namespace, model: Any, options: Any, dataset: Any, calibration: Any) -> int:
  from prn_jax.prune.command import figure, sweep

  try:
    percents = [float(text) for text in args.sweep.split(",")]
  except ValueError:
    raise PrnError(f"--sweep {args.sweep}: expected percentages, as in 10,30,50,70.") from None
  if not all(0 < percent < 100 for percent in percents):
    raise PrnError(f"--sweep {args.sweep}: expected percentages of more than 0 and less than 100.")
  name, value = figure(model, dataset, args.on_bad_data)
  rows = [{"share": 0.0, name: value}]
  print(f"{'percent':>8} {'parameters':>12} {'BFLOPs':>8} {'score':>7} {name:>7}", file=sys.stderr)
  print(f"{0:8.1f} {'100%':>12} {'100%':>8} {'0%':>7} {value:7.4f}", file=sys.stderr)
  shares = [percent / 100 for percent in percents]
  for row in sweep(model, options, shares, dataset, calibration, args.on_bad_data):
    rows.append(row)
    print(
      f"{100 * row['share']:8.1f} {row['params_share']:12.1%} {row['bflops_share']:8.1%} {row['score_removed']:7.1%} {row[name]:7.4f}",
      file=sys.stderr,
    )
  if args.json:
    print_json({"method": options.method, "rows": rows})
  return 0


def _print(dst: str, report: dict[str, Any]) -> None:
  from prn_jax.prune.report import FIGURES

  blocks = f" and {len(report['blocks_removed'])} residual blocks" if report["blocks_removed"] else ""
  print(f"removed {report['units_removed']:,} of {report['units']:,} channels{blocks}")
  for what in ("params", "bflops"):
    old, new = report[what], report[f"{what}_left"]
    shown = (f"{old:,}", f"{new:,}") if what == "params" else (f"{old:.3f}", f"{new:.3f}")
    name = "parameters" if what == "params" else "BFLOPs"
    print(f"  {name:<11} {shown[0]} -> {shown[1]} ({new / old:.0%})")
  for name in FIGURES:
    if f"{name}_after" in report:
      print(f"  {name:<11} {report[f'{name}_before']:.4f} -> {report[f'{name}_after']:.4f} (not fine-tuned)")
  print(f"wrote {dst}")
