"""The network without some units of channels, and the whole one in which they are silent.

Silent channels have scale 0 (without batch norm: kernel 0), so that they are constant: the activation of their bias. The
compact network computes what the silent one does. What a constant contributes to the convolutions behind it goes into
their rolling means (or biases); where zero padding lets a kernel see less than all of it, at the border of a map, the two
differ.

Sources: network slimming (Liu et al., ICCV 2017); carrying the constants on is usual among scripts for YOLO.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from prn_jax.graph.graph import Graph
from prn_jax.nested import flattened, nested
from prn_jax.prune.constants import offsets_of, without_constants
from prn_jax.prune.units import Unit
from prn_jax.transforms import prune
from prn_jax.transforms.warm_start import Variables


def silenced(graph: Graph, variables: Variables, units: Collection[Unit]) -> Variables:
  """Variables of the whole network in which the units are constant: scales 0, or kernels where there is no batch norm.

  Units of which a constant cannot be carried on (`constants.without_constants`) are 0: their biases are, too.
  """
  quiet = prune.silenced(graph, variables, [unit.channels for unit in units], keep_biases=True)
  return prune.silenced(graph, quiet, [unit.channels for unit in without_constants(graph, units)])


def masked(graph: Graph, variables: Variables, units: Collection[Unit]) -> Variables:
  """Variables with which the whole network computes what the compact one does (`cut`), borders included.

  The constants of the units have gone into what reads them, and the units give the activation of 0: 0, but for logistic and
  the like. One compiled program serves for any choice of units.
  """
  return prune.silenced(graph, _carried(graph, variables, units), [unit.channels for unit in units])


def cut(graph: Graph, variables: Variables, units: Collection[Unit]) -> tuple[Graph, Variables]:
  """The compact network and its variables.

  Args:
    graph, variables: the trained network.
    units: what goes; nothing gives both back unchanged, to the bit.

  Returns:
    What computes the same as `silenced`, but for the borders of maps.

  Raises:
    GraphError: a map would lose all its channels.
  """
  if not units:
    return graph, variables
  return prune.cut(graph, _carried(graph, variables, units), [unit.channels for unit in units])


def _carried(graph: Graph, variables: Variables, units: Collection[Unit]) -> Variables:
  """`silenced`, with the constants of the units in the rolling means and biases of what reads them."""
  quiet = silenced(graph, variables, units)
  flat = dict(flattened(quiet))
  for layer, offset in offsets_of(graph, quiet, units).items():
    bias = next(a.key(layer) for a in graph.arrays(graph[layer]) if a.path.endswith("bias"))
    where, sign = (f"batch_stats/{layer}/bn/mean", -1) if graph[layer].has_batchnorm else (bias, 1)
    flat[where] = (np.asarray(flat[where], np.float64) + sign * offset).astype(np.float32)
  return nested(flat)
