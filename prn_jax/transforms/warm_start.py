"""Variables of a changed graph out of those of the original: the channels that both have.

Every channel carries a label through both graphs: which filter of which layer with weights made it, and which layers
handed it on since. A layer of the changed graph takes from the original's arrays the rows of the channels that it still
reads and the columns of those that it still makes. Where channels are handed on, and along which axes of an array they
lie, the kinds say themselves (`Layer.reads`, `WeightArray`).
"""

from __future__ import annotations

import collections
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import GraphError, did_you_mean
from prn_jax.graph.channels import How
from prn_jax.graph.graph import INPUT, Graph, Layer, WeightArray
from prn_jax.nested import flattened, nested
from prn_jax.transforms.stages import groups_of, hands_on

Variables = dict[str, Any]
Kept = Mapping[str, Sequence[int]]
Labels = dict[str, tuple[int, ...]]  # layer -> a number for each of its channels; equal numbers mean the same feature
Positions = NDArray[np.int_]


def warm_start(original: Graph, variables: Variables, changed: Graph, kept: Kept | None = None) -> Variables:
  """Variables for `changed` from those of `original`.

  Args:
    original: the trained network.
    variables: its variables.
    changed: made from `original` by transforms, or any network whose layers with variables have the same names and
      at most as many channels.
    kept: layer whose weights make its channels (convolution, matrix product) -> numbers of the original's channels
      that it keeps, in any order. Those that are not named keep the leading ones, of each group if it has groups.
      `graph.coupling` tells which can only go together.

  Returns:
    Nested dicts of float32 arrays as `Network` expects them for `changed`. Equal to the given ones where nothing
    changed.

  Raises:
    GraphError: a layer of `changed` needs variables that `original` does not have, or `kept` does not fit.

  Example: warm_start(graph, variables, with_filters(graph, {"c1": 2}), {"c1": [0, 3]}) keeps filters 0 and 3 of c1.
  """
  made = makers(original) | (makers(changed) - original.shapes.keys())
  is_leading = not kept
  kept = _leading(original, changed, made) | _checked(original, changed, made, kept or {})
  numbers: dict[Hashable, int] = {}
  before, after = (channel_labels(x, numbers, made, of) for x, of in ((original, {}), (changed, kept)))
  if not is_leading:
    _check_sums(original, changed, before, after)
  old_layers = {layer.name: layer for layer in original}
  parts: dict[str, _Part] = {}
  flat, result = flattened(variables), dict[str, np.ndarray]()
  for layer in changed:
    if not layer.arrays(changed.input_shapes(layer)):
      continue
    old = old_layers.get(layer.name)
    if old is None or type(old) is not type(layer):
      raise GraphError(
        f"layer '{layer.name}' ({layer.kind}) is new; the network '{original.name}' has no weights for it."
      )
    part = parts[layer.name] = _part(original, old, changed, layer, before, after, kept if layer.name in made else None)
    if layer.shared_with and not part.equals(parts[layer.shared_with]):
      raise GraphError(
        f"layer '{layer.name}' ({layer.kind}) shares the weights of '{layer.shared_with}', but not all channels that it "
        "reads and makes are the same ones. Keep the same channels of both, and of what they read."
      )
    for array in changed.arrays(layer):
      value = part.of(np.asarray(flat[array.key(old.name)]), array, layer)
      if value.shape != array.array_shape:
        raise GraphError(
          f"layer '{layer.name}' ({layer.kind}): '{array.path}' has shape {value.shape} in '{original.name}' and "
          f"cannot become {array.array_shape}."
        )
      result[array.key(layer.name)] = value
  return nested(result)


# -- which channels are kept -----------------------------------------------------------------------------


def makers(graph: Graph) -> set[str]:
  """Layers whose channels are new ones, made by their weights."""
  return {x.name for x in graph if not x.inputs or any(reads.is_learned for reads in graph.reads(x))}


