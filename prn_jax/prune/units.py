"""The units of channels of a scope, with the layers that make them. Why others cannot go: `transforms.prune.units_of`."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from prn_jax.graph.coupling import Channel
from prn_jax.graph.graph import Graph
from prn_jax.graph.prune_scopes import Scope, layers_in_scope
from prn_jax.transforms.prune import units_of


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
  for channels in units_of(graph).free:
    makers = tuple(channel for channel in channels if channel[0] in weighted)
    family = tuple(dict.fromkeys(name for name, _ in makers))
    if makers and (allowed is None or set(family) <= allowed):
      units.append(Unit(channels, makers, family))
  return units


def channels_of(units: Collection[Unit]) -> set[Channel]:
  return {channel for unit in units for channel in unit.channels}
