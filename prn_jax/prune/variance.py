"""How much of what the layers behind it see varies with a unit, by the weights alone.

Batch norm gives each channel the variance gamma^2. Sums add variances; pools, routes and gates hand them on. A convolution
with kernel W mixes channels j of variance v_j, and of the variance of its output o the share of channel i is

  W[o, i]^2 v_i / sum_j W[o, j]^2 v_j      (squares summed over the taps).

The score of a unit is the sum over the layers that read it of the mean share over their outputs. Shares of a layer add up to 1,
so that a channel of eight counts for more than one of a thousand, whatever the scales of weights. What is constant in a
channel costs nothing to lose: it is carried on (`constants`). Variance as what matters, with the mean carried on: Berisha,
Mennel, Mueller, "Variance-Based Pruning for Accelerating and Compressing Trained Networks", ICCV 2025, who measure it on
images; here it is read off batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.graph.channels import How
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.nested import flattened
from prn_jax.prune.units import Unit

Variables = dict[str, Any]


def variance_shares(graph: Graph, variables: Variables, units: Sequence[Unit]) -> NDArray[np.float64]:
  """(units,) the scores, at least 0."""
  flat = {key: np.asarray(value, np.float64) for key, value in flattened(variables).items()}
  variances, shares = {INPUT: np.ones(graph.channels)}, {name: np.zeros(s.channels) for name, s in graph.shapes.items()}
  for layer in graph:
    if layer.kernel and layer.width_field:
      kernel = _squares(graph, layer, flat)
      _add_shares(graph, layer, kernel, variances, shares)
      variances[layer.name] = _made(graph, layer, kernel, flat, variances)
    else:
      variances[layer.name] = _handed_on(graph, layer, variances)
  return np.array([sum(shares[name][i] for name, i in unit.channels) for unit in units])


def _squares(graph: Graph, layer: Layer, flat: dict[str, Any]) -> NDArray[np.float64]:
  """(channels of a group or of the input, filters): squared weights, summed over the taps."""
  owner = layer.shared_with or layer.name
  array = next(a for a in graph.arrays(graph[owner]) if a.path.endswith("kernel"))
  kernel = np.square(flat[array.key(owner)])
  channels = graph.shapes[layer.inputs[0]].channels
  return kernel.reshape(-1, channels, kernel.shape[-1]).sum(0) if kernel.ndim == 2 else kernel.sum((0, 1))


def _add_shares(
  graph: Graph, layer: Layer, kernel: NDArray[np.float64], variances: dict[str, Any], shares: dict[str, Any]
) -> None:
  source = layer.inputs[0]
  for span in graph.reads(layer)[0].spans:
    if span.how is How.WEIGH:
      parts = kernel[:, span.out_start : span.out_end] * variances[source][span.start : span.end, None]
      total = parts.sum(0)
      shares[source][span.start : span.end] += (parts / np.where(total > 0, total, 1)).mean(1)


def _made(
  graph: Graph, layer: Layer, kernel: NDArray[np.float64], flat: dict[str, Any], variances: dict[str, Any]
) -> NDArray[np.float64]:
  """gamma^2, or what the kernel makes of its input's variances where there is no batch norm."""
  if layer.has_batchnorm:
    return np.square(flat[f"params/{layer.shared_with or layer.name}/bn/scale"])
  result = np.zeros(graph.shapes[layer.name].channels)
  for span in graph.reads(layer)[0].spans:
    found = variances[layer.inputs[0]][span.start : span.end]
    out = slice(span.out_start, span.out_end)
    if span.how is How.WEIGH:
      result[out] = found @ kernel[:, out]
    elif span.how is How.KEEP:
      result[out] = found * kernel[0, out]
  return result


def _handed_on(graph: Graph, layer: Layer, variances: dict[str, Any]) -> NDArray[np.float64]:
  result = np.zeros(graph.shapes[layer.name].channels)
  for name, reads in zip(layer.inputs, graph.reads(layer), strict=True):
    for span in reads.spans:
      if span.how is How.KEEP:
        result[span.out_start : span.out_end] += variances[name][span.start : span.end]
  return result if layer.inputs and result.any() else np.ones(len(result))
