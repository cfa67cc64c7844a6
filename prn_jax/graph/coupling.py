"""Coupled channels: which channels of a network can only go together, as pruning needs them.

They are the components of the channel relation (`Layer.reads`). Weights take an input channel away without touching
their outputs; everything else hands on what it gets, so that a channel of a sum, a concatenation or a product goes with
the channels that it is made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from prn_jax.graph.channels import How, Reads
from prn_jax.graph.graph import INPUT, Graph, Layer

Channel = tuple[str, int]  # layer ("input" is the image) and channel of its output


class Coupled(NamedTuple):
  """Channels that stay or go together.

  Attributes:
    channels: all of them, in the order of the graph.
    is_fixed: none may go: they belong to the image, to a result, or to a layer whose rule holds for all its channels
      only (softmax, the old reorg, any kind that does not say what it reads).
  """

  channels: tuple[Channel, ...]
  is_fixed: bool


def coupled_channels(graph: Graph) -> tuple[Coupled, ...]:
  """Every channel of every layer, in sets that can be taken out of the network without touching any other.

  Without one set that is not fixed, the network with fewer filters (and groups of a grouped convolution) builds, and
  computes what the original does if the weights of these channels are 0; `transforms.warm_start` takes the rest of the
  weights. A set may hold all channels of a map: then the map cannot go without what reads it.

  - shortcut: a channel of the sum, of the branch, and of each source that reaches so far;
  - route: a channel and its copy; with groups, channels at the same place in each of the equal parts;
  - depthwise convolution, se, sam, scale_channels, pools, ...: a channel of the input and of the output;
  - convolution with groups: all channels that one group reads and makes;
  - layers that share weights: the channels of both, and those that both read.

  Example: the block c1 -> c2, shortcut(c1), conv gives, for each channel i, {c1, c2 and shortcut i}.
  """
  return _Components(graph).sets()


class _Components:
  """Sets that grow together (union-find), over all channels of all maps."""

  def __init__(self, graph: Graph) -> None:
    self.graph = graph
    self.channels = [(name, i) for name, shape in graph.shapes.items() for i in range(shape.channels)]
    self.first: dict[str, int] = {}  # map -> number of its first channel
    for number, (name, _) in enumerate(self.channels):
      self.first.setdefault(name, number)
    self.parent = list(range(len(self.channels)))
    self.fixed: set[int] = set()

  def sets(self) -> tuple[Coupled, ...]:
    for layer in self.graph:
      self._add(layer)
    for name in (INPUT, *(head.name for head in self.graph.heads)):
      self.fixed.update(self._numbers(name, 0, self.graph.shapes[name].channels))
    fixed = {self._root(number) for number in self.fixed}
    found: dict[int, list[Channel]] = {}
    for number, channel in enumerate(self.channels):
      found.setdefault(self._root(number), []).append(channel)
    return tuple(Coupled(tuple(channels), root in fixed) for root, channels in found.items())

  def _add(self, layer: Layer) -> None:
    reads = self.graph.reads(layer)
    unmade = set(range(self.graph.shapes[layer.name].channels)) if layer.inputs else set[int]()
    for name, one in zip(layer.inputs, reads, strict=True):
      self._add_input(layer.name, name, one)
      unmade -= {i for span in one.spans if span.how is not How.MIX for i in range(span.out_start, span.out_end)}
    if any(one.binds_output for one in reads):
      unmade = set(range(self.graph.shapes[layer.name].channels))
    self.fixed.update(self.first[layer.name] + i for i in unmade)
    if layer.shared_with:
      owner = self.graph[layer.shared_with]
      for mine, theirs in zip((layer.name, *layer.inputs), (owner.name, *owner.inputs), strict=True):
        channels = self.graph.shapes[mine].channels
        self._pair(self._numbers(mine, 0, channels), self._numbers(theirs, 0, channels))

  def _add_input(self, layer: str, name: str, reads: Reads) -> None:
    count, whole = (
      self.graph.shapes[name].channels,
      (self.graph.shapes[name].channels, self.graph.shapes[layer].channels),
    )
    for span in reads.spans:
      source = self._numbers(name, span.start, span.end)
      output = self._numbers(layer, span.out_start, span.out_end)
      if span.how is How.KEEP:
        self._pair(source, output)
      elif span.how is How.MIX:
        self.fixed.update(source)
      elif (len(source), len(output)) != whole:  # one of several groups, which go as a whole
        self._pair([*source, *output][1:], [*source, *output][:-1])
    part = count // reads.blocks
    for i in range(1, reads.blocks):
      self._pair(self._numbers(name, 0, part), self._numbers(name, i * part, (i + 1) * part))

  def _numbers(self, name: str, start: int, end: int) -> range:
    return range(self.first[name] + start, self.first[name] + end)

  def _pair(self, some: Iterable[int], others: Iterable[int]) -> None:
    for a, b in zip(some, others, strict=True):
      first, second = sorted((self._root(a), self._root(b)))
      self.parent[second] = first

  def _root(self, number: int) -> int:
    while self.parent[number] != number:
      self.parent[number] = self.parent[self.parent[number]]
      number = self.parent[number]
    return number
