"""Residual blocks and stages of any graph, and other widths for their layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prn_jax.graph.channels import How
from prn_jax.graph.consumers import consumers_of
from prn_jax.graph.graph import INPUT, Graph, Layer, checked_shape


class Block(NamedTuple):
  """A residual block: a shortcut around a branch.

  Attributes:
    source: the layer at which the branch starts; the shortcut adds it.
    branch: names of the layers between, in order.
    output: the layer with weights that decides how wide the block is.
    shortcut: the addition.
    parts: how many times the block is as wide as `output`: 2 in a ghost module, whose filters on each of its channels give
      the other half.
  """

  source: str
  branch: tuple[str, ...]
  output: str
  shortcut: str
  parts: int = 1


def find_stages(graph: Graph) -> list[list[Block]]:
  """Chains of residual blocks of one shape, each starting where the one before ends, in order."""
  consumers = consumers_of(graph)
  stages: list[list[Block]] = []
  for i, layer in enumerate(graph):
    block = _block(graph, i, consumers) if layer.adds_sources else None
    if block is None:
      continue
    last = stages[-1][-1].shortcut if stages else ""
    if last == block.source and graph.shapes[last] == graph.shapes[block.shortcut]:
      stages[-1].append(block)
    else:
      stages.append([block])
  return stages


def _block(graph: Graph, index: int, consumers: Mapping[str, Sequence[str]]) -> Block | None:
  """The block that ends with the shortcut at `index`; None if it is none: several sources, another shortcut inside,
  or a layer inside that other layers need, its output or its weights."""
  shortcut = graph.layers[index]
  if len(shortcut.inputs) != 2:
    return None
  source = shortcut.inputs[1]
  start = next((i for i, layer in enumerate(graph) if layer.name == source), -1)
  inside = graph.layers[start + 1 : index]
  names = {layer.name for layer in inside}
  closed = all(set(layer.inputs) <= names | {source} for layer in inside)
  private = all(set(consumers[name]) <= names | {shortcut.name} for name in names)
  sharing = {name for layer in graph if layer.shared_with for name in (layer.name, layer.shared_with)}
  if not (inside and closed and private) or names & sharing or any(layer.adds_sources for layer in inside):
    return None
  output, parts = _deciding_layer(graph, shortcut.inputs[0], names)
  return Block(source, tuple(layer.name for layer in inside), output, shortcut.name, parts) if output else None


def _deciding_layer(graph: Graph, name: str, inside: set[str]) -> tuple[str, int]:
  """The layer with weights that makes the channels of `name`, with nothing in between but what keeps them, and how many
  times they are its own; ("", 1) where there is none."""
  while name in inside:
    layer = graph[name]
    if makes_channels(graph, layer):
      return name, 1
    if len(layer.inputs) > 1 and layer.copies:
      return _repeated_layer(graph, layer, inside)
    if layer.kernel or len(layer.inputs) != 1 or not hands_on(graph, layer, 0):
      break
    name = layer.inputs[0]
  return "", 1


def _repeated_layer(graph: Graph, joined: Layer, inside: set[str]) -> tuple[str, int]:
  """For inputs joined side by side, one of which is made by weights and all others follow it, channel by channel."""
  whole = sum(graph.shapes[name].channels for name in joined.inputs) == graph.shapes[joined.name].channels
  makers = [name for name in joined.inputs if name in inside and makes_channels(graph, graph[name])]
  if not whole or len(makers) != 1:
    return "", 1
  for name in joined.inputs:
    layer = graph[name]
    follows = layer.inputs == tuple(makers) and hands_on(graph, layer, 0) and name in inside
    if name != makers[0] and not follows:
      return "", 1
  return makers[0], len(joined.inputs)


def makes_channels(graph: Graph, layer: Layer) -> bool:
  """True if weights make the channels of `layer`, as many as its field says, out of channels that they mix."""
  return bool(layer.width_field) and any(reads.is_learned for reads in graph.reads(layer))


def hands_on(graph: Graph, layer: Layer, position: int) -> bool:
  """True if the output of `layer` has all channels of its input number `position`, each in its place, and no others."""
  channels = graph.shapes[layer.inputs[position]].channels
  return graph.reads(layer)[position].keeps(channels) and graph.shapes[layer.name].channels == channels


def groups_around(graph: Graph, blocks: Sequence[Block]) -> int:
  """What the width of a stage must be a multiple of: the groups of the layers that make its maps or read them."""
  consumers = consumers_of(graph)
  makers = (graph[name] for name in (blocks[0].source, *(block.output for block in blocks)) if name != INPUT)
  made = [groups_of(graph, layer) for layer in makers if makes_channels(graph, layer)]
  maps = (blocks[0].source, *(name for block in blocks for name in (block.output, block.shortcut)))
  parts = math.lcm(*(block.parts for block in blocks))
  return parts * math.lcm(*made, *(_groups_behind(graph, name, consumers) for name in maps))


def groups_of(graph: Graph, layer: Layer) -> int:
  """In how many groups the weights of `layer` mix its inputs."""
  counts = (len([span for span in reads.spans if span.how is How.WEIGH]) for reads in graph.reads(layer))
  return max(counts, default=1)


def _groups_behind(graph: Graph, name: str, consumers: Mapping[str, Sequence[str]]) -> int:
  """What the channels of `name` must be a multiple of for the layers behind it, up to those that mix channels."""
  found = 1
  for reader in map(graph.__getitem__, consumers[name]):
    for position, reads in enumerate(graph.reads(reader)):
      if reader.inputs[position] != name:
        continue
      if reads.is_learned:
        found = math.lcm(found, groups_of(graph, reader))
      elif reader.copies or (hands_on(graph, reader, position) and not (reader.adds_sources and position)):
        found = math.lcm(found, reads.blocks * _groups_behind(graph, reader.name, consumers))
  return found


def with_filters(graph: Graph, filters: Mapping[str, int]) -> Graph:
  """The same network with other numbers of filters; layers that have weights for each channel follow their input.

  Raises:
    GraphError: the shapes no longer fit.
  """
  seen: dict[str, Layer] = {}
  shapes = {INPUT: graph.shapes[INPUT]}
  for layer in graph:
    if layer.name in filters:
      layer = dataclasses.replace(layer, **{layer.width_field: filters[layer.name]})  # type: ignore[arg-type]
    else:
      layer = layer.follow(graph.input_shapes(layer), [shapes[name] for name in layer.inputs])
    shapes[layer.name] = checked_shape(layer, seen, shapes)
    seen[layer.name] = layer
  return dataclasses.replace(graph, layers=tuple(seen.values()))
