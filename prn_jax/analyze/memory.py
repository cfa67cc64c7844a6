"""Feature maps alive during inference, channel by channel, and what shortcuts keep alive.

The paper (section 3, characteristic 1) argues that a partial residual connection needs less memory: only the channels
that are added later must be kept while the branch runs. Here a channel of a map lives from the layer that computes it
until the last layer that reads that channel; `graph.cost.peak_activation_bytes` instead keeps or frees whole maps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.graph.cost import FLOAT_BYTES
from prn_jax.graph.graph import INPUT, Graph, Layer


class KeptMap(NamedTuple):
  """A map that waits for a shortcut while the layers between run.

  Attributes:
    shortcut: the layer that adds it.
    source: the map, as the shortcut names it.
    channels: channels of the map that the added ones were cut from, by routes or by the shortcut itself.
    kept_channels: channels that are added, and so must wait.
    kept_bytes: their size, float32, batch 1.
    full_bytes: size of the map with all its `channels`: what would wait if the shortcut added all of them.
    steps: layers that run while it waits, the shortcut included.
  """

  shortcut: str
  source: str
  channels: int
  kept_channels: int
  kept_bytes: int
  full_bytes: int
  steps: int


class Memory(NamedTuple):
  """Live feature maps of a network, float32, batch 1, layers run in graph order, nothing computed twice.

  Attributes:
    live_bytes: bytes, for each layer, of what is alive while it runs: its output, and every channel that it or a later layer
      still reads, or that is a result.
    shortcut_bytes: bytes, for each layer, of the part of it that only waits for shortcuts: no other layer reads it from here on.
    kept: every map that a shortcut waits for.
  """

  live_bytes: tuple[int, ...]
  shortcut_bytes: tuple[int, ...]
  kept: tuple[KeptMap, ...]

  @property
  def peak_bytes(self) -> int:
    return max(self.live_bytes)

  @property
  def peak_index(self) -> int:
    """Index of the layer at which the peak is reached."""
    return self.live_bytes.index(self.peak_bytes)

  @property
  def kept_bytes(self) -> int:
    """Sum over all shortcuts, which do not wait all at once."""
    return sum(item.kept_bytes for item in self.kept)

  @property
  def full_bytes(self) -> int:
    return sum(item.full_bytes for item in self.kept)


class _View(NamedTuple):
  """Where a layer's output lies: the map that holds it, and the first of its channels there."""

  owner: str
  first: int


def live_memory(graph: Graph) -> Memory:
  """Follows every channel of every map through one inference."""
  index = {INPUT: -1} | {layer.name: i for i, layer in enumerate(graph)}
  views = _views(graph)
  owners = dict.fromkeys(view.owner for view in views.values())
  # last step that reads a channel, by any layer and by layers that are no shortcuts; a map lives at least until it is
  # computed
  last = {name: np.full(graph.shapes[name].channels, index[name]) for name in owners}
  last_other = {name: np.full(graph.shapes[name].channels, index[name]) for name in owners}
  kept = []
  for i, layer in enumerate(graph):
    if views[layer.name].owner != layer.name:
      continue  # a view; those who read it are what counts
    for position, (name, reads) in enumerate(zip(layer.inputs, graph.reads(layer), strict=True)):
      view, waits = views[name], layer.adds_sources and position > 0
      for start, end in reads.read:
        span = slice(view.first + start, view.first + end)
        last[view.owner][span] = i
        if not waits:
          last_other[view.owner][span] = i
      if waits:
        count = sum(end - start for start, end in reads.read)
        kept.append(_kept_map(graph, layer, name, _whole(graph, views, name), count, i - index[view.owner]))
  for head in graph.heads:
    view = views[head.name]
    span = slice(view.first, view.first + graph.shapes[head.name].channels)
    last[view.owner][span] = last_other[view.owner][span] = len(graph)
  live, waiting = _timeline(graph, index, last, last_other)
  return Memory(tuple(live.tolist()), tuple(waiting.tolist()), tuple(kept))


def _views(graph: Graph) -> dict[str, _View]:
  """Layers whose output is a run of channels of their one input occupy no memory of their own."""
  views = {INPUT: _View(INPUT, 0)}
  for layer in graph:
    views[layer.name] = _View(layer.name, 0)
    if graph.is_view(layer):
      (span,) = graph.reads(layer)[0].spans
      owner, first = views[layer.inputs[0]]
      views[layer.name] = _View(owner, first + span.start)
  return views


def _whole(graph: Graph, views: dict[str, _View], name: str) -> int:
  """Channels of the map that a source was cut from. Several cuts of one map that are concatenated come from it, too."""
  owner = views[name].owner
  channels = graph.shapes[owner].channels
  if owner != INPUT and graph[owner].copies:
    maps = {views[part].owner for part in graph[owner].inputs}
    if len(maps) == 1:
      return max(channels, graph.shapes[maps.pop()].channels)
  return channels


def _kept_map(graph: Graph, shortcut: Layer, source: str, whole: int, channels: int, steps: int) -> KeptMap:
  height, width, _ = graph.shapes[source]
  per_channel = height * width * FLOAT_BYTES
  return KeptMap(shortcut.name, source, whole, channels, channels * per_channel, whole * per_channel, steps)


def _timeline(
  graph: Graph, index: dict[str, int], last: dict[str, NDArray[np.int_]], last_other: dict[str, NDArray[np.int_]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
  """Bytes alive, and bytes that only wait for shortcuts, at each layer."""
  change = np.zeros((2, len(graph) + 2), np.int64)
  for name, ends in last.items():
    per_channel = graph.shapes[name].height * graph.shapes[name].width * FLOAT_BYTES
    first = max(index[name], 0)
    change[0, first] += len(ends) * per_channel
    np.subtract.at(change[0], ends + 1, per_channel)
    waits = last_other[name] < ends
    np.add.at(change[1], np.maximum(last_other[name][waits] + 1, first), per_channel)
    np.subtract.at(change[1], ends[waits] + 1, per_channel)
  live, waiting = change.cumsum(axis=1)[:, : len(graph)]
  return live, waiting
