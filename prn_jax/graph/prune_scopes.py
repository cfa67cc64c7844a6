"""Which layers a sparse training presses down and a pruning cuts: the prune sets of network slimming, from the graph.

A set holds layers with batch norm of their own, whose scales (gamma) say how much each channel matters (Liu et al.,
"Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017). What a scope leaves out follows from what
the channels of a layer come to before weights make others of them; no list of layers is involved.
"""

from __future__ import annotations

from enum import StrEnum

from prn_jax.graph.channels import How
from prn_jax.graph.consumers import consumers_of
from prn_jax.graph.graph import Graph, Layer


class Scope(StrEnum):
  """A set of layers.

  NORMAL: channels that go by themselves: no shortcut, upsample, depthwise convolution, spatial pyramid or grouped route has
    them (type 0 of the network-slimming scripts for YOLO).
  ALL: those of NORMAL, and what shortcuts tie together (type 1).
  RESIDUAL: the last layer of every residual branch, whose scales say how much the branch matters (type 2).
  COUPLED: every layer with batch norm whose channels may go, with all that goes with them (`coupled_channels`); depthwise
    convolutions among them.
  """

  NORMAL = "normal"
  ALL = "all"
  RESIDUAL = "residual"
  COUPLED = "coupled"


def layers_in_scope(graph: Graph, scope: Scope | str) -> tuple[str, ...]:
  """Names of the layers of a scope, in the order of the graph.

  Layers without batch norm of their own are in none; nor, but for RESIDUAL, are those whose channels are a result of the
  network or mixed by a rule that needs all of them. The scales lie at params/<layer>/bn/scale.

  Example: of Darknet-53's YOLOv3, NORMAL has 42 of 72 layers with 13,376 channels, ALL 70, RESIDUAL 23.
  """
  scope = Scope(scope)
  normalised = [layer for layer in graph if layer.has_batchnorm and graph.arrays(layer)]
  if scope is Scope.RESIDUAL:
    last = _branch_ends(graph)
    return tuple(layer.name for layer in normalised if layer.name in last)
  layers = {layer.name: layer for layer in graph}
  consumers = {name: [layers[one] for one in read] for name, read in consumers_of(graph).items()}
  results = {head.name for head in graph.heads}
  found = []
  for layer in normalised:
    reached = _handed_on(graph, layer, consumers)
    if results & {layer.name, *reached} or _is_mixed(graph, layer, reached, consumers):
      continue
    if scope is Scope.COUPLED or not _is_spared(graph, layer, reached, scope):
      found.append(layer.name)
  return tuple(found)


def scale_key(layer: str) -> str:
  """Name of the scales of a layer among the flat variables."""
  return f"params/{layer}/bn/scale"


def _is_spared(graph: Graph, layer: Layer, reached: set[str], scope: Scope) -> bool:
  """Whether NORMAL or ALL leaves a layer out."""
  if _is_depthwise(graph, layer):
    return True
  for other in (one for one in graph if one.name in reached):
    if _is_depthwise(graph, other) or _enlarges(graph, other):
      return True
    if any(reads.blocks > 1 for reads in graph.reads(other)):
      return True  # a route of one of several equal groups
    if other.copies and sum(name in reached or name == layer.name for name in other.inputs) > 1:
      return True  # the same channel twice in one concatenation: a spatial pyramid
    if scope is Scope.NORMAL and other.adds_sources:
      return True
  return False


def _is_depthwise(graph: Graph, layer: Layer) -> bool:
  return bool(layer.kernel) and any(span.how is How.KEEP for reads in graph.reads(layer) for span in reads.spans)


def _enlarges(graph: Graph, layer: Layer) -> bool:
  window = layer.window(graph.input_shapes(layer), graph.shapes[layer.name])
  return window is not None and min(window.stride) < 1


def _handed_on(graph: Graph, layer: Layer, consumers: dict[str, list[Layer]]) -> set[str]:
  """Layers that have channels of `layer` as they are, or scaled one by one."""
  reached: set[str] = set()
  ahead = [layer.name]
  while ahead:
    name = ahead.pop()
    for other in consumers[name]:
      keeps = any(
        span.how is How.KEEP
        for source, reads in zip(other.inputs, graph.reads(other), strict=True)
        if source == name
        for span in reads.spans
      )
      if keeps and other.name not in reached:
        reached.add(other.name)
        ahead.append(other.name)
  return reached


def _is_mixed(graph: Graph, layer: Layer, reached: set[str], consumers: dict[str, list[Layer]]) -> bool:
  """Whether a rule that needs all channels (softmax, a kind that does not say what it reads) reads those of `layer`."""
  held = {layer.name, *reached}
  return any(
    span.how is How.MIX
    for name in held
    for other in consumers[name]
    for source, reads in zip(other.inputs, graph.reads(other), strict=True)
    if source in held
    for span in reads.spans
  )


def _branch_ends(graph: Graph) -> set[str]:
  """The layer with weights at the end of every branch to which a shortcut adds its sources."""
  by_name = {layer.name: layer for layer in graph}
  found = set()
  for shortcut in graph:
    if not shortcut.adds_sources:
      continue
    layer = by_name.get(shortcut.inputs[0])
    while layer is not None and not layer.kernel and not layer.adds_sources and len(layer.inputs) == 1:
      layer = by_name.get(layer.inputs[0])  # dropout, a gate of the branch: what it scales is the branch
    if layer is not None and layer.kernel:
      found.add(layer.name)
  return found
