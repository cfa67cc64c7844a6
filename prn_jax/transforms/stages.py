"""Residual blocks and stages of any graph, and other widths for their layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prn_jax.graph.graph import INPUT, Graph, Layer, Shape, checked_shape
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.route import Route
from prn_jax.kinds.shortcut import Shortcut

PASSES = (
  "dropout",
  "batchnorm",
  "activation",
  "empty",
  "maxpool",
  "local_avgpool",
)  # keep the number of channels; a block may end with them
KEEPS_CHANNELS = (*PASSES, "upsample", "avgpool", "sam", "softmax", "cost", "yolo")


class Block(NamedTuple):
  """A residual block: a shortcut around a branch.

  Attributes:
    source: where the branch starts; the shortcut adds it.
    branch: names of the layers between, in order.
    output: the convolution that decides how wide the block is.
    shortcut: the addition.
  """

  source: str
  branch: tuple[str, ...]
  output: str
  shortcut: str


def find_stages(graph: Graph) -> list[list[Block]]:
  """Chains of residual blocks of one shape, each starting where the one before ends, in order."""
  consumers = consumers_of(graph)
  stages: list[list[Block]] = []
  for i, layer in enumerate(graph):
    block = _block(graph, i, consumers) if isinstance(layer, Shortcut) else None
    if block is None:
      continue
    last = stages[-1][-1].shortcut if stages else ""
    if last == block.source and graph.shapes[last] == graph.shapes[block.shortcut]:
      stages[-1].append(block)
    else:
      stages.append([block])
  return stages


def consumers_of(graph: Graph) -> dict[str, list[str]]:
  """Layer -> the layers that read it."""
  consumers: dict[str, list[str]] = {name: [] for name in graph.shapes}
  for layer in graph:
    for name in layer.inputs:
      consumers[name].append(layer.name)
  return consumers


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
  if not (inside and closed and private) or names & sharing or any(isinstance(layer, Shortcut) for layer in inside):
    return None
  output = _deciding_conv(graph, shortcut.inputs[0], names)
  return Block(source, tuple(layer.name for layer in inside), output, shortcut.name) if output else None


def _deciding_conv(graph: Graph, name: str, inside: set[str]) -> str:
  while name in inside:
    layer = graph[name]
    if isinstance(layer, Conv) and not is_depthwise(layer, graph.input_shapes(layer)[0]):
      return name
    if layer.kind not in PASSES:
      break
    name = layer.inputs[0]
  return ""


def groups_around(graph: Graph, blocks: Sequence[Block]) -> int:
  """What the width of a stage must be a multiple of: the groups of the layers that make its maps or read them."""
  consumers = consumers_of(graph)
  makers = (name for name in (blocks[0].source, *(block.output for block in blocks)) if name != INPUT)
  made = [layer.groups for layer in map(graph.__getitem__, makers) if isinstance(layer, Conv)]
  maps = (blocks[0].source, *(name for block in blocks for name in (block.output, block.shortcut)))
  return math.lcm(*made, *(_groups_behind(graph, name, consumers) for name in maps))


def _groups_behind(graph: Graph, name: str, consumers: Mapping[str, Sequence[str]]) -> int:
  """What the channels of `name` must be a multiple of for the layers behind it, up to those that mix channels."""
  found = 1
  for reader in map(graph.__getitem__, consumers[name]):
    if isinstance(reader, Conv) and not is_depthwise(reader, graph.input_shapes(reader)[0]):
      found = math.lcm(found, reader.groups)
    elif isinstance(reader, Route):
      found = math.lcm(found, reader.groups * _groups_behind(graph, reader.name, consumers))
    elif (
      isinstance(reader, Conv)
      or reader.kind in KEEPS_CHANNELS
      or (isinstance(reader, Shortcut) and reader.inputs[0] == name)
    ):
      found = math.lcm(found, _groups_behind(graph, reader.name, consumers))
  return found


def is_depthwise(layer: Conv, x: Shape) -> bool:
  return layer.groups == layer.filters == x.channels and layer.groups > 1


def with_filters(graph: Graph, filters: Mapping[str, int]) -> Graph:
  """The same network with other numbers of filters; depthwise convolutions follow their input.

  Raises:
    GraphError: the shapes no longer fit.
  """
  seen: dict[str, Layer] = {}
  shapes = {INPUT: graph.shapes[INPUT]}
  for layer in graph:
    if isinstance(layer, Conv):
      if layer.name in filters:
        layer = dataclasses.replace(layer, filters=filters[layer.name])
      elif is_depthwise(layer, graph.input_shapes(layer)[0]):
        channels = shapes[layer.inputs[0]].channels
        layer = dataclasses.replace(layer, filters=channels, groups=channels)
    shapes[layer.name] = checked_shape(layer, seen, shapes)
    seen[layer.name] = layer
  return dataclasses.replace(graph, layers=tuple(seen.values()))
