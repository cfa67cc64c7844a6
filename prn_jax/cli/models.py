"""`prn models`: every registered model; `--compare` puts some side by side, `--download NAME` fetches published weights."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prn_jax.cli.common import add_json, parse_size, print_json, start_computing
from prn_jax.cli.devices import device_text
from prn_jax.errors import PrnError
from prn_jax.graph.cost import cost
from prn_jax.models import registry
from prn_jax.run import compare
from prn_jax.zoo import manifest as zoo
from prn_jax.zoo.fetch import Progress as OnProgress

PASSES = 20  # of --measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--download", metavar="NAME", help="fetch and verify the published weights of this model")
  parser.add_argument(
    "--to", metavar="DIR", type=Path, help="folder for them. Default: $PRN_CACHE, or ~/.cache/prn_jax/weights"
  )
  parser.add_argument(
    "--url", metavar="URL", help="fetch them from another address (a mirror, file:///...); verified all the same"
  )
  parser.add_argument(
    "--compare",
    metavar="NAME",
    nargs="*",
    help="a table of parameters, operations, memory and published accuracy of these models; without names of all",
  )
  parser.add_argument("--size", metavar="WxH", help="with --compare: one input size for all instead of each one's own")
  parser.add_argument(
    "--measure",
    metavar="PASSES",
    nargs="?",
    type=int,
    const=PASSES,
    help=f"with --compare: also the time of one image on this machine, the median of so many passes (default {PASSES})",
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  if args.compare is None and (args.size or args.measure is not None):
    raise PrnError("--size and --measure belong to --compare [NAME ...].")
  if args.download is not None:
    if args.compare is not None:
      raise PrnError("--download and --compare are two commands; give one of them.")
    return _download(args)
  if args.to or args.url:
    raise PrnError("--to and --url belong to --download NAME.")
  return _list(args) if args.compare is None else _compare(args)


def _compare(args: argparse.Namespace) -> int:
  if args.measure is not None and args.measure < 1:
    raise PrnError(f"--measure {args.measure}: expected at least 1 pass.")
  size = parse_size(args.size) if args.size else None
  rows = compare.compare(args.compare or registry.list_models(), size)
  device = None
  if args.measure is not None:
    start_computing("models")
    device = device_text()
    rows = compare.measured(rows, args.measure, size)
  if args.json:
    print_json({"models": [dataclasses.asdict(row) for row in rows], "device": device})
    return 0
  width = max(len(row.name) for row in rows)
  time = f" {'ms':>8}" if device else ""
  print(
    f"{'model':<{width}} {'size':>9} {'params':>12} {'BFLOPs':>9} {'peak MB':>8}{time} {'AP':>5} {'AP50':>5} {'top-1':>6}"
  )
  for row in rows:
    at = f"{row.width}x{row.height}"
    time = f" {row.latency_ms:>8.2f}" if row.latency_ms is not None else ""
    print(
      f"{row.name:<{width}} {at:>9} {row.params:>12,} {row.bflops:>9.3f} {row.peak_activation_bytes / 1e6:>8.1f}{time} "
      f"{_accuracy_text(row)}"
    )
  print(
    "\nBFLOPs by Darknet's count; peak MB of float32 feature maps at batch 1; accuracies as published.", file=sys.stderr
  )
  if device:
    print(f"ms: median of {args.measure} passes of one image {device}, random weights.", file=sys.stderr)
  return 0


def _accuracy_text(row: compare.Compared) -> str:
  """The published accuracies, the size at which they were found if it is another one, and where they stand."""
  found = row.published
  if found is None:
    return ""
  values = "".join(
    f"{'' if value is None else value:>{width}} " for value, width in ((found.ap, 5), (found.ap50, 5), (found.top1, 6))
  )
  at = "" if (found.size, found.size) == (row.width, row.height) else f"at {found.size}: "
  return f"{values} {at}{found.source}"


def _list(args: argparse.Namespace) -> int:
  specs = [registry.get_spec(name) for name in registry.list_models()]
  rows = [_row(spec) for spec in specs]
  if args.json:
    print_json({"models": rows})
    return 0
  print(f"{'model':<20} {'task':<9} {'size':>9} {'params':>12} {'BFLOPs':>9}  {'graph':<13} {'weights':>8}  published")
  for spec, row in zip(specs, rows, strict=True):
    size = f"{row['width']}x{row['height']}"
    published = "; ".join([*map(_published_text, spec.published), *filter(None, [spec.note])])
    weights = f"{row['weights']['size'] / 1e6:.0f} MB" if row["weights"] else "-"
    weights = "included" if spec.weights else weights
    print(
      f"{row['name']:<20} {row['task']:<9} {size:>9} {row['params']:>12,} {row['bflops']:>9.3f}  "
      f"{row['status']:<13} {weights:>8}  {published}"
    )
  print("\nWeights can be fetched with: prn models --download NAME", file=sys.stderr)
  return 0


def _published_text(figures: registry.Published) -> str:
  """ "416: 3.467 BFLOPs, AP50 33.1"."""
  parts = (
    (figures.bflops, "{} BFLOPs"),
    (figures.params_m, "{} M params"),
    (figures.ap, "AP {}"),
    (figures.ap50, "AP50 {}"),
    (figures.top1, "top-1 {}"),
  )
  return f"{figures.size}: " + ", ".join(text.format(value) for value, text in parts if value is not None)


def _row(spec: registry.ModelSpec) -> dict[str, Any]:
  graph = registry.build_graph(spec.name)
  total = cost(graph)
  return {
    "name": spec.name,
    "task": spec.task,
    "width": graph.width,
    "height": graph.height,
    "params": total.params,
    "bflops": round(total.bflops, 3),
    "status": spec.status,
    "reference": spec.reference,
    "note": spec.note,
    "published": [dataclasses.asdict(figures) for figures in spec.published],
    "weights": _weights(zoo.ENTRIES[spec.name]) if spec.name in zoo.ENTRIES else None,
  }


def _weights(entry: zoo.Weights) -> dict[str, Any]:
  return {
    "url": entry.url,
    "size": entry.size,
    "size_is_computed": entry.size_source is None,
    "checksum": str(entry.checksum) if entry.checksum else None,
    "licence": entry.licence,
    "published_at": entry.published_at,
    "names": entry.names,
  }


def _download(args: argparse.Namespace) -> int:
  entry = zoo.get_entry(args.download)
  with _bar(args.url or entry.url) as progress:
    done = zoo.download(entry, args.to, args.url, progress=progress)
  by = entry.checksum.kind if entry.checksum else "size and graph"
  if args.json:
    print_json(
      {
        "path": str(done.path),
        "size": done.size,
        "checksum": str(entry.checksum or f"sha256:{done.sha256}"),
        "verified": done.verified,
        "verified_by": by,
        "sha256": done.sha256,
        "downloaded": done.is_new,
      }
    )
    return 0
  print(f"{done.path}: {done.size:,} bytes{'' if done.is_new else ', there already'}")
  print(f"  sha256     {done.sha256}")
  if entry.checksum:
    print(f"  verified   {by} {entry.checksum.value}, published in {entry.checksum.source}")
  else:
    print("  verified   by size and by fitting the graph; no checksum of it is published")
  print(f"  published  {entry.published_at}")
  print(f"  licence    {entry.licence}")
  print(f"  cfg        {entry.cfg}; class names: {entry.names}")
  return 0


@contextlib.contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
  """On a terminal a bar of the bytes; elsewhere one line on stderr that says what is fetched."""
  if not sys.stderr.isatty():
    say = functools.cache(lambda: print(f"fetching {what}", file=sys.stderr))
    yield lambda here, whole: say()
    return
  from rich.console import Console
  from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

  columns = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
  )
  with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
    task = bar.add_task(what, total=None)
    yield lambda here, whole: bar.update(task, completed=here, total=whole)
