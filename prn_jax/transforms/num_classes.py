"""The same network for other classes, or with other anchors; graph -> graph, without weights.

What the result of a network is made of stands below its head: one convolution (or connected layer) whose outputs are
the classes, or the values of all anchors. Layers between the two that keep the channels (pooling, softmax, dropout)
may come in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prn_jax.errors import GraphError, PrnError
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.graph.head import DetectionHead
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import AnchorHead


def with_num_classes(graph: Graph, num_classes: int) -> Graph:
  """The network for `num_classes` classes: in every detection head, or in the last layer of a classifier.

  Raises:
    PrnError: fewer than 1 class, or a head whose outputs are not those of one layer of their own.

  Example: with_num_classes(build_graph("yolov3-tiny-prn"), 3) == build_graph("yolov3-tiny-prn", num_classes=3)
  """
  if num_classes < 1:
    raise PrnError(f"network '{graph.name}': {num_classes} classes; expected at least 1.")
  changed: dict[str, Layer] = {}
  for head in graph.heads:
    outputs = num_classes
    if isinstance(head, DetectionHead):
      if isinstance(head, Region) and head.tree:
        raise GraphError(
          f"network '{graph.name}': head '{head.name}' has a class hierarchy ({head.tree}), which fixes them."
        )
      new = dataclasses.replace(head, classes=num_classes)
      changed[head.name] = new
      outputs = graph.shapes[head.name].channels // head.entries * new.entries
    source = result_layer(graph, head)
    changed[source.name] = dataclasses.replace(source, **{source.width_field: outputs})  # type: ignore[arg-type]
  return _replaced(graph, changed)


def with_anchors(graph: Graph, anchors: Sequence[tuple[float, float]]) -> Graph:
  """The network with other anchors: the full list, which all heads have in common; their masks stay.

  Args:
    graph: a detector.
    anchors: (width, height) in pixels of the network's input. For [region], whose anchors are in cells, they are
      divided by the size of its cells.

  Raises:
    PrnError: the network detects nothing, its heads have lists of their own, or the number differs.
  """
  heads = _anchor_heads(graph)
  expected = len(heads[0].anchors)
  if len(anchors) != expected:
    masks = ", ".join(f"{head.name}: {graph.shapes[head.name].channels // head.entries}" for head in heads)
    raise PrnError(
      f"{len(anchors)} anchors were given, but network '{graph.name}' has {expected} ({masks}). "
      f"Give as many; 'prn data anchors SPEC --num {expected}' finds them."
    )
  changed: dict[str, Layer] = {}
  for head in heads:
    own = tuple((float(width), float(height)) for width, height in anchors)
    if isinstance(head, Region):
      shape = graph.shapes[head.name]
      own = tuple((w * shape.width / graph.width, h * shape.height / graph.height) for w, h in own)
    changed[head.name] = dataclasses.replace(head, anchors=own)
  return _replaced(graph, changed)


def anchors_of(graph: Graph) -> tuple[tuple[float, float], ...]:
  """The (width, height) pairs that all heads have in common, in pixels of the network's input.

  Raises:
    PrnError: the network detects nothing, or its heads have lists of their own.
  """
  head = _anchor_heads(graph)[0]
  if not isinstance(head, Region):
    return head.anchors
  shape = graph.shapes[head.name]
  return tuple((w * graph.width / shape.width, h * graph.height / shape.height) for w, h in head.anchors)


def _anchor_heads(graph: Graph) -> list[AnchorHead | Region]:
  heads = [head for head in graph.heads if isinstance(head, AnchorHead | Region)]
  if not heads:
    raise PrnError(f"network '{graph.name}' has no detection head, so no anchors.")
  if len({head.anchors for head in heads}) > 1:
    raise PrnError(f"network '{graph.name}': its heads have different lists of anchors; change them in its cfg.")
  return heads


def _replaced(graph: Graph, changed: dict[str, Layer]) -> Graph:
  return dataclasses.replace(graph, layers=tuple(changed.get(layer.name, layer) for layer in graph))


def result_layer(graph: Graph, head: Layer) -> Layer:
  """The layer with weights whose outputs `head` reads.

  Raises:
    GraphError: there is none, or something else reads them too.
  """
  layer = head
  while not (layer.kernel and layer.width_field):
    source = layer.inputs[0] if len(layer.inputs) == 1 else INPUT
    if source == INPUT or graph.shapes[source].channels != graph.shapes[layer.name].channels:
      raise GraphError(
        f"network '{graph.name}': the classes of '{head.name}' do not come from one convolution or connected layer: "
        f"'{layer.name}' ({layer.kind}) stands in between. Change the classes in its cfg."
      )
    readers = [other.name for other in graph if source in other.inputs and other is not layer]
    layer = graph[source]
    if readers:
      raise GraphError(
        f"network '{graph.name}': '{source}', below the head '{head.name}', is also read by {', '.join(readers)}, "
        "which other classes would change. Change the classes in its cfg."
      )
  return layer
