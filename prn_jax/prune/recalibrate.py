"""Rolling statistics of batch norm, estimated again: what a network needs first after channels have gone.

Adaptive batch norm (EagleEye, Li et al., ECCV 2020): means and variances of every batch, averaged, from the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, wanted_layers

Variables = dict[str, Any]


class Recalibration:
  """Estimates the statistics of a network again; compiled once for all variables."""

  def __init__(self, graph: Graph) -> None:
    network = Network(graph, bn_momentum=0.0)  # what is stored is then the batch's
    layers = tuple(wanted_layers(graph, "heads"))

    @jax.jit
    def statistics(variables: Variables, x: jax.Array) -> Any:
      rngs = {"dropout": jax.random.key(0)}
      x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
      return network.apply(variables, x, train=True, layers=layers, mutable=["batch_stats"], rngs=rngs)[1][
        "batch_stats"
      ]

    self._statistics = statistics

  def __call__(self, variables: Variables, batches: Iterable[np.ndarray]) -> Variables:
    """The same weights with means and variances of these images; arguments and errors: see `recalibrated`."""
    if not variables.get("batch_stats"):
      return variables
    total, count = None, 0
    for batch in batches:
      found = jax.tree.map(lambda x: np.asarray(x, np.float64), self._statistics(variables, batch))
      total = found if total is None else jax.tree.map(np.add, total, found)
      count += 1
    if total is None:
      raise PrnError("no images to estimate batch norm from; expected at least one batch.")
    return {**variables, "batch_stats": jax.tree.map(lambda x: (x / count).astype(np.float32), total)}


def recalibrated(graph: Graph, variables: Variables, batches: Iterable[np.ndarray]) -> Variables:
  """The same weights with means and variances of these images.

  Args:
    graph, variables: the network.
    batches: (n, height, width, channels), uint8 or [0, 1], as the network sees images at inference. Each counts alike.

  Returns:
    New variables; the given ones where there is no batch norm.

  Raises:
    PrnError: there are no images.
  """
  return Recalibration(graph)(variables, batches)
