"""Gradient combinations: which gradients reach which channels of each layer, from which layer, and when.

Paper: Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination"
(ICCVW 2019), section 3. The definitions, and how its closed forms follow, stand in docs/analysis.md.

A layer with a kernel (convolution, matrix product) takes the gradient at its output, passes it on to its input, and
counts one timestamp. Everything else (shortcut, route, pool, activation, ...) passes the gradient on at the same
timestamp, a partial shortcut only into the first channels of its source. The *source* of a gradient is the layer
with a kernel that it left last, or the loss.

A path is the list of layers with kernels that it passes, so it does not matter how a map is written: cut into halves
that are concatenated again, or read over two routes, it is the same map, and the same path. The number of paths from
the loss grows exponentially with depth, so they are never listed: for every set of channels whose paths are asked for
one integer holds the number of paths of each length, `_Paths.bits` bits each.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from prn_jax.errors import GraphError
from prn_jax.graph.channels import Channels, How, Reads, joined, merged
from prn_jax.graph.graph import INPUT, Graph, Layer, Shape

LOSS = "loss:"  # prefix of the sources that are losses; no layer has ":" in its name
StageBy = Literal["size", "name"]


class ChannelRange(NamedTuple):
  """Channels start to end - 1 of a layer, which all receive the same gradients.

  Attributes:
    start, end: the channels.
    timestamps: lengths of the paths from the loss, in layers with kernels, this one included (so at least 1).
    paths: how many paths of each of these lengths arrive.
    sources: names of the layers that the paths left last; "loss:HEAD" for the loss at a head.
    parts: (source, part): a source whose gradient a shortcut or a route cuts up gives different parts of it to
      different sets of layers.
  """

  start: int
  end: int
  timestamps: tuple[int, ...]
  paths: tuple[int, ...]
  sources: tuple[str, ...]
  parts: frozenset[tuple[str, int]]


class LayerGradients(NamedTuple):
  """The gradients at the output of one layer with weights; `ranges` cover its channels in order."""

  name: str
  kind: str
  shape: Shape
  ranges: tuple[ChannelRange, ...]

  @property
  def timestamps(self) -> tuple[int, ...]:
    """All timestamps at which a gradient arrives."""
    return tuple(sorted({t for part in self.ranges for t in part.timestamps}))

  @property
  def sources(self) -> tuple[str, ...]:
    """All sources, those nearest to the loss first."""
    return tuple(dict.fromkeys(s for part in self.ranges for s in part.sources))

  @property
  def timestamp_combinations(self) -> int:
    """Number of different combinations of timestamps (with the number of paths of each) over the ranges."""
    return len({(part.timestamps, part.paths) for part in self.ranges if part.timestamps})

  @property
  def source_combinations(self) -> int:
    """Number of different combinations of sources (and parts of sources) over the ranges."""
    return len({part.parts for part in self.ranges if part.parts})


class Totals(NamedTuple):
  """Sums over layers: of their timestamps, sources, and combinations of each."""

  timestamps: int
  sources: int
  timestamp_combinations: int
  source_combinations: int


class Stage(NamedTuple):
  """A run of layers with weights."""

  name: str
  layers: tuple[LayerGradients, ...]

  @property
  def totals(self) -> Totals:
    return totals(self.layers)


def totals(layers: Sequence[LayerGradients]) -> Totals:
  return Totals(
    timestamps=sum(len(layer.timestamps) for layer in layers),
    sources=sum(len(layer.sources) for layer in layers),
    timestamp_combinations=sum(layer.timestamp_combinations for layer in layers),
    source_combinations=sum(layer.source_combinations for layer in layers),
  )


def stages(layers: Sequence[LayerGradients], by: StageBy = "size") -> tuple[Stage, ...]:
  """Cuts layers into stages where the output size changes, or the name in front of the first "_".

  A stage of a size (or name) that came before is numbered: "26x26", "13x13", "26x26 #2".
  """
  runs: list[tuple[str, list[LayerGradients]]] = []
  for layer in layers:
    size = f"{layer.shape.width}x{layer.shape.height}"
    key = size if by == "size" else layer.name.split("_", 1)[0]
    if not runs or runs[-1][0] != key:
      runs.append((key, []))
    runs[-1][1].append(layer)
  seen: collections.Counter[str] = collections.Counter()
  result = []
  for key, members in runs:
    seen[key] += 1
    result.append(Stage(key if seen[key] == 1 else f"{key} #{seen[key]}", tuple(members)))
  return tuple(result)


def gradients(graph: Graph) -> tuple[LayerGradients, ...]:
  """The gradients at the output of every layer with a kernel (or a learned vector), in graph order.

  Args:
    graph: any network; the loss acts on `graph.heads`, on each one by itself.

  Returns:
    One entry per layer with weights. A layer that no head depends on has one range without gradients.

  Raises:
    GraphError: the graph has no layer with a kernel.

  Example: the block c1 -> c2, shortcut(c1), loss gives c2 {1} and c1 {1, 2}: directly, and through c2.
  """
  if not any(is_step(graph, layer) for layer in graph):
    raise GraphError(
      f"network '{graph.name}' has no convolution and no connected layer, so no gradient can be told from another."
    )
  return _Paths(graph).layers()


def is_step(graph: Graph, layer: Layer) -> bool:
  """True if the gradient needs one timestamp to pass the layer: it has a kernel, its own or a shared one."""
  return any(array.path.endswith("kernel") for array in layer.arrays(graph.input_shapes(layer)))


# -- how one layer passes a gradient back ------------------------------------------------------------------


class _Piece(NamedTuple):
  """An interval of channels with the interval of its source that it came from.

  `exact`: channel by channel; otherwise any channel of the interval comes from any channel of the origin.
  """

  start: int
  end: int
  origin_start: int
  origin_end: int
  exact: bool

  def cut(self, start: int, end: int, shift: int) -> _Piece | None:
    """What lies in [start, end), moved by `shift`; None if nothing does."""
    low, high = max(start, self.start), min(end, self.end)
    if low >= high:
      return None
    origin = (self.origin_start + low - self.start, self.origin_start + high - self.start)
    kept = origin if self.exact else (self.origin_start, self.origin_end)
    return _Piece(low + shift, high + shift, *kept, self.exact)

  def spread(self, start: int, end: int) -> _Piece:
    """The same gradient after a layer that mixes all channels from start to end - 1."""
    return _Piece(start, end, self.origin_start, self.origin_end, exact=False)


def _back(layer: Layer, reads: Sequence[Reads], piece: _Piece) -> Iterator[tuple[str, _Piece]]:
  """Where `piece` of the output's gradient goes in a layer without a kernel: (input, piece of it)."""
  for name, one in zip(layer.inputs, reads, strict=True):
    if one.is_one_to_one:
      parts = (piece.cut(span.out_start, span.out_end, span.start - span.out_start) for span in one.spans)
      yield from ((name, part) for part in parts if part)
    elif one.inputs_of([(piece.start, piece.end)]):  # softmax, reorg, pools over channels, ...: counts as mixing all
      yield from ((name, piece.spread(start, end)) for start, end in one.read)


