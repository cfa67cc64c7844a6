"""How much of each feature map rounding takes away: signal to noise, layer by layer, on the same images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from prn_jax.graph.graph import Graph
from prn_jax.kinds.quantize import Quantize
from prn_jax.network import Variables
from prn_jax.quantize.calibrate import outputs_of


@dataclasses.dataclass(frozen=True)
class LayerNoise:
  """One rounded map.

  Attributes:
    layer: the quantize layer.
    of: the layer in front of it.
    bits: the bits of the map.
    snr_db: 10 log10(signal / noise), the noise of all layers before it included; infinite without noise.
    low, high: the ends of the grid.
    clipped: share of the float values that lie outside of it.
  """

  layer: str
  of: str
  bits: int
  snr_db: float
  low: float
  high: float
  clipped: float


def noise(graph: Graph, before: Variables, after: Variables, batches: Sequence[np.ndarray]) -> list[LayerNoise]:
  """One row for every quantize layer and head, in their order.

  Args:
    graph: a quantised graph.
    before: its variables with empty ranges and scales, under which it computes as the float network.
    after: the variables to judge.
    batches: images.
  """
  rows = [layer for layer in graph if isinstance(layer, Quantize) or layer in graph.heads]
  names = [row.name for row in rows]
  run = outputs_of(graph, names)
  signal, error = (dict.fromkeys(names, 0.0) for _ in range(2))
  outside = dict.fromkeys(names, 0.0)
  ends = {row.name: _ends(row, after) for row in rows}
  for images in batches:
    wanted, found = run(before, images), run(after, images)
    for name in names:
      x, y = np.asarray(wanted[name], np.float64), np.asarray(found[name], np.float64)
      signal[name] += float((x**2).sum())
      error[name] += float(((x - y) ** 2).sum())
      low, high = ends[name]
      outside[name] += float(((x < low) | (x > high)).mean()) / len(batches)
  return [
    LayerNoise(
      row.name,
      row.inputs[0] if isinstance(row, Quantize) else row.name,
      row.bits if isinstance(row, Quantize) else 32,
      _decibels(signal[row.name], error[row.name]),
      *ends[row.name],
      outside[row.name],
    )
    for row in rows
  ]


def _ends(layer: object, variables: Variables) -> tuple[float, float]:
  if not isinstance(layer, Quantize):
    return -math.inf, math.inf
  found = layer.grid(lambda path: _own(variables, layer.shared_with or layer.name, path))
  if found is None:
    return -math.inf, math.inf
  scale, zero = found
  spec = layer.spec()
  return (spec.qmin - zero) * scale, (spec.qmax - zero) * scale


def _own(variables: Variables, name: str, path: str) -> np.ndarray:
  collection = next(c for c in ("batch_stats", "params") if path in variables.get(c, {}).get(name, {}))
  return np.asarray(variables[collection][name][path])


def _decibels(signal: float, error: float) -> float:
  if not error:
    return math.inf
  return 10 * math.log10(signal / error) if signal else -math.inf


def text(rows: Sequence[LayerNoise], most: int = 0) -> str:
  """The rows as a table; of more than `most` those with the least signal (0: all)."""
  shown = list(rows)
  if most and len(shown) > most:
    worst = sorted(shown, key=lambda row: row.snr_db)[:most]
    shown = [row for row in shown if row in worst]
  lines = [f"{'layer':<28}{'bits':>5}{'SNR dB':>9}{'low':>10}{'high':>10}{'clipped':>9}"]
  lines += [
    f"{row.of:<28}{row.bits:>5}{row.snr_db:>9.1f}{row.low:>10.4g}{row.high:>10.4g}{row.clipped:>9.2%}" for row in shown
  ]
  return "\n".join(lines)