def _leading(original: Graph, changed: Graph, makers: set[str]) -> dict[str, Sequence[int]]:
  """The leading channels of every layer that makes some; of each group where the groups are as many as before."""
  result: dict[str, Sequence[int]] = {}
  for layer in changed:
    if layer.name not in makers or layer.name not in original.shapes:
      continue
    old, new = original.shapes[layer.name].channels, changed.shapes[layer.name].channels
    groups = groups_of(changed, layer)
    if groups != groups_of(original, original[layer.name]):
      groups = 1
    result[layer.name] = [i * (old // groups) + j for i in range(groups) for j in range(new // groups)]
  return result


def _checked(original: Graph, changed: Graph, makers: set[str], kept: Kept) -> dict[str, Sequence[int]]:
  for name, channels in kept.items():
    where = f"channels to keep of layer '{name}'"
    known = [x.name for x in changed if x.name in makers & original.shapes.keys() and not x.shared_with]
    if name not in known:
      raise GraphError(f"{where}: no layer of that name has weights that make its channels{did_you_mean(name, known)}.")
    have, needed = original.shapes[name].channels, changed.shapes[name].channels
    if len(channels) != needed or len(set(channels)) != needed or not all(0 <= i < have for i in channels):
      raise GraphError(
        f"{where}: {list(channels)}; expected {needed} different numbers from 0 to {have - 1}, since '{changed.name}' "
        f"has {needed} of the {have} channels."
      )
  return dict(kept)


# -- labels ----------------------------------------------------------------------------------------------


def channel_labels(graph: Graph, numbers: dict[Hashable, int], makers: set[str], kept: Kept) -> Labels:
  """For every layer, what makes each of its channels.

  Args:
    graph: the original, or the changed network.
    numbers: what makes a channel -> its label; grows, and is the same for both networks.
    makers: layers whose weights make their channels.
    kept: the original's numbers of the channels of these layers; all channels of those that are not named.
  """

  def label(key: Hashable) -> int:
    return numbers.setdefault(key, len(numbers))

  labels = {INPUT: tuple(label((INPUT, i)) for i in range(graph.channels))}
  for layer in graph:
    if layer.name in makers:
      channels = kept.get(layer.shared_with or layer.name, range(graph.shapes[layer.name].channels))
      labels[layer.name] = tuple(label((layer.name, i)) for i in channels)
    elif layer.adds_sources and hands_on(graph, layer, 0):
      labels[layer.name] = labels[layer.inputs[0]]  # whatever is added to them, they are the branch's channels
    else:
      keys = _origins(graph, layer, labels)
      is_copy = layer.copies and all(reads.is_one_to_one for reads in graph.reads(layer))
      labels[layer.name] = tuple(key[0] if is_copy else label((layer.name, key)) for key in keys)
  return labels


def _origins(graph: Graph, layer: Layer, labels: Labels) -> list[Any]:
  """For each channel of a layer that makes none: the labels of the channels that it is taken from. Where the layer mixes
  channels it depends on all of them and on their places; weights, as in [se], go with the channels that they read."""
  origins: list[tuple[Hashable, ...]] = [()] * graph.shapes[layer.name].channels
  for name, reads in zip(layer.inputs, graph.reads(layer), strict=True):
    for start, end, out_start, out_end, how in reads.spans:
      for i in range(out_start, out_end):
        if how is How.KEEP or (
          how is How.WEIGH and len(reads.spans) == end - start == 1
        ):  # depthwise, one channel left
          origins[i] += (labels[name][i - out_start + start],)
        elif how is How.MIX:  # one channel is the same for all that read it
          origins[i] += (labels[name][start] if end - start == 1 else (i, labels[name]),)
  return origins


def _check_sums(original: Graph, changed: Graph, before: Labels, after: Labels) -> None:
  """GraphError if a shortcut of both networks would add other pairs of channels than it was trained with."""
  for layer in changed:
    if layer.adds_sources and layer.name in original.shapes and type(original[layer.name]) is type(layer):
      new = _sums(changed, layer, after) - _sums(original, original[layer.name], before)
      if new:
        raise GraphError(
          f"layer '{layer.name}' ({layer.kind}) would add {len(new)} pairs of channels that '{original.name}' does not "
          f"add. Keep the same channels of {', '.join(layer.inputs)}."
        )


def _sums(graph: Graph, layer: Layer, labels: Labels) -> set[tuple[int, int]]:
  base = labels[layer.inputs[0]]
  return {
    (base[span.out_start + i], labels[name][span.start + i])
    for name, reads in zip(layer.inputs[1:], graph.reads(layer)[1:], strict=True)
    for span in reads.spans
    if span.how is How.KEEP
    for i in range(span.end - span.start)
  }


def _positions(layer: Layer, before: Sequence[int], after: Sequence[int], original: str) -> Positions:
  """Where the channels `after` stand among those `before`. Of equal ones, the second now is the second then."""
  places = collections.defaultdict[int, list[int]](list)
  for i, label in reversed(list(enumerate(before))):
    places[label].append(i)
  if new := sum(max(0, count - len(places[label])) for label, count in collections.Counter(after).items()):
    raise GraphError(
      f"layer '{layer.name}' ({layer.kind}) reads {new} channels that it does not read in '{original}', so "
      "their weights are unknown."
    )
  return np.array([places[label].pop() for label in after], int)


# -- arrays ----------------------------------------------------------------------------------------------


class _Part(NamedTuple):
  """What one layer keeps of its arrays.

  Attributes:
    rows: positions of the channels that it reads among those that it read; None if none of its arrays needs them.
    columns: positions of its channels among those that it had.
    num_read, num_made: channels that it read and had.
  """

  rows: Positions | None
  columns: Positions
  num_read: int
  num_made: int

  def equals(self, other: _Part) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(self[:2], other[:2], strict=True))  # type: ignore[arg-type]

  def of(self, value: NDArray[Any], array: WeightArray, layer: Layer) -> NDArray[Any]:
    """The part of one array."""
    if array.reads is None or self.rows is None:
      return value if array.makes is None else _taken(value, self.columns, array.makes)
    size = value.shape[array.reads]
    if size % self.num_read == 0:  # all channels, of every cell of the input
      rows = (np.arange(0, size, self.num_read)[:, None] + self.rows).reshape(-1)
      value = _taken(value, rows, array.reads)
      return value if array.makes is None else _taken(value, self.columns, array.makes)
    return self._by_group(value, array, layer)

  def _by_group(self, value: NDArray[Any], array: WeightArray, layer: Layer) -> NDArray[Any]:
    """As `of`, for a kernel that has rows for the channels of one group only."""
    assert array.reads is not None
    assert array.makes is not None
    assert self.rows is not None
    size, made = value.shape[array.reads], self.num_made * value.shape[array.reads] // self.num_read
    groups = len(self.rows) // array.array_shape[array.reads]
    if len(self.columns) % groups:
      return value  # more channels than there were; the caller says so
    parts = []
    for rows, columns in zip(np.split(self.rows, groups), np.split(self.columns, groups), strict=True):
      if len({*(rows // size).tolist(), *(columns // made).tolist()}) != 1:
        raise GraphError(
          f"layer '{layer.name}' ({layer.kind}): channels {columns.tolist()} would read channels {rows.tolist()}, of "
          f"another of its groups of {size}, for which they have no weights. Keep whole groups, or as many channels of each."
        )
      parts.append(value.take(rows % size, array.reads).take(columns, array.makes))
    return np.concatenate(parts, array.makes)


def _taken(value: NDArray[Any], positions: Positions, axis: int) -> NDArray[Any]:
  """`value` itself, not a copy of it, where nothing changes."""
  is_whole = np.array_equal(positions, np.arange(value.shape[axis]))
  return value if is_whole else value.take(positions, axis)


def _part(
  original: Graph, old: Layer, changed: Graph, layer: Layer, before: Labels, after: Labels, kept: Kept | None
) -> _Part:
  """`kept` is None for layers that make no channels."""
  made, rows = original.shapes[old.name].channels, None
  num_read = original.shapes[old.inputs[0]].channels if old.inputs else 0
  if any(array.reads is not None for array in layer.arrays(changed.input_shapes(layer))):
    rows = _positions(layer, before[old.inputs[0]], after[layer.inputs[0]], original.name)
  if kept is None:
    columns = _positions(layer, before[old.name], after[layer.name], original.name)
  else:
    chosen = kept.get(layer.shared_with or layer.name, range(changed.shapes[layer.name].channels))
    columns = np.array([i for i in chosen if i < made], int)
  return _Part(rows, columns, num_read, made)
