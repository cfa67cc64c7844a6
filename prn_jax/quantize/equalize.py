"""Equalisation: factors move from convolutions to those that read them, so that one scale fits all channels.

For a = f(W1 x + b1), y = W2 a + b2 and an activation with f(s x) = s f(x) for s > 0 (linear, relu, leaky), channel i may be
divided by s_i behind the first kernel and multiplied back in the second: the network computes the same. Between them may stand
what keeps factors: sums of such maps (all of a residual stage together), pools, upsampling. With one scale per kernel s_i =
sqrt(r1_i / r2_i), where r2 is the largest weight of the channel in the kernels that read it, and r1 that in those that make it
(Nagel et al. 2019, section 4.1). With a scale per filter, which takes up any factor of a kernel's outputs, s_i = r1_i, the
largest value of the channel on real images, so that every channel fills the grid of its map: kernels of 8 bits lose much less
than maps do (docs/compression.md). Xiao et al. 2023, eq. 4, with alpha = 1; where maps are rounded in front of an
activation, the values in front of it count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.depthwise import Depthwise
from prn_jax.kinds.maxpool import MaxPool
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.kinds.upsample import Upsample
from prn_jax.nested import flattened, nested
from prn_jax.network import Variables
from prn_jax.quantize.calibrate import outputs_of

HOMOGENEOUS = ("linear", "relu", "leaky")
ROUNDS = 10
MOST_FACTOR = 1e4


@dataclasses.dataclass(frozen=True)
class Group:
  """Maps whose channels must have the same factors.

  Attributes:
    maps: layers that give them.
    makers: the convolutions among those.
    readers: the convolutions that read them.
  """

  maps: tuple[str, ...]
  makers: tuple[str, ...]
  readers: tuple[str, ...]


def equalized(graph: Graph, variables: Variables, largest: Mapping[str, np.ndarray] | None = None) -> Variables:
  """The variables of a network without batch norm, equalised. Outputs agree to rounding (1e-5 relative).

  Args:
    graph, variables: the network.
    largest: layer -> largest magnitude of each channel, (out,), see `largest_values`; None: weights decide.
  """
  flat = {key: np.asarray(value) for key, value in flattened(variables).items()}
  for _ in range(ROUNDS if largest is None else 1):
    for group in groups(graph):
      _equalize(graph, flat, group, largest)
  return nested(flat)


def largest_values(
  graph: Graph, variables: Variables, batches: Sequence[np.ndarray], *, in_front: bool = False
) -> dict[str, np.ndarray]:
  """Layer of a group -> largest magnitude of each channel of its output on these images; `in_front`: in front of its leaky
  slope, which makes ten times as much of values below 0."""
  names = [name for group in groups(graph) for name in group.maps]
  found: dict[str, np.ndarray] = {}
  if not names:
    return found
  run = outputs_of(graph, names)
  for images in batches:
    for name, values in run(variables, images).items():
      layer, y = graph[name], np.asarray(values)
      slope = layer.leaky_slope if in_front and getattr(layer, "activation", "") == "leaky" else 1.0  # type: ignore[attr-defined]
      top = np.maximum(y.max((0, 1, 2)), -y.min((0, 1, 2)) / slope)
      found[name] = np.maximum(found.get(name, top), top)
  return found


def groups(graph: Graph) -> list[Group]:
  """The groups of a network, in the order of their first map."""
  roots: dict[str, str] = {}

  def root(name: str) -> str:
    while roots.get(name, name) != name:
      name = roots[name]
    return name

  for layer in graph:
    if _keeps_factors(graph, layer):
      for name in layer.inputs:
        roots[root(layer.name)] = root(name)
  plain = _plain_convolutions(graph)
  members: dict[str, list[str]] = {}
  refused = {root(INPUT), *(root(head.name) for head in graph.heads)}
  readers: dict[str, list[str]] = {}
  for layer in graph:
    members.setdefault(root(layer.name), []).append(layer.name)
    keeps = _keeps_factors(graph, layer)
    makes = layer.name in plain and layer.activation in HOMOGENEOUS  # type: ignore[attr-defined]
    if not (keeps or makes):
      refused.add(root(layer.name))
    for name in () if keeps else layer.inputs:
      if layer.name in plain and _groups(graph, layer) in (1, graph.shapes[name].channels):
        readers.setdefault(root(name), []).append(layer.name)
      else:
        refused.add(root(name))
  return [
    Group(tuple(maps), tuple(name for name in maps if name in plain), tuple(readers[key]))
    for key, maps in members.items()
    if key not in refused and key in readers
  ]


def _plain_convolutions(graph: Graph) -> set[str]:
  """Convolutions whose kernel is theirs alone, without batch norm."""
  shared = {layer.shared_with for layer in graph}
  return {
    layer.name
    for layer in graph
    if isinstance(layer, Conv | Depthwise)
    and not (layer.shared_with or layer.name in shared or layer.has_batchnorm or getattr(layer, "antialiasing", False))
  }


def _keeps_factors(graph: Graph, layer: Layer) -> bool:
  """True if factors of the channels of all inputs are those of the output."""
  same = all(graph.shapes[name].channels == graph.shapes[layer.name].channels for name in layer.inputs)
  if isinstance(layer, Shortcut):
    return same and layer.weights_type == "none" and layer.activation in HOMOGENEOUS
  if isinstance(layer, MaxPool):
    return not (layer.depth_out or layer.antialiasing)
  return isinstance(layer, Upsample) or (layer.copies and len(layer.inputs) == 1 and same)


def _groups(graph: Graph, layer: Layer) -> int:
  return layer.groups if isinstance(layer, Conv) else graph.input_shapes(layer)[0].channels


def _equalize(
  graph: Graph, flat: dict[str, np.ndarray], group: Group, largest: Mapping[str, np.ndarray] | None
) -> None:
  channels = graph.shapes[group.maps[0]].channels
  kernels = {name: f"params/{name}/conv/kernel" for name in (*group.makers, *group.readers)}
  each = {name: _groups(graph, graph[name]) > 1 for name in group.readers}
  if largest is None:
    out = np.max([np.abs(flat[kernels[name]]).max((0, 1, 2)) for name in group.makers], 0)
  else:
    out = np.max([largest[name] for name in group.maps], 0)
  into = np.max([_by_input(flat[kernels[name]], channels, each[name]) for name in group.readers], 0)
  is_used = (out > 0) & (into > 0)
  if largest is not None:
    factor = np.where(is_used, out, out.max() or 1)
    factor = factor / np.exp(np.log(factor).mean())
  else:
    factor = np.sqrt(np.where(is_used, out, 1) / np.where(is_used, into, 1))
  factor = factor.clip(1 / MOST_FACTOR, MOST_FACTOR).astype(np.float32)
  for name in group.makers:
    bias = f"params/{name}/conv/bias"
    flat[kernels[name]], flat[bias] = flat[kernels[name]] / factor, flat[bias] / factor
  for name in group.readers:
    kernel = flat[kernels[name]]
    flat[kernels[name]] = kernel * (np.repeat(factor, kernel.shape[3] // channels) if each[name] else factor[:, None])


def _by_input(kernel: np.ndarray, channels: int, is_each: bool) -> np.ndarray:
  """The largest weight of each channel of the input; where a filter reads but one, filters i * m to (i + 1) * m - 1 are
  those of channel i."""
  if is_each:
    return np.abs(kernel).max((0, 1, 2)).reshape(channels, -1).max(1)
  return np.abs(kernel).max((0, 1, 3))
