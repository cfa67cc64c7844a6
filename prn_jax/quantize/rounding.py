"""Rounding a kernel so that its errors cancel on real inputs (Frantar et al. 2023, GPTQ; Hassibi & Stork 1993).

Of a filter's weights one after the other is rounded to the nearest, and the weights still to come take up what that changes,
by the inverse Hessian H = 2 E[x x^T] of the squared error of the output, x being the values under the window. It wants what
AdaRound (Nagel et al. 2020) wants, in closed form: no training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import lax

from prn_jax.graph.graph import Graph
from prn_jax.kinds.quantized_conv import QuantizedConv
from prn_jax.nested import flattened, nested
from prn_jax.network import Variables
from prn_jax.quantize.calibrate import outputs_of
from prn_jax.quantize.kernels import own_arrays
from prn_jax.quantize.rewrite import convolutions_of

DAMPING = 0.01  # of the mean diagonal of H, added to it
MOST_ROWS = 4096  # windows of a layer that are looked at


def rounded_by_error(graph: Graph, variables: Variables, batches: Sequence[np.ndarray]) -> Variables:
  """The variables of a quantised graph with kernels on their grid, rounded as above on these images.

  Args:
    graph: a quantised graph without batch norm, whose kernels have stored scales.
    variables: with ranges and scales.
    batches: images.
  """
  flat, layers = dict(flattened(variables)), convolutions_of(graph)
  run = outputs_of(graph, [layer.inputs[0] for layer in layers.values()])
  rows: dict[str, list[np.ndarray]] = {name: [] for name in layers}
  for images in batches:
    maps = run(variables, images)
    for name, layer in layers.items():
      rows[name].append(_windows(layer, maps[layer.inputs[0]], MOST_ROWS // len(batches)))
  for name, layer in layers.items():
    own = own_arrays(flat, name)
    _, scale = layer.integers(own)
    flat[f"params/{name}/conv/kernel"] = rounded(layer, own["conv/kernel"], scale, np.concatenate(rows.pop(name)))
  return nested(flat)


def _windows(layer: QuantizedConv, x: object, count: int) -> np.ndarray:
  """At most `count` windows: (n, in, h * w), the values under the kernel."""
  size = layer.size
  patches = lax.conv_general_dilated_patches(
    x,  # type: ignore[arg-type]
    (size, size),
    layer.strides,
    layer.zeros_around(*x.shape[1:3]),  # type: ignore[attr-defined]
    rhs_dilation=(layer.dilation,) * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  flat = patches.reshape(-1, x.shape[3], size * size)  # type: ignore[attr-defined]
  return np.asarray(flat[:: max(1, len(flat) // max(count, 1))])


def rounded(layer: QuantizedConv, kernel: np.ndarray, scale: np.ndarray, windows: np.ndarray) -> np.ndarray:
  """A kernel (h, w, in / groups, out) on the grid of `scale` (out,), for windows (n, in, h * w)."""
  h, w, per_group, out = kernel.shape
  spec, result = layer.spec(), np.empty_like(kernel)
  filters = out // layer.groups
  for group in range(layer.groups):
    of_group = slice(group * filters, (group + 1) * filters)
    x = windows[:, group * per_group : (group + 1) * per_group].reshape(len(windows), -1).astype(np.float64)
    weights = kernel[..., of_group].transpose(2, 0, 1, 3).reshape(per_group * h * w, filters)
    found = _rounded(weights.astype(np.float64), scale[of_group].astype(np.float64), x, spec.qmin, spec.qmax)
    result[..., of_group] = found.reshape(per_group, h, w, filters).transpose(1, 2, 0, 3)
  return result


def _rounded(weights: np.ndarray, scale: np.ndarray, x: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
  """Weights (k, filters) on their grids, the errors of each handed to those behind it."""
  hessian = x.T @ x / len(x)
  hessian += np.eye(len(hessian)) * (DAMPING * hessian.trace() / len(hessian) + 1e-12)
  factors = np.linalg.cholesky(np.linalg.inv(hessian)).T  # upper: row i says how the rest makes up for weight i
  weights, result = weights.copy(), np.empty_like(weights)
  for i in range(len(weights)):
    result[i] = np.clip(np.rint(weights[i] / scale), qmin, qmax) * scale
    error = (weights[i] - result[i]) / factors[i, i]
    weights[i + 1 :] -= np.outer(factors[i, i + 1 :], error)
  return result
