"""Structured pruning: a network without some of its channels, and the same network with these channels silent.

A unit is a set of channels that can only go together (`graph.coupling`): the dependency graph of Fang et al. (DepGraph,
CVPR 2023), on channels instead of layers. What decides which units go stands elsewhere; here they go.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from prn_jax.errors import GraphError
from prn_jax.graph.channels import How
from prn_jax.graph.coupling import Channel, Coupled, coupled_channels
from prn_jax.graph.graph import Graph, Layer, checked_shape
from prn_jax.kinds.activation import ACTIVATIONS
from prn_jax.nested import flattened, nested
from prn_jax.transforms.warm_start import Variables, makers, warm_start

Unit = tuple[Channel, ...]


class Units(NamedTuple):
  """What of a network may go.

  Attributes:
    free: the sets of channels that may go, each alone, in the order of the graph.
    fixed: layer -> why channels of it stay, in words.
  """

  free: tuple[Unit, ...]
  fixed: dict[str, str]


def units_of(graph: Graph) -> Units:
  """The units of a network. A unit that holds all channels of some map cannot go: nothing would be left of the map."""
  free: list[Unit] = []
  fixed: dict[str, str] = {}
  heads = {head.name for head in graph.heads}
  bounds = constants_end(graph)
  for found in coupled_channels(graph):
    layers = collections.Counter(name for name, _ in found.channels)
    whole = [name for name, count in layers.items() if count == graph.shapes[name].channels]
    if found.is_fixed:
      fixed |= {name: _why_fixed(name, layers.keys() & heads, found) for name in layers}
    elif whole:
      fixed |= {name: f"channels of '{name}' go only with all of '{whole[0]}', which must keep some" for name in layers}
    elif layers.keys() & bounds and (never := [name for name in layers if not _keeps_zero(graph, name)]):
      why = f"are never 0 in '{never[0]}', and what reads '{min(layers.keys() & bounds)}' needs more than a constant for them"
      fixed |= {name: f"channels of '{name}' {why}" for name in layers}
    else:
      free.append(found.channels)
  return Units(tuple(free), fixed)


def _why_fixed(name: str, heads: Collection[str], found: Coupled) -> str:
  if any(layer == "input" for layer, _ in found.channels):
    return f"channels of '{name}' are those of the image"
  if heads:
    return f"channels of '{name}' belong to the result '{sorted(heads)[0]}'"
  return f"channels of '{name}' go through a rule that holds for all of them together"


def constants_end(graph: Graph) -> set[str]:
  """Layers behind which a channel that is the same number everywhere is none any more: gates, whose factor comes from other
  channels, and the like; and layers that share weights, with what they read, since one offset must do for all of them.
  A channel can only be taken out there if it is 0."""
  found = set[str]()
  for layer in graph:
    hows = {span.how for reads in graph.reads(layer) for span in reads.spans}
    if (How.KEEP in hows and len(hows) > 1) or not layer.keeps_constants(graph.input_shapes(layer)):
      found.add(layer.name)
    if layer.shared_with:
      found |= {layer.name, layer.shared_with, *layer.inputs, *graph[layer.shared_with].inputs}
  return found


def _keeps_zero(graph: Graph, name: str) -> bool:
  """True if channels of a map are 0 where those of its inputs are 0, and where its weights are."""
  activation = getattr(graph[name], "activation", "linear")
  return graph[name].keeps_zero and ACTIVATIONS[activation].keeps_zero


def without_channels(graph: Graph, units: Iterable[Unit]) -> Graph:
  """The network without the channels of these units.

  Raises:
    GraphError: all channels of a map would go, or the units are none of this network's.
  """
  gone = {channel for unit in units for channel in unit}
  kept = kept_channels(graph, gone)
  if empty := [name for name, channels in kept.items() if not channels]:
    raise GraphError(f"nothing would be left of layer '{empty[0]}'; keep at least one of its channels.")
  if not gone:
    return graph
  shapes = {"input": graph.shapes["input"]}
  seen: dict[str, Layer] = {}
  for layer in graph:
    before = graph.input_shapes(layer)
    layer = layer.narrowed(before, [kept[name] for name in layer.inputs], kept[layer.name])
    shapes[layer.name] = checked_shape(layer, seen, shapes)
    if shapes[layer.name].channels != len(kept[layer.name]):
      raise GraphError(
        f"layer '{layer.name}' ({layer.kind}) would have {shapes[layer.name].channels} channels instead of "
        f"{len(kept[layer.name])}; give whole units of the network (units_of)."
      )
    seen[layer.name] = layer
  return dataclasses.replace(graph, layers=tuple(seen.values()))


def kept_channels(graph: Graph, gone: Collection[Channel]) -> dict[str, list[int]]:
  """Map -> numbers of the channels that are left of it."""
  return {name: [i for i in range(shape.channels) if (name, i) not in gone] for name, shape in graph.shapes.items()}


def cut(graph: Graph, variables: Variables, units: Sequence[Unit]) -> tuple[Graph, Variables]:
  """The network without these units, and its variables: those of the channels that stay, unchanged.

  It computes what the network does whose silent channels (`silenced`) give 0. Without units it is the network itself,
  with the same arrays.

  Raises:
    GraphError: see `without_channels`.
  """
  changed = without_channels(graph, units)
  kept = kept_channels(graph, {channel for unit in units for channel in unit})
  chosen = {name: kept[name] for name in makers(graph) if not graph[name].shared_with}
  return changed, warm_start(graph, variables, changed, chosen)


def silenced(graph: Graph, variables: Variables, units: Iterable[Unit], *, keep_biases: bool = False) -> Variables:
  """The variables with the weights behind the channels of these units at 0.

  Args:
    graph, variables: the network.
    units: what shall be silent.
    keep_biases: leave what is added to each channel (`bias`), so that it is constant instead of 0, as when training
      has driven only the scale of batch norm to 0.
  """
  gone = collections.defaultdict[str, list[int]](list)
  for unit in units:
    for name, i in unit:
      gone[name].append(i)
  flat = dict(flattened(variables))
  for layer in graph:
    for array in graph.arrays(layer):
      leaf = array.path.split("/")[-1]
      if array.makes is None or not gone[layer.name] or leaf == "var" or (keep_biases and leaf == "bias"):
        continue
      value = np.array(flat[array.key(layer.name)])
      np.moveaxis(value, array.makes, 0)[gone[layer.name]] = 0
      flat[array.key(layer.name)] = value
  return nested(flat)
