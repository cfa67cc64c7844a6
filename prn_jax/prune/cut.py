"""The network without some units of channels, and the whole one in which they are silent.

Silent channels have scale 0 (without batch norm: kernel 0), so that they are constant: the activation of their bias. The
compact network computes what the silent one does. What a constant contributes to the convolutions behind it goes into
their rolling means (or biases); where zero padding lets a kernel see less than all of it, at the border of a map, the two
differ.

Sources: network slimming (Liu et al., ICCV 2017); carrying the constants on is usual among scripts for YOLO.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from prn_jax.graph.coupling import Channel
from prn_jax.graph.graph import Graph, Layer, checked_shape
from prn_jax.nested import flattened, nested
from prn_jax.prune.constants import constants_of
from prn_jax.prune.units import Unit, channels_of
from prn_jax.transforms.warm_start import warm_start

Variables = dict[str, Any]


def without(graph: Graph, channels: Collection[Channel]) -> Graph:
  """The network with fewer filters and groups.

  Args:
    graph: the network.
    channels: whole units (`units.find_units`).

  Raises:
    GraphError: the shapes no longer fit; a map would lose all channels.
  """
  gone: dict[str, int] = {}
  for name, _ in channels:
    gone[name] = gone.get(name, 0) + 1
  seen: dict[str, Layer] = {}
  shapes = {"input": graph.shapes["input"]}
  for layer in graph:
    smaller = _smaller(layer.follow(graph.input_shapes(layer), [shapes[name] for name in layer.inputs]), layer, gone)
    shapes[layer.name] = checked_shape(smaller, seen, shapes)
    seen[layer.name] = smaller
  return dataclasses.replace(graph, layers=tuple(seen.values()))


def _smaller(followed: Layer, layer: Layer, gone: Mapping[str, int]) -> Layer:
  """A layer that lost channels of its own; one that follows its input is right by itself."""
  lost = gone.get(layer.name, 0)
  if not lost or followed != layer:
    return followed
  fields: dict[str, int] = {}
  groups = getattr(layer, "groups", 1)
  if layer.width_field:
    width = getattr(layer, layer.width_field)
    fields[layer.width_field] = width - lost
    if groups > 1 and layer.kernel:
      fields["groups"] = groups - lost // (width // groups)
  elif getattr(layer, "depth_out", 0):
    fields["depth_out"] = layer.depth_out - lost  # type: ignore[attr-defined]
  return dataclasses.replace(layer, **fields)  # type: ignore[arg-type]


def silenced(graph: Graph, variables: Variables, units: Collection[Unit]) -> Variables:
  """Variables of the whole network in which the units are constant: scales 0, or kernels where there is no batch norm.

  Units of which a constant cannot be carried on (`constants.constants_of`) are 0: their biases are, too.
  """
  flat = {key: np.array(value) for key, value in flattened(variables).items()}
  zero, gone = constants_of(graph, variables, units).zero, channels_of(units)
  for layer in graph:
    if layer.shared_with:
      continue
    own = [i for i in range(graph.shapes[layer.name].channels) if (layer.name, i) in gone]
    nothing = [i for i in own if (layer.name, i) in zero]
    for array in graph.arrays(layer):
      leaf = array.path.split("/")[-1]
      if array.makes is None or leaf == "var" or (leaf == "kernel" and layer.has_batchnorm):
        continue
      # What makes no channels (batch norm by itself, weights of a sum) hands a constant on as it hands on anything.
      silent = own if layer.width_field and leaf != "bias" else nothing
      if silent:
        np.moveaxis(flat[array.key(layer.name)], array.makes, 0)[silent] = 0
  return nested(flat)


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
  channels = channels_of(units)
  compact = without(graph, channels)
  quiet = silenced(graph, variables, units)
  flat = {key: np.array(value) for key, value in flattened(quiet).items()}
  for layer, offset in constants_of(graph, variables, units).offsets.items():
    where, sign = (f"batch_stats/{layer}/bn/mean", -1) if graph[layer].has_batchnorm else (_bias_key(graph, layer), 1)
    flat[where] = (flat[where] + sign * offset).astype(np.float32)
  return compact, warm_start(graph, nested(flat), compact, _kept(graph, channels))


def _bias_key(graph: Graph, layer: str) -> str:
  return next(a.key(layer) for a in graph.arrays(graph[layer]) if a.path.endswith("bias"))


def _kept(graph: Graph, channels: Collection[Channel]) -> dict[str, list[int]]:
  """The channels that stay of every layer whose weights make new ones."""
  makers = [x for x in graph if not x.shared_with and (not x.inputs or any(r.is_learned for r in graph.reads(x)))]
  return {x.name: [i for i in range(graph.shapes[x.name].channels) if (x.name, i) not in channels] for x in makers}
