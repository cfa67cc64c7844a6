"""`prn summary`: Darknet's layer table and the totals, without JAX."""

from __future__ import annotations

import argparse
import math
from typing import Any

from prn_jax.cli.common import add_json, add_model, add_weights, load_model, print_json, resized
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.graph.receptive import ReceptiveField, receptive_fields
from prn_jax.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  add_weights(parser)
  parser.add_argument("--size", metavar="WxH", help="input size in pixels instead of the model's own")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  model = load_model(args)
  graph = resized(model.graph, args.size) if args.size else model.graph
  total, fields = cost(graph), receptive_fields(graph)
  values: dict[str, Any] = {
    "name": graph.name,
    "width": graph.width,
    "height": graph.height,
    "layers": len(graph),
    "params": total.params,
    "weight_file_floats": total.weight_file_floats,
    "bflops": total.bflops,
    "macs": total.macs,
    "peak_activation_bytes": total.peak_activation_bytes,
    "receptive_fields": {head.name: list(fields[head.name].size) for head in graph.heads},
    "weights": _weights(model),
  }
  if args.json:
    print_json(values)
    return 0
  width = max(len(layer.name) for layer in graph)
  places = {layer.name: str(i) for i, layer in enumerate(graph)}
  print(
    f"{'':>4} {'layer':<{width}} {'kind':<14} {'detail':<18} {'input':>15}    {'output':>15} {'params':>11} {'BFLOPs':>7}"
  )
  for i, row in enumerate(total.layers):
    shape = str(row.inputs[0]) if row.inputs else "-"
    detail = row.layer.detail([places[name] for name in row.layer.inputs if name in places])
    print(
      f"{i:>4} {row.layer.name:<{width}} {row.layer.kind:<14} {detail:<18} {shape:>15} -> "
      f"{row.output!s:>15} {row.params or '':>11} {f'{row.flops / 1e9:.3f}' if row.flops else '':>7}"
    )
  print(_totals(values, fields, graph))
  if values["weights"]:
    print(_weights_text(values["weights"]))
  return 0


def _weights(model: Model) -> dict[str, Any] | None:
  """What is known about the weights of the model; None without weights."""
  if not model.has_weights:
    return None
  header = model.header
  return {
    "version": f"{header.major}.{header.minor}.{header.revision}" if header else None,
    "images_seen": header.seen if header else None,
    "missing": list(model.missing),
  }


def _weights_text(weights: dict[str, Any]) -> str:
  parts = []
  if weights["version"]:
    parts.append(f"version {weights['version']}, {weights['images_seen']:,} images seen in training")
  if weights["missing"]:
    parts.append(f"random, for the file ends before them: {', '.join(weights['missing'])}")
  return f"weights: {'; '.join(parts) or 'saved with the model'}"


def _totals(values: dict[str, Any], fields: dict[str, ReceptiveField], graph: Graph) -> str:
  seen = ", ".join(f"{head.name} {_field_text(fields[head.name])}" for head in graph.heads)
  return (
    f"{values['name']} {values['width']}x{values['height']}: {values['layers']} layers, {values['params']:,} parameters, "
    f"{values['weight_file_floats']:,} floats in a weights file ({(values['weight_file_floats'] * 4 + 20) / 1e6:.1f} MB)\n"
    f"{values['bflops']:.3f} BFLOPs (Darknet's count), {values['macs'] / 1e9:.3f} G multiply-adds, "
    f"peak {values['peak_activation_bytes'] / 1e6:.1f} MB of float32 feature maps at batch 1\n"
    f"receptive field in pixels: {seen}"
  )


def _field_text(field: ReceptiveField) -> str:
  return "everything" if math.isinf(field.size[0]) else f"{field.size[1]:g}x{field.size[0]:g}"
