"""Variables of a changed graph out of those of the original: the channels that both have, leading ones first.

Every channel carries a label through both graphs: which filter of which convolution made it, and through which
layers that keep channels it came. A layer of the changed graph takes from the original's arrays the rows of the
channels that it still reads and the first columns, as many as it still has filters.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from prn_jax.errors import GraphError
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.route import Route
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.transforms.stages import KEEPS_CHANNELS, is_depthwise

Variables = dict[str, Any]
Labels = dict[str, tuple[Hashable, ...]]


def warm_start(original: Graph, variables: Variables, changed: Graph) -> Variables:
  """Variables for `changed` from those of `original`.

  Args:
    original: the trained network.
    variables: its variables.
    changed: made from `original` by transforms, or any network whose layers with variables have the same names and
      at most as many channels.

  Returns:
    Nested dicts of float32 arrays as `Network` expects them for `changed`. Equal to the given ones where nothing
    changed.

  Raises:
    GraphError: a layer of `changed` needs variables that `original` does not have.
  """
  before, after = channel_labels(original), channel_labels(changed)
  old_layers = {layer.name: layer for layer in original}
  result: Variables = {}
  for layer in changed:
    arrays = changed.arrays(layer)
    if not arrays:
      continue
    old = old_layers.get(layer.name)
    if old is None or type(old) is not type(layer):
      raise GraphError(
        f"layer '{layer.name}' ({layer.kind}) is new; the network '{original.name}' has no weights for it."
      )
    rows = _positions(layer, before[old.inputs[0]], after[layer.inputs[0]], original.name) if layer.inputs else None
    columns = len(after[layer.name])
    for array in arrays:
      value = np.asarray(_leaf(variables, array.collection, old.name, array.path))
      value = _sliced(layer, array.path, value, rows, columns, original, changed)
      if value.shape != array.array_shape:
        raise GraphError(
          f"layer '{layer.name}' ({layer.kind}): '{array.path}' has shape {value.shape} in '{original.name}' and "
          f"cannot become {array.array_shape}."
        )
      _put(result, (array.collection, layer.name, *array.path.split("/")), value)
  return result


def channel_labels(graph: Graph) -> Labels:
  """For every layer, what makes each of its channels; equal labels mean the same feature."""
  labels: Labels = {INPUT: tuple((INPUT, i) for i in range(graph.channels))}
  for layer in graph:
    labels[layer.name] = _labels(graph, layer, labels)
  return labels


def _labels(graph: Graph, layer: Layer, labels: Mapping[str, tuple[Hashable, ...]]) -> tuple[Hashable, ...]:
  channels = graph.shapes[layer.name].channels
  if isinstance(layer, Route):
    return tuple(itertools.chain(*(_group(layer, labels[name]) for name in layer.inputs)))
  if isinstance(layer, Shortcut):
    return labels[layer.inputs[0]]
  depthwise = isinstance(layer, Conv) and is_depthwise(layer, graph.input_shapes(layer)[0])
  if depthwise or layer.kind in KEEPS_CHANNELS or layer.kind == "scale_channels":
    source = labels[layer.inputs[1 if layer.kind == "scale_channels" else 0]]
    if len(source) == channels:
      return tuple((layer.name, label) for label in source)
  return tuple((layer.name, i) for i in range(channels))


def _group(route: Route, labels: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
  size = len(labels) // route.groups
  return labels[route.group_id * size : (route.group_id + 1) * size]


def _positions(
  layer: Layer, before: tuple[Hashable, ...], after: tuple[Hashable, ...], original: str
) -> np.ndarray | None:
  """Where the channels that `layer` reads now stood among those that it read; None if they are the same."""
  if before == after:
    return None
  where = {label: i for i, label in reversed(list(enumerate(before)))}
  new = [label for label in after if label not in where]
  if new:
    raise GraphError(
      f"layer '{layer.name}' ({layer.kind}) reads {len(new)} channels that it does not read in '{original}', so "
      "their weights are unknown."
    )
  return np.array([where[label] for label in after])


def _sliced(
  layer: Layer, path: str, value: np.ndarray, rows: np.ndarray | None, columns: int, original: Graph, changed: Graph
) -> np.ndarray:
  """The part of one array that the changed layer has."""
  leaf = path.split("/")[-1]
  if isinstance(layer, Conv):
    if is_depthwise(layer, changed.input_shapes(layer)[0]):
      return value if rows is None else value[..., rows]
    if leaf == "kernel" and rows is not None:
      if layer.groups > 1:
        raise GraphError(f"layer '{layer.name}' (conv) has groups={layer.groups}; its inputs cannot be taken apart.")
      value = value[:, :, rows]
    return value[..., :columns]
  if layer.kind == "batchnorm":
    return value if rows is None else value[rows]
  if isinstance(layer, Shortcut):
    return value[..., :columns] if value.ndim > 1 else value
  is_matrix = layer.kind == "connected" and leaf == "kernel" and rows is not None
  if is_matrix and original.input_shapes(original[layer.name])[0][:2] == (1, 1):
    return value[rows]
  return value


def _leaf(variables: Variables, collection: str, layer: str, path: str) -> Any:
  value = variables[collection][layer]
  for key in path.split("/"):
    value = value[key]
  return value


def _put(tree: Variables, keys: tuple[str, ...], value: np.ndarray) -> None:
  *folders, leaf = keys
  for key in folders:
    tree = tree.setdefault(key, {})
  tree[leaf] = value
