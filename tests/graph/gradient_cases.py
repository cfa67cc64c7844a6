"""Random networks for tests of `graph.gradients`, and the answer by brute force.

`enumerated_paths` follows every path channel by channel and shares nothing with the program, which works on intervals
and never lists a path. What each kind of layer reads is what it says (`Layer.reads`); test_channels.py holds that
against the real lowering.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence

import prn_jax.kinds  # noqa: F401  (registers the builder's methods)
from prn_jax.graph.builder import Builder
from prn_jax.graph.channels import How
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.kinds.route import Route

MOST_STEPS = 6
KERNELS = ("conv", "connected")
Path = tuple[str, ...]  # "loss:HEAD", then the layers with kernels that the gradient passes

# -- random networks -------------------------------------------------------------------------------------------


def random_graph(seed: int) -> Graph:
  """Up to six convolutions (some grouped, some depthwise) and matrix products between shortcuts and routes that read
  any earlier layer, on 1x1 maps, all of it linear; every second one has two losses."""
  rng = random.Random(seed)
  g = Builder(1, 1, channels=rng.choice([1, 2, 3, 4, 6]))
  names: list[str] = []
  steps = 0
  while steps < MOST_STEPS - 2:
    kind = rng.choice(["conv", "grouped", "grouped", "connected", *["shortcut"] * 4, "route", "route", "dropout"])
    if kind in ("shortcut", "route") and not names:
      continue
    if kind == "conv":
      g.conv(rng.choice([1, 2, 3, 4, 6]))
    elif kind == "grouped":
      groups = rng.choice([d for d in range(2, 13) if g.shape().channels % d == 0] or [1])
      g.conv(groups * rng.randint(1, 2), groups=groups)
    elif kind == "connected":
      g.connected(rng.choice([1, 2, 3, 4, 6]))
    elif kind == "shortcut":
      g.shortcut(*rng.sample(names, rng.randint(1, min(2, len(names)))))
    elif kind == "route":
      add_route(g, rng, names)
    else:
      g.dropout()
    names.append(g.last)
    steps += kind in KERNELS or kind == "grouped"
  if seed % 2:
    g.conv(5)
    g.yolo(0, ((1.0, 1.0),), name="head1")
    g.route(rng.choice(names))
    g.conv(5)
    g.yolo(0, ((1.0, 1.0),), name="head2")
  return g.graph()


def random_mixing_graph(seed: int) -> Graph:
  """Convolutions between shortcuts, routes, products, and layers without kernels that mix channels, on 4x4 maps that
  reorg makes smaller."""
  rng = random.Random(seed)
  g = Builder(4, 4, channels=rng.choice([2, 4, 6]))
  names = [g.conv(rng.choice([2, 4, 6]))]
  kinds = ["grouped", "shortcut", "shortcut", "route", "softmax", "pool", "reorg", "sam", "se", "attention"]
  while sum(layer.kind == "conv" for layer in g.graph()) < MOST_STEPS:
    kind = rng.choice(kinds) if g.shape().channels <= 12 else "conv"
    if kind == "conv":
      g.conv(rng.choice([2, 4, 6]))
    else:
      add_layer(g, rng, kind, [name for name in names if g.shape(name)[:2] == g.shape()[:2]])
    names.append(g.last)
  return g.graph()


def add_layer(g: Builder, rng: random.Random, kind: str, names: Sequence[str]) -> None:
  """`names`: earlier layers of the same size, the last one included."""
  last, shape = g.last, g.shape()
  if kind == "grouped":
    groups = rng.choice([d for d in range(1, 13) if shape.channels % d == 0])
    g.conv(groups * rng.randint(1, 2), groups=groups)
  elif kind == "shortcut":
    g.shortcut(*rng.sample(names, rng.randint(1, min(2, len(names)))))
  elif kind == "route":
    add_route(g, rng, names)
  elif kind == "softmax":
    g.softmax()
  elif kind == "pool":
    g.maxpool(1, 1, depth_out=rng.randint(1, shape.channels))
  elif kind == "reorg" and shape.height > 1 and shape.channels % 4 == 0:
    g.reorg(2)
  elif kind == "sam":
    g.sam(rng.choice([name for name in names if g.shape(name) == shape]))
  elif kind == "se":
    g.avgpool()
    g.conv(shape.channels)
    g.scale_channels(last)
  elif kind == "attention":
    g.conv(1)
    g.scale_channels(last, scale_wh=True)


def add_route(g: Builder, rng: random.Random, names: Sequence[str]) -> None:
  sources = [rng.choice(names) for _ in range(rng.randint(1, 3))]
  groups = rng.choice([d for d in (1, 1, 2, 3) if all(g.shape(s).channels % d == 0 for s in sources)])
  g.route(*sources, groups=groups, group_id=rng.randrange(groups))


def with_no_ops(graph: Graph, seed: int) -> Graph:
  """The same network, in which what some layers hand on is cut into equal parts and concatenated again first."""
  rng = random.Random(seed)
  layers: list[Layer] = []
  stands_for: dict[str, str] = {}
  for layer in graph:
    layers.append(dataclasses.replace(layer, inputs=tuple(stands_for.get(name, name) for name in layer.inputs)))
    channels = graph.shapes[layer.name].channels
    count = rng.choice([d for d in range(1, channels + 1) if channels % d == 0])
    if count == 1 or layer in graph.heads:
      continue
    parts = [Route(name=f"{layer.name}_part{i}", inputs=(layer.name,), groups=count, group_id=i) for i in range(count)]
    whole = Route(name=f"{layer.name}_whole", inputs=tuple(part.name for part in parts))
    layers += [*parts, whole]
    stands_for[layer.name] = whole.name
  return dataclasses.replace(graph, layers=tuple(layers))


# -- brute force -----------------------------------------------------------------------------------------------


def channels_read(graph: Graph, layer: Layer, channel: int) -> Iterator[tuple[str, Iterable[int]]]:
  """Which channels of which inputs the gradient of one output channel goes to, span by span. A layer without a kernel
  that does not take channels as they are hands it to all that it reads (docs/analysis.md)."""
  for name, reads in zip(layer.inputs, graph.reads(layer), strict=True):
    spans = [span for span in reads.spans if span.out_start <= channel < span.out_end]
    if layer.kind in KERNELS or reads.is_one_to_one:
      for start, end, out_start, _, how in spans:
        yield name, [channel - out_start + start] if how is How.KEEP else range(start, end)
    elif spans:
      yield name, {c for start, end, *_ in reads.spans for c in range(start, end)}


def enumerated_paths(graph: Graph) -> dict[str, list[set[Path]]]:
  """Layer with a kernel -> for each of its channels all paths that reach it, the layer itself last."""
  layers = {layer.name: layer for layer in graph}
  found = {x.name: [set() for _ in range(graph.shapes[x.name].channels)] for x in graph if x.kind in KERNELS}
  waiting = [(h.name, c, ("loss:" + h.name,)) for h in graph.heads for c in range(graph.shapes[h.name].channels)]
  seen = set(waiting)
  while waiting:
    name, channel, path = waiting.pop()
    if name in found:
      path = (*path, name)
      found[name][channel].add(path)
    for source, channels in channels_read(graph, layers[name], channel):
      new = {(source, c, path) for c in channels if source != INPUT} - seen
      seen |= new
      waiting += new
  return found


def lengths(paths: set[Path]) -> dict[int, int]:
  """Timestamp -> number of paths: the loss is no layer."""
  return dict(sorted(collections.Counter(len(path) - 1 for path in paths).items()))
