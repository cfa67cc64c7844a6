"""Partial residual networks out of any graph (Wang et al., ICCVW 2019, sections 3 and 4.2).

| transform | the paper's | what changes |
|---|---|---|
| `fprn` | characteristic 1 | shortcuts add only their leading channels; topology and cost stay |
| `shrink`, `expand`, `bottleneck` | characteristic 2 | blocks of a stage change their width linearly |
| `multi_source` | characteristic 3 | joins of two levels become additions of several sources, as in tiny-PRN's head |

Each gives a graph that Darknet's cfg can hold. `transforms.warm_start` brings trained variables along. To apply
several, change widths first: a stage whose shortcuts are partial already is not recognised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from prn_jax.errors import GraphError, PrnError, did_you_mean
from prn_jax.graph.consumers import consumers_of
from prn_jax.graph.graph import INPUT, Graph, Layer, Wiring
from prn_jax.graph.partial import (
  Schedule,
  check_gamma,
  check_sparsity,
  kept_channels,
  leading_cuts,
  stage_widths,
)
from prn_jax.kinds.activation import Activation
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.route import Route
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.transforms.stages import find_stages, groups_around, makes_channels, with_filters

# -- characteristic 1 ------------------------------------------------------------------------------------


def fprn(graph: Graph, sparsity: float = 0.5) -> Graph:
  """The same network whose shortcuts add only the first (1 - sparsity) of the channels that they added.

  A cfg cannot say how many channels a shortcut adds, but a route can cut them out. The cut stands right behind its
  source, so that the rest of the source need not be kept until the addition.

  Args:
    graph: any network with shortcuts. Their sources may have more or fewer channels than the sum.
    sparsity: 0 gives the same network, 1 one without additions.

  Returns:
    A graph with the same layers and some routes more; its variables are the same.

  Raises:
    GraphError: the sparsity is not in [0, 1], there is no shortcut, or the channels cannot be cut there.
  """
  check_sparsity(sparsity)
  if not any(isinstance(layer, Shortcut) for layer in graph):
    raise GraphError(f"network '{graph.name}' has no shortcuts, so there is nothing to make partial.")
  if sparsity == 0:
    return graph
  parts: dict[tuple[str, int], str] = {}  # (source, channels) -> the layer that holds them
  pending: dict[str, list[Layer]] = {}  # source -> routes that go behind it
  changed: list[Layer] = []
  for layer in graph:
    if isinstance(layer, Shortcut):
      layer = _partial_shortcut(graph, layer, sparsity, parts, pending)
    changed.append(layer)
  return dataclasses.replace(graph, layers=tuple(_with_routes(changed, pending)))


def _partial_shortcut(
  graph: Graph,
  shortcut: Shortcut,
  sparsity: float,
  parts: dict[tuple[str, int], str],
  pending: dict[str, list[Layer]],
) -> Layer:
  previous, *sources = shortcut.inputs
  inputs = [previous]
  for i, source in enumerate(sources, 1):
    have = graph.shapes[source].channels
    keep = kept_channels(min(have, graph.shapes[previous].channels), sparsity)
    if not keep:
      continue
    if source == INPUT:
      raise GraphError(f"layer '{shortcut.name}' (shortcut) adds the image, which a cfg cannot cut into parts.")
    if (source, keep) not in parts:
      place = f"{shortcut.name}_part" + (str(i) if len(sources) > 1 else "")
      try:
        routes = cut_routes(source, have, keep, place)
      except GraphError as error:
        raise GraphError(f"layer '{shortcut.name}' (shortcut) with sparsity {sparsity:g}: {error}") from None
      parts[source, keep] = routes[-1].name
      pending.setdefault(source, []).extend(routes)
    inputs.append(parts[source, keep])
  if len(inputs) > 1:
    return dataclasses.replace(shortcut, inputs=tuple(inputs))
  return Activation(  # nothing is added; the name stays for the layers that read it
    name=shortcut.name, inputs=(previous,), activation=shortcut.activation, leaky_slope=shortcut.leaky_slope
  )


def cut_routes(source: str, channels: int, keep: int, place: str) -> list[Layer]:
  """Routes of which the last, called `place`, holds the first `keep` of the `channels` channels of `source`."""
  cuts = leading_cuts(channels, keep)
  if len(cuts) == 1:
    (groups, group_id) = cuts[0]
    return [Route(name=place, inputs=(source,), groups=groups, group_id=group_id)]
  routes = [
    Route(name=f"{place}_cut{i}", inputs=(source,), groups=groups, group_id=group_id)
    for i, (groups, group_id) in enumerate(cuts, 1)
  ]
  return [*routes, Route(name=place, inputs=tuple(route.name for route in routes))]


def _with_routes(layers: Sequence[Layer], pending: Mapping[str, Sequence[Layer]]) -> list[Layer]:
  """Puts the pending routes behind their sources, and one more that goes back where the next layer reads on."""
  result: list[Layer] = []
  behind = ""  # the source whose routes were put last
  for layer in layers:
    if behind and layer.wiring in (Wiring.PREVIOUS, Wiring.PREVIOUS_AND_SOURCES) and layer.inputs[0] == behind:
      result.append(Route(name=f"{result[-1].name}_rest", inputs=(behind,)))
      layer = dataclasses.replace(layer, inputs=(result[-1].name, *layer.inputs[1:]))
    result.append(layer)
    routes = pending.get(layer.name, ())
    result += routes
    behind = layer.name if routes else ""
  return result


# -- characteristic 2 ------------------------------------------------------------------------------------


def shrink(graph: Graph, gamma: float) -> Graph:
  """Blocks of every residual stage grow narrower, from c channels in front of it to gamma * c behind it.

  Block i of n has c * (1 - (1 - gamma) * i / n) channels: so many filters has the convolution that its shortcut adds
  to. Layers inside a block keep theirs, as the 1x1 convolutions do in the paper's figure 7, which prints "64 1x1,
  96 3x3; 64 1x1, 64 3x3" for the stage of 128. Widths are the nearest multiples of `WIDTH_STEP` and of the groups of
  the layers that make or read them. The stage's result has fewer channels, and so have the layers' inputs that read
  it. Blocks that share weights with other layers keep their width.

  Args:
    graph: any network with residual stages.
    gamma: share of the channels at the thin end, in (0, 1]; 1 gives the same network.

  Raises:
    GraphError: gamma is out of range, there is no residual stage, or a layer cannot have such a width.
  """
  return _rewidth(graph, "shrink", gamma)


def expand(graph: Graph, gamma: float) -> Graph:
  """Blocks of every residual stage grow wider, from gamma * c in front of it to c behind it. As `shrink`.

  The convolution in front of a stage is narrowed if only the stage reads it.
  """
  return _rewidth(graph, "expand", gamma)


def bottleneck(graph: Graph, gamma: float) -> Graph:
  """Blocks of every residual stage grow narrower up to its middle, gamma * c, and wider again. As `shrink`."""
  return _rewidth(graph, "bottleneck", gamma)


def _rewidth(graph: Graph, schedule: Schedule, gamma: float) -> Graph:
  check_gamma(gamma)
  stages = find_stages(graph)
  if not stages:
    raise GraphError(
      f"network '{graph.name}' has no residual stages, so none can {schedule}. Expected shortcuts around layers that "
      "nothing else reads."
    )
  consumers = consumers_of(graph)
  filters: dict[str, int] = {}
  for blocks in stages:
    channels = graph.shapes[blocks[-1].shortcut].channels
    front, *widths = stage_widths(schedule, channels, len(blocks), gamma, groups_around(graph, blocks))
    first = graph[blocks[0].source] if blocks[0].source != INPUT else None
    only_here = set(consumers[blocks[0].source]) <= {*blocks[0].branch, blocks[0].shortcut}
    if first and makes_channels(graph, first) and graph.shapes[first.name].channels == channels and only_here:
      filters[first.name] = front
    filters |= {block.output: width // block.parts for block, width in zip(blocks, widths, strict=True)}
  return with_filters(graph, filters)


# -- characteristic 3 ------------------------------------------------------------------------------------


def multi_source(graph: Graph) -> Graph:
  """A detector whose levels are joined by partial residuals where they were concatenated, after tiny-PRN's head.

  Every concatenation of an upsampled map, or (in a path down) of a strided convolution, with others becomes their
  sum, as far as channels reach. The convolution behind it gets the same sources once more, in one sum of several
  sources (characteristic 3). Names stay; convolutions behind a join read fewer channels. yolov3-tiny-prn differs: it
  adds the two sources one after the other, each with its activation, and has a residual in its coarse level.

  Raises:
    GraphError: the network joins nothing.
  """
  layers: list[Layer] = []
  sources: tuple[str, ...] = ()  # of the join just made, until a convolution uses them
  joined, renamed = "", dict[str, str]()
  necks = _neck(graph)
  for layer in graph:
    layer = dataclasses.replace(layer, inputs=tuple(renamed.get(name, name) for name in layer.inputs))
    if isinstance(layer, Route) and layer.name in necks:
      layers += _join(layer, layers[-1].name)
      joined, sources = layer.name, layer.inputs
      continue
    layers.append(layer)
    if sources and isinstance(layer, Conv) and layer.inputs == (joined,):
      if layer.strides == (1, 1) and not _is_head(graph, layer.name):
        skip = Shortcut(name=f"{layer.name}_skip", inputs=(layer.name, *sources), activation=layer.activation)
        layers.append(skip)
        renamed[layer.name] = skip.name
      sources = ()
  if not necks:
    raise GraphError(
      f"network '{graph.name}' concatenates no two levels, so there is nothing to join by partial residuals."
    )
  return dataclasses.replace(graph, layers=tuple(layers))


def _neck(graph: Graph) -> set[str]:
  """Routes that join two levels of a detector: from the first upsampling on."""
  found: set[str] = set()
  upsampled = False
  for layer in graph:
    upsampled = upsampled or layer.kind == "upsample"
    if upsampled and isinstance(layer, Route) and len(layer.inputs) > 1 and layer.groups == 1:
      inputs = [graph[name] for name in layer.inputs if name != INPUT]
      if any(x.kind == "upsample" or (isinstance(x, Conv) and x.strides != (1, 1)) for x in inputs):
        found.add(layer.name)
  return found


def _join(route: Route, previous: str) -> list[Layer]:
  """A shortcut in the place of a concatenation; the layer before it decides the width if it is one of them."""
  if previous in route.inputs:
    rest = tuple(name for name in route.inputs if name != previous)
    return [Shortcut(name=route.name, inputs=(previous, *rest), activation="leaky")]
  back = Route(name=f"{route.name}_from", inputs=(route.inputs[0],))
  return [back, Shortcut(name=route.name, inputs=(back.name, *route.inputs[1:]), activation="leaky")]


def _is_head(graph: Graph, name: str) -> bool:
  return any(head.inputs == (name,) for head in graph.heads)


# -- by name ---------------------------------------------------------------------------------------------

WITH_VALUE: dict[str, Callable[[Graph, float], Graph]] = {
  "fprn": fprn,
  "shrink": shrink,
  "expand": expand,
  "bottleneck": bottleneck,
}


def apply(graph: Graph, text: str) -> Graph:
  """The graph changed as `text` says: "fprn:SPARSITY", "shrink:GAMMA", "expand:GAMMA", "bottleneck:GAMMA" or
  "multi-source".

  Raises:
    PrnError: the text is none of these. GraphError: the graph cannot be changed so.

  Example: apply(build_graph("yolov3"), "shrink:0.5") is yolov3-prn with YOLOv3's own head.
  """
  name, colon, value = text.partition(":")
  if name == "multi-source" and not colon:
    return multi_source(graph)
  expected = "fprn:SPARSITY, shrink:GAMMA, expand:GAMMA, bottleneck:GAMMA, multi-source"
  if name not in WITH_VALUE:
    hint = did_you_mean(name, (*WITH_VALUE, "multi-source"))
    raise PrnError(f"transform '{text}' is unknown{hint}. Expected one of {expected}.")
  try:
    number = float(value)
  except ValueError:
    raise PrnError(f"transform '{text}' needs a number behind '{name}:', such as {name}:0.5.") from None
  return WITH_VALUE[name](graph, number)
