"""`prn models`: every registered model."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from prn_jax.cli.common import add_json, print_json
from prn_jax.graph.cost import cost
from prn_jax.models import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  specs = [registry.get_spec(name) for name in registry.list_models()]
  rows = [_row(spec) for spec in specs]
  if args.json:
    print_json({"models": rows})
    return 0
  print(f"{'model':<20} {'task':<9} {'size':>9} {'params':>12} {'BFLOPs':>9}  {'graph':<13} published")
  for spec, row in zip(specs, rows, strict=True):
    size = f"{row['width']}x{row['height']}"
    published = "; ".join(map(_published_text, spec.published))
    print(
      f"{row['name']:<20} {row['task']:<9} {size:>9} {row['params']:>12,} {row['bflops']:>9.3f}  "
      f"{row['status']:<13} {published}"
    )
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
    "published": [dataclasses.asdict(figures) for figures in spec.published],
  }
