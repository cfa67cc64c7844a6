"""What the heads of pretrained weights know, for a network with other classes.

A detection head's outputs are, for every anchor, numbers of the box, one of "there is an object", and one of every class. With
other classes their count differs, so that by itself the layer below stays random. But where boxes are and whether there is
something has little to do with the classes, and a class of the same name is the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prn_jax.data_pipelines.class_names import match_names
from prn_jax.graph.graph import Graph
from prn_jax.graph.head import DetectionHead
from prn_jax.transforms.num_classes import result_layer


class KeptHead(NamedTuple):
  """A layer below a head that took over a part of what another one knows.

  Attributes:
    layer: its name; source the one in the pretrained network.
    arrays: key -> array for the new network.
    classes: names of the classes that were known.
  """

  layer: str
  source: str
  arrays: dict[str, Any]
  classes: tuple[str, ...]


def kept_heads(
  graph: Graph,
  names: Sequence[str],
  random: Mapping[str, Any],
  source: Graph,
  source_names: Sequence[str],
  weights: Mapping[str, Any],
) -> list[KeptHead]:
  """For each pair of heads, in order, of one kind and with equally many anchors and numbers of a box.

  Args:
    graph, names: the network to train, and its classes.
    random: key -> array, its variables; classes without a namesake keep these.
    source, source_names: the pretrained network and its classes; without names only boxes and objects are kept.
    weights: key -> array of `source`; a head whose layer is not whole in there is left out.

  Returns:
    The heads that fit; none if the numbers of heads differ.
  """
  mine, theirs = ([head for head in one.heads if isinstance(head, DetectionHead)] for one in (graph, source))
  if len(mine) != len(theirs):
    return []
  places = match_names(names, source_names) if source_names else (-1,) * len(names)
  found = (_kept(graph, a, random, source, b, weights, places) for a, b in zip(mine, theirs, strict=True))
  known = tuple(name for name, place in zip(names, places, strict=True) if place >= 0)
  return [KeptHead(*one, known) for one in found if one]


def _kept(
  graph: Graph,
  head: DetectionHead,
  random: Mapping[str, Any],
  source: Graph,
  other: DetectionHead,
  weights: Mapping[str, Any],
  places: Sequence[int],
) -> tuple[str, str, dict[str, Any]] | None:
  before, anchors = (_first_class(head), _anchors(graph, head)), _anchors(source, other)
  if type(head) is not type(other) or before != (_first_class(other), anchors) or len(places) != head.classes:
    return None
  layer, theirs = result_layer(graph, head), result_layer(source, other)
  arrays: dict[str, Any] = {}
  for array, old in zip(graph.arrays(layer), source.arrays(theirs), strict=False):
    values = weights.get(old.key(theirs.name))
    key = array.key(layer.name)
    if values is None or np.shape(values)[:-1] != array.array_shape[:-1]:
      return None
    arrays[key] = _rows(np.array(random[key]), np.asarray(values), anchors, before[0], places)
  return layer.name, theirs.name, arrays


def _rows(new: Any, old: Any, anchors: int, first_class: int, places: Sequence[int]) -> Any:
  """`new` (..., anchors x entries) with what `old` knows: all before the classes, and classes by their place."""
  grouped, known = (x.reshape(*x.shape[:-1], anchors, -1) for x in (new, old))
  grouped[..., :first_class] = known[..., :first_class]
  for number, place in enumerate(places):
    if place >= 0:
      grouped[..., first_class + number] = known[..., first_class + place]
  return grouped.reshape(new.shape)


def _first_class(head: DetectionHead) -> int:
  return head.entries - head.classes


def _anchors(graph: Graph, head: DetectionHead) -> int:
  return graph.shapes[head.name].channels // head.entries
