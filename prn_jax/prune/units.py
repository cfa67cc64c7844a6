"""What can be taken out of a network: units of channels that go together, and why others cannot go."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from prn_jax.graph.coupling import Channel, coupled_channels
from prn_jax.graph.graph import INPUT, Graph
from prn_jax.graph.prune_scopes import Scope, layers_in_scope


class Unit(NamedTuple):
  """Channels that can only go together.

  Attributes:
    channels: all of them, in the order of the graph.
    makers: those that weights make: where gammas and kernels of the unit are found.
    family: the layers of `makers`. Units of one family are a map's channels (or the part of it that has the same fate).
  """

  channels: tuple[Channel, ...]
  makers: tuple[Channel, ...]
  family: tuple[str, ...]


def find_units(graph: Graph, scope: Scope | str = Scope.COUPLED) -> list[Unit]:
  """The units of a scope, in the order of the graph.

  A unit belongs to a scope if all layers with batch norm that make its channels do (`layers_in_scope`). Scope COUPLED has
  every unit that may go at all, those without batch norm too.
  """
  weighted = {layer.name for layer in graph if graph.arrays(layer) and layer.width_field}
  allowed = None if Scope(scope) is Scope.COUPLED else set(layers_in_scope(graph, scope))
  units = []
  for found in coupled_channels(graph):
    if found.is_fixed:
      continue
    makers = tuple(channel for channel in found.channels if channel[0] in weighted)
    family = tuple(dict.fromkeys(name for name, _ in makers))
    if makers and (allowed is None or set(family) <= allowed):
      units.append(Unit(found.channels, makers, family))
  return units


def fixed_layers(graph: Graph) -> dict[str, str]:
  """Layers with weights of which no channel may go -> why, in words."""
  free = {name for unit in find_units(graph) for name in unit.family}
  heads = {head.name for head in graph.heads}
  reasons = {}
  for layer in graph:
    if not (graph.arrays(layer) and layer.width_field) or layer.name in free:
      continue
    fixed = next(found for found in coupled_channels(graph) if (layer.name, 0) in found.channels)
    ends = sorted({name for name, _ in fixed.channels} & (heads | {INPUT}))
    if layer.name in heads or ends:
      reasons[layer.name] = f"its channels are those of {', '.join(ends) or 'a result'}"
    else:
      reasons[layer.name] = "a layer behind it has a rule for all of its channels together"
  return reasons


def channels_of(units: Collection[Unit]) -> set[Channel]:
  return {channel for unit in units for channel in unit.channels}
