"""`prn prune`: a smaller network out of a trained one."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import Any

from prn_jax.cli.common import (
  add_json,
  add_model,
  add_weights,
  load_model,
  output_folder,
  print_json,
  progress_bar,
  require_weights,
  return_freed_memory,
  start_computing,
)
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path
from prn_jax.prune.method_names import DEFAULT_METHOD, LOOK_AT_DATA, METHOD_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    "dst",
    metavar="OUT",
    nargs="?",
    help="dir/ (a model of ours), x.weights, x.cfg, x.safetensors or x.onnx; not with --sweep or --tuned",
  )
  add_weights(parser)
  parser.add_argument(
    "--method",
    metavar="NAME",
    default=DEFAULT_METHOD,
    help=f"what decides: {', '.join(METHOD_NAMES)} (default {DEFAULT_METHOD}; docs/compression.md)",
  )
  _add_targets(parser)
  _add_images(parser)
  parser.add_argument(
    "--sweep", metavar="P,P,...", help="only a table of figures at these percentages; needs --data, writes nothing"
  )
  parser.add_argument("--force", action="store_true", help="go on although gammas are not sparse")
  parser.add_argument(
    "--seed", type=int, default=0, metavar="N", help="of the methods random and eagle-eye (default 0)"
  )
  parser.add_argument(
    "--report",
    metavar="DIR",
    help="write report.json, layers.png and report.html here: layers, figures and times before and after",
  )
  parser.add_argument(
    "--tuned",
    action="store_true",
    help="MODEL is the pruned network after its fine-tuning: add its figure to the report in --report DIR, nothing else",
  )
  add_json(parser)


def _add_targets(parser: argparse.ArgumentParser) -> None:
  """How much goes, and what must stay."""
  parser.add_argument(
    "--percent", type=float, metavar="P", help="of the channels in the scope of the method that go, 0 to 100"
  )
  parser.add_argument("--target-flops", type=float, metavar="R", help="share of the operations that stay, 0 to 1")
  parser.add_argument("--target-params", type=float, metavar="R", help="share of the parameters that stay, 0 to 1")
  parser.add_argument(
    "--target-latency", type=float, metavar="MS", help="milliseconds of one image on this machine, in JAX, batch 1"
  )
  parser.add_argument(
    "--blocks", type=int, default=0, metavar="N", help="residual blocks that go as a whole, before the channels"
  )
  parser.add_argument(
    "--round-to", type=int, metavar="N", help="leave multiples of N filters: 8, 16 or 32 suit hardware"
  )
  parser.add_argument(
    "--min-keep", type=int, default=1, metavar="N", help="of every layer at least so many filters stay (default 1)"
  )


def _add_images(parser: argparse.ArgumentParser) -> None:
  """Images, for figures and for methods that look at them."""
  parser.add_argument(
    "--data",
    metavar="SPEC",
    help="annotated images (`prn data --help`): figures before and after, and images for --recalibrate",
  )
  parser.add_argument(
    "--on-bad-data", choices=("stop", "skip"), default="stop", help="stop at bad data (default), or skip it"
  )
  parser.add_argument(
    "--calibrate",
    metavar="SPEC",
    help="images for --recalibrate and for methods that look at data, such as those of training (default: --data)",
  )
  parser.add_argument(
    "--images", type=int, metavar="N", help="annotated images for the methods taylor and eagle-eye, evenly spread (64)"
  )
  parser.add_argument("--candidates", type=int, metavar="N", help="random networks that eagle-eye rates (50)")
  parser.add_argument("--recalibrate", type=int, default=0, metavar="N", help="estimate batch norm again from N images")


def run(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.spec import open_spec
  from prn_jax.export import convert as converter
  from prn_jax.prune import command as pruning
  from prn_jax.prune.methods import get_method
  from prn_jax.prune.report import write_report
  from prn_jax.run.evaluate import open_data

  if args.tuned:
    return _tuned(args)
  options = _options(args)
  if args.dst:
    converter.file_type(args.dst)  # a wrong type fails before the work starts
  method = get_method(options.method)
  return_freed_memory()
  start_computing("prune")
  model = load_model(args)
  require_weights(model, args.model)
  dataset = open_data(args.data, model, args.on_bad_data) if args.data else None
  calibration = dataset
  if args.calibrate and method.needs_data:
    calibration = open_data(args.calibrate, model, args.on_bad_data)
  elif args.calibrate:
    calibration = open_spec(args.calibrate, args.on_bad_data)
  if args.sweep:
    return _sweep(args, model, options, dataset, calibration)
  with (
    progress_bar(options.candidates, "rating candidates")
    if method.score == "candidates"
    else nullcontext(lambda done: None) as advance
  ):
    pruned = pruning.prune(model, options, calibration, args.on_bad_data, lambda rating: advance(1))
  report = {"name": model.graph.name, "method": options.method}
  report |= pruning.sizes(model, pruned.model) | pruned.to_json()
  if dataset is not None:
    report |= {"data": args.data, "on_bad_data": args.on_bad_data}
    for key, one in (("before", model), ("after", pruned.model)):
      name, value = pruning.figure(one, dataset, args.on_bad_data)
      report[f"{name}_{key}"] = value
  if args.report or args.target_latency is not None:
    report["latency"] = pruning.times(model, pruned.model)
  converter.convert(pruned.model, args.dst)
  if args.report:
    write_report(output_folder(args.report, "--report"), report)
  if args.json:
    print_json({"dst": str(args.dst)} | report)
  else:
    _print(report)
    print(f"wrote {args.dst}")
  return 0


def _tuned(args: argparse.Namespace) -> int:
  """The figure of the fine-tuned network, into the report of its pruning."""
  from prn_jax.prune.tuned import add_tuned

  given = [
    f"--{name.replace('_', '-')}"
    for name in ("percent", "target_flops", "target_params", "target_latency", "blocks", "data", "sweep", "recalibrate")
    if getattr(args, name)
  ]
  if args.dst or given:
    raise PrnError(
      f"--tuned only adds to a report, by the data that the report names: leave {given[0] if given else 'OUT'} out."
    )
  if not args.report:
    raise PrnError("--tuned needs the report of the pruning: give its folder with --report DIR.")
  return_freed_memory()
  start_computing("prune")
  model = load_model(args)
  require_weights(model, args.model)
  report = add_tuned(model, args.model, to_path(args.report))
  if args.json:
    print_json(report)
  else:
    _print(report)
    print(f"wrote {args.report}/report.json, layers.png and report.html")
  return 0


def _target(args: argparse.Namespace) -> Any:
  """What --percent or one of the targets says; None where nothing does."""
  from prn_jax.prune.selection import Goal, Target

  given = {
    name: value
    for name, value in (
      ("--percent", args.percent),
      ("--target-flops", args.target_flops),
      ("--target-params", args.target_params),
      ("--target-latency", args.target_latency),
    )
    if value is not None
  }
  if len(given) > 1:
    raise PrnError(f"{' and '.join(given)} both say how much goes; give one of them.")
  if not given:
    return None
  ((name, value),) = given.items()
  if name == "--percent":
    if not 0 < value < 100:
      raise PrnError(f"--percent {value:g}: expected more than 0 and less than 100.")
    return Target(Goal.SHARE, value / 100)
  if name == "--target-latency":
    if not 0 < value < float("inf"):
      raise PrnError(f"--target-latency {value:g}: expected milliseconds, more than 0.")
    return Target(Goal.LATENCY, value)
  if not 0 < value < 1:
    raise PrnError(f"{name} {value:g}: expected the share that stays, more than 0 and less than 1.")
  return Target(Goal(name.removeprefix("--target-")), value)


def _options(args: argparse.Namespace) -> Any:
  from prn_jax.prune.command import PruneOptions
  from prn_jax.prune.selection import Kept

  target = _target(args)
  if args.sweep and (args.dst or target or args.report):
    raise PrnError("--sweep writes nothing: leave OUT, --percent, the targets and --report out.")
  if args.sweep is None and not args.dst:
    raise PrnError(
      "OUT is missing: name a folder, or x.weights, x.cfg, x.safetensors, x.onnx; or ask for a table with --sweep."
    )
  if args.sweep is None and target is None and not args.blocks:
    raise PrnError(
      "nothing to remove: give --percent P, --target-flops R, --target-params R, --target-latency MS or --blocks N."
    )
  _check_numbers(args)
  _check_data(args)
  chosen = {name: getattr(args, name) for name in ("images", "candidates") if getattr(args, name) is not None}
  return PruneOptions(
    method=args.method,
    target=target,
    kept=Kept(round_to=args.round_to, min_keep=args.min_keep),
    blocks=args.blocks,
    recalibrate=args.recalibrate,
    seed=args.seed,
    force=args.force,
    **chosen,
  )


def _check_numbers(args: argparse.Namespace) -> None:
  for option, value, least in (
    ("--recalibrate", args.recalibrate, 0),
    ("--blocks", args.blocks, 0),
    ("--min-keep", args.min_keep, 1),
    ("--round-to", args.round_to, 1),
    ("--images", args.images, 1),
    ("--candidates", args.candidates, 1),
    ("--seed", args.seed, 0),
  ):
    if value is not None and value < least:
      raise PrnError(f"{option} {value}: expected at least {least}.")


def _check_data(args: argparse.Namespace) -> None:
  """Data where it is needed, and no option about data without effect."""
  looks = args.method in LOOK_AT_DATA
  if args.sweep and not args.data:
    raise PrnError("--sweep needs images: give --data SPEC.")
  if args.recalibrate and not (args.calibrate or args.data):
    raise PrnError("--recalibrate needs images: give --calibrate SPEC or --data SPEC.")
  if args.calibrate and not (args.recalibrate or looks):
    raise PrnError(
      f"--calibrate {args.calibrate} has no effect without --recalibrate N, the number of images, or a method that looks at "
      f"data ({', '.join(LOOK_AT_DATA)})."
    )
  if args.images is not None and not looks:
    raise PrnError(
      f"--images {args.images} has no effect on the method '{args.method}'; {', '.join(LOOK_AT_DATA)} use it."
    )
  if args.candidates is not None and args.method != "eagle-eye":
    raise PrnError(f"--candidates {args.candidates} has no effect on the method '{args.method}'; eagle-eye uses it.")


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


def _print(report: dict[str, Any]) -> None:
  from prn_jax.prune.report import FIGURES

  blocks = f" and {len(report['blocks_removed'])} residual blocks" if report["blocks_removed"] else ""
  print(f"removed {report['units_removed']:,} of {report['units']:,} channels{blocks}")
  if rated := report.get("candidates"):
    figures = sorted(one["figure"] for one in rated)
    print(
      f"  the best of {len(rated)} candidates, rated {figures[-1]:.4f}; median {figures[len(figures) // 2]:.4f}, worst {figures[0]:.4f}"
    )
  for what in ("params", "bflops"):
    old, new = report[what], report[f"{what}_left"]
    shown = (f"{old:,}", f"{new:,}") if what == "params" else (f"{old:.3f}", f"{new:.3f}")
    name = "parameters" if what == "params" else "BFLOPs"
    print(f"  {name:<11} {shown[0]} -> {shown[1]} ({new / old:.0%})")
  if times := report.get("latency"):
    print(
      f"  latency     {times['before_ms']:.2f} -> {times['after_ms']:.2f} ms ({times['before_ms'] / times['after_ms']:.2f}x as fast; "
      f"batch 1, {times['width']}x{times['height']}, in turn on {times['machine']})"
    )
  for name in FIGURES:
    if f"{name}_after" in report:
      tuned = f" -> {report[f'{name}_tuned']:.4f} (fine-tuned)" if f"{name}_tuned" in report else " (not fine-tuned)"
      print(f"  {name:<11} {report[f'{name}_before']:.4f} -> {report[f'{name}_after']:.4f}{tuned}")
