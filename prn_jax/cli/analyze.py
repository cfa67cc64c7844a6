"""`prn analyze`: gradient combinations (PRN paper, section 3) and live memory of any network, without JAX."""

from __future__ import annotations

import argparse
from pathlib import Path

from prn_jax.analyze import tables
from prn_jax.analyze.analysis import Analysis, analyze
from prn_jax.cli.common import add_json, add_model, output_folder, print_json, resized
from prn_jax.loading import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument("--vs", metavar="MODEL2", help="a second network to compare with")
  parser.add_argument("--size", metavar="WxH", help="input size in pixels instead of the models' own")
  parser.add_argument(
    "--stages", choices=("size", "name"), default="size", help="cut stages by output size or by name (default: size)"
  )
  parser.add_argument("--layer", metavar="NAME", help="show the channel ranges of this layer instead of all layers")
  parser.add_argument("--out", metavar="DIR", help="write figures (PNG and SVG) and report.html there")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  models = [_analysis(name, args) for name in (args.model, args.vs) if name is not None]
  details = [
    tables.range_table(model, model.layer(args.layer)) if args.layer else tables.layer_table(model) for model in models
  ]
  files = _write(models, output_folder(args.out)) if args.out else []
  if args.json:
    values = models[0].to_json()
    values["vs"] = models[1].to_json() if len(models) > 1 else None
    print_json(values | {"files": [str(path) for path in files]})
    return 0
  print("\n\n".join([tables.stage_table(models), *details, tables.memory_table(models)]))
  if files:
    print(f"\nwrote {len(files)} files; open {files[-1]}")
  return 0


def _analysis(name: str, args: argparse.Namespace) -> Analysis:
  graph = load(name, strict=not args.lenient).graph
  if args.size:
    graph = resized(graph, args.size)
  return analyze(graph, args.stages)


def _write(models: list[Analysis], out: Path) -> list[Path]:
  from prn_jax.analyze.report import write_report

  return write_report(models, out)