def _changes(reads: Reads, end: int) -> Iterator[int]:
  """Input channels of a layer with a kernel at which its gradient may change if its output's changes at `end`: where
  the same channel lies, or both ends of the group that `end` is inside of."""
  for span in reads.spans:
    if span.how is How.KEEP and span.out_start <= end <= span.out_end:
      yield end - span.out_start + span.start
    elif span.out_start < end < span.out_end:
      yield from (span.start, span.end)
    elif end in (span.out_start, span.out_end):
      yield span.start if end == span.out_start else span.end


# -- all layers --------------------------------------------------------------------------------------------


class _Arrival(NamedTuple):
  source: str
  piece: _Piece

  def origin(self, start: int, end: int) -> tuple[int, int] | None:
    """The source's channels that channels start to end - 1 of the receiver get; None if they get nothing of it."""
    piece = self.piece.cut(start, end, 0)
    return (piece.origin_start, piece.origin_end) if piece else None


class _Paths:
  """Sends every gradient to the layers that it reaches without passing a kernel, the loss first, then counts paths.

  The numbers of paths by length are one integer; digit t in base 2**bits is the number of paths of length t.
  """

  def __init__(self, graph: Graph) -> None:
    self.graph = graph
    self.index = {layer.name: i for i, layer in enumerate(graph)}
    self.reads = {layer.name: graph.reads(layer) for layer in graph}
    self.steps = {layer.name: layer for layer in graph if is_step(graph, layer)}
    self.joined = {
      name: joined(self.reads[name], (x.channels for x in graph.input_shapes(layer)))
      for name, layer in self.steps.items()
    }
    self.receives = self.steps.keys() | {layer.name for layer in graph if not layer.inputs and graph.arrays(layer)}
    self.bits = _most_paths(graph).bit_length() + 1
    self.arrivals: dict[str, list[_Arrival]] = {name: [] for name in self.receives}
    self.order: dict[str, int] = {}  # source -> rank, the loss first
    self.cuts: dict[str, list[tuple[int, int, str]]] = {}  # source -> (from, to, receiver) over its own channels

  def layers(self) -> tuple[LayerGradients, ...]:
    for head in self.graph.heads:
      channels = self.graph.shapes[head.name].channels
      self._send(LOSS + head.name, [(head.name, _Piece(0, channels, 0, channels, exact=True))])
    for layer in reversed(self.graph.layers):
      if layer.name in self.steps:
        self._send(layer.name, self._emitted(layer))
    parts = {source: _parts(cuts) for source, cuts in self.cuts.items()}
    receivers = [layer for layer in self.graph if layer.name in self.receives]
    pieces = {layer.name: self._pieces(layer, parts) for layer in receivers}
    paths = self._count({name: [((start, end),) for start, end, _ in found] for name, found in pieces.items()})
    return tuple(self._summary(layer, pieces[layer.name], paths[layer.name]) for layer in receivers)

  def _emitted(self, layer: Layer) -> Iterator[tuple[str, _Piece]]:
    """Where the gradient of a layer with a kernel goes first: (input, piece of it), cut where one group gets it over
    other paths than the next. Its own channels are those of all its inputs, one behind the other."""
    pieces = [arrival.piece for arrival in self.arrivals[layer.name]]
    reads, widths = self.joined[layer.name], [x.channels for x in self.graph.input_shapes(layer)]
    covered = reads.inputs_of((piece.start, piece.end) for piece in pieces)
    cuts = {cut for piece in pieces for end in (piece.start, piece.end) for cut in _changes(reads, end)}
    for name, width, last in zip(layer.inputs, widths, itertools.accumulate(widths), strict=True):
      first = last - width
      for start, end in itertools.pairwise(sorted({first, last, *(cut for cut in cuts if first < cut < last)})):
        if any(low <= start and end <= high for low, high in covered):
          yield name, _Piece(start - first, end - first, start, end, exact=True)

  def _send(self, source: str, pieces: Iterable[tuple[str, _Piece]]) -> None:
    """Delivers what `source` hands to these pieces of layers to the next layers with weights, through all others."""
    self.order[source] = len(self.order)
    waiting: dict[str, dict[_Piece, None]] = {}  # a set in the order of arrival
    queue: list[int] = []

    def put(name: str, piece: _Piece) -> None:
      if name == INPUT:
        return
      if name not in waiting:
        waiting[name] = {}
        heapq.heappush(queue, -self.index[name])
      waiting[name][piece] = None

    for name, piece in pieces:
      put(name, piece)
    while queue:  # the last layer first: everything that reaches a layer is there before it is passed on
      layer = self.graph.layers[-heapq.heappop(queue)]
      for piece in waiting.pop(layer.name):
        if layer.name in self.receives:
          self.arrivals[layer.name].append(_Arrival(source, piece))
          self.cuts.setdefault(source, []).append((piece.origin_start, piece.origin_end, layer.name))
        else:
          for name, part in _back(layer, self.reads[layer.name], piece):
            put(name, part)

  def _pieces(
    self, layer: Layer, parts: dict[str, list[tuple[int, int, int]]]
  ) -> list[tuple[int, int, frozenset[tuple[str, int]]]]:
    """The layer's channels, cut wherever what arrives changes: (start, end, parts of sources)."""
    arrived: list[tuple[int, int, tuple[str, int]]] = []
    for source, piece in self.arrivals[layer.name]:
      for low, high, part in parts[source]:
        if piece.exact:
          shift = piece.start - piece.origin_start
          start, end = max(low + shift, piece.start), min(high + shift, piece.end)
        elif low < piece.origin_end and high > piece.origin_start:
          start, end = piece.start, piece.end
        else:
          continue
        if start < end:
          arrived.append((start, end, (source, part)))
    ends = {0, self.graph.shapes[layer.name].channels}
    ends |= {end for start, stop, _ in arrived for end in (start, stop)}
    return [
      (start, end, frozenset(p[2] for p in arrived if p[0] <= start and end <= p[1]))
      for start, end in itertools.pairwise(sorted(ends))
    ]

  def _count(self, asked: dict[str, list[Channels]]) -> dict[str, dict[Channels, int]]:
    """Numbers of paths by length that reach any of these sets of channels.

    The paths that reach some channels are, for each source, those that reach the outputs of the source that read what
    it sends there, one layer longer. Paths over different sources differ, so their numbers add up.
    """
    links: dict[str, dict[Channels, dict[str, Channels]]] = {}  # layer -> channels -> source -> its outputs
    for name, sets in asked.items():
      links[name] = {channels: {} for channels in sets}
    for layer in self.graph:  # sources stand behind the layers that they reach
      if layer.name in links:
        for channels, needed in links[layer.name].items():
          needed.update(self._outputs_that_reach(layer, channels))
          for source, outputs in needed.items():
            if source in self.steps:
              links[source].setdefault(outputs, {})
    paths: dict[str, dict[Channels, int]] = {}
    for layer in reversed(self.graph.layers):
      if layer.name in links:
        paths[layer.name] = {
          channels: sum(paths[source][outputs] if source in paths else 1 for source, outputs in needed.items())
          << self.bits
          for channels, needed in links[layer.name].items()
        }
    return paths

  def _outputs_that_reach(self, layer: Layer, channels: Channels) -> dict[str, Channels]:
    """For each source of these channels of a layer: the outputs of the source that read what arrives there."""
    origins: dict[str, list[tuple[int, int]]] = {}
    for arrival in self.arrivals[layer.name]:
      for start, end in channels:
        if origin := arrival.origin(start, end):
          origins.setdefault(arrival.source, []).append(origin)
    return {
      source: self.joined[source].outputs_of(merged(spans)) if source in self.steps else ()
      for source, spans in origins.items()
    }

  def _summary(
    self, layer: Layer, pieces: list[tuple[int, int, frozenset[tuple[str, int]]]], paths: dict[Channels, int]
  ) -> LayerGradients:
    ranges: list[ChannelRange] = []
    for start, end, parts in pieces:
      times, counts = self._unpacked(paths[((start, end),)])
      if ranges and (ranges[-1].parts, ranges[-1].timestamps, ranges[-1].paths) == (parts, times, counts):
        ranges[-1] = ranges[-1]._replace(end=end)
      else:
        names = tuple(sorted({source for source, _ in parts}, key=self.order.__getitem__))
        ranges.append(ChannelRange(start, end, times, counts, names, parts))
    return LayerGradients(layer.name, layer.kind, self.graph.shapes[layer.name], tuple(ranges))

  def _unpacked(self, paths: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    digits = []
    mask = (1 << self.bits) - 1
    time = 0
    while paths:
      if count := paths & mask:
        digits.append((time, count))
      paths >>= self.bits
      time += 1
    return tuple(t for t, _ in digits), tuple(n for _, n in digits)


def _most_paths(graph: Graph) -> int:
  """A bound on the number of paths from the losses to any one layer: all ways along the wires."""
  count = dict.fromkeys(graph.shapes, 0)
  for head in graph.heads:
    count[head.name] += 1
  for layer in reversed(graph.layers):
    for name in layer.inputs:
      count[name] += count[layer.name]
  return max(count.values())


def _parts(cuts: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, int]]:
  """(from, to, part) over a source's channels: channels that reach the same layers are one part."""
  ends = sorted({end for cut in cuts for end in cut[:2]})
  numbers: dict[frozenset[str], int] = {}
  result = []
  for start, end in itertools.pairwise(ends):
    reached = frozenset(name for low, high, name in cuts if low <= start and end <= high)
    if reached:
      result.append((start, end, numbers.setdefault(reached, len(numbers))))
  return result
