"""The graph's answer to "which gradients arrive where" against automatic differentiation of the real lowering.

Random small networks are linear here (no activation, no batch norm) and all kernels are 1, so gradients never cancel.
Each layer's kernel is scaled by a number per input channel, and so is the loss. A path of the gradient is then a
product of these scales, so a gradient is a multilinear polynomial in them, and
- switching sets of layers on and off gives the coefficient of every set: the paths that pass just these layers;
- the Jacobian of the gradients with respect to the scales of one layer, with all layers in front of it switched off,
  shows to which channels of which layers its gradient goes at once.
Maps are 1x1 and all numbers small integers (quarters behind a sigmoid), so zero is exactly zero.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from prn_jax.graph.builder import Builder
from prn_jax.graph.gradients import LOSS, gradients, is_step
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, init_variables

MOST_STEPS = 6
Scales = dict[str, Any]


def random_graph(seed: int) -> Graph:
  """Up to six convolutions (some grouped, some depthwise) and matrix products between shortcuts and routes that read
  any earlier layer; every second one has two losses."""
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
      sources = [rng.choice(names) for _ in range(rng.randint(1, 3))]
      groups = rng.choice([d for d in (1, 1, 2, 3) if all(g.shape(s).channels % d == 0 for s in sources)])
      g.route(*sources, groups=groups, group_id=rng.randrange(groups))
    else:
      g.dropout()
    names.append(g.last)
    steps += kind in ("conv", "grouped", "connected")
  if seed % 2:
    g.conv(5)
    g.yolo(0, ((1.0, 1.0),), name="head1")
    g.route(rng.choice(names))
    g.conv(5)
    g.yolo(0, ((1.0, 1.0),), name="head2")
  return g.graph()


def gradients_at_biases(graph: Graph) -> Callable[[Scales], dict[str, jax.Array]]:
  """scales -> gradient at the output of every layer with a kernel, (channels,) each."""
  variables = init_variables(graph)
  variables = jax.tree.map(lambda x: np.ones_like(x), variables)
  for leaves in variables["params"].values():
    (next(iter(leaves.values())))["bias"][:] = 0
  network = Network(graph)
  image = np.zeros((1, 1, 1, graph.channels), np.float32)

  def loss(biases: Scales, scales: Scales) -> jax.Array:
    params = {}
    for name, leaves in variables["params"].items():
      ((group, values),) = leaves.items()
      kernel = values["kernel"]
      groups = getattr(graph[name], "groups", 1)
      per_group = scales[name].reshape(groups, -1)  # input channels of each group
      of_output = per_group.repeat(kernel.shape[-1] // groups, axis=0).T.reshape(kernel.shape)
      params[name] = {group: {"kernel": kernel * of_output, "bias": biases[name]}}
    outputs = network.apply({"params": params}, image)
    return sum((outputs[head.name].reshape(-1) * scales[LOSS + head.name]).sum() for head in graph.heads)

  zeros = {name: np.zeros(graph.shapes[name].channels, np.float32) for name in variables["params"]}
  return lambda scales: jax.grad(loss)(zeros, scales)


def all_scales(graph: Graph, steps: list[str], on: set[str]) -> Scales:
  """Scale 1 for the losses and for the layers in `on`, 0 for the others."""
  scales = {LOSS + head.name: np.ones(graph.shapes[head.name].channels, np.float32) for head in graph.heads}
  for name in steps:
    channels = graph.shapes[graph[name].inputs[0]].channels
    scales[name] = np.full(channels, float(name in on), np.float32)
  return scales


def stacked(items: list[Scales]) -> Scales:
  return {name: np.stack([item[name] for item in items]) for name in items[0]}


SEEDS = (0, 3, 6, 8, 10, 11)  # with partial gradients into grouped convolutions, and sources cut in parts


@pytest.mark.parametrize("seed", SEEDS)
def test_timestamps_and_sources(seed: int) -> None:
  """The coefficient of every set of layers, by inclusion and exclusion: |set| + 1 is the timestamp, and the layer of
  the set that comes first in the graph is the source."""
  graph = random_graph(seed)
  steps = [layer.name for layer in graph if is_step(graph, layer)]
  subsets = [{s for j, s in enumerate(steps) if i >> j & 1} for i in range(2 ** len(steps))]
  run = jax.jit(jax.vmap(gradients_at_biases(graph)))
  found = {
    k: np.asarray(v, np.float64) for k, v in run(stacked([all_scales(graph, steps, s) for s in subsets])).items()
  }
  assert all(values.max() < 2**22 for values in found.values())  # quarters up to there are exact in float32
  for layer in gradients(graph):
    coefficient = found[layer.name].copy()
    for j in range(len(steps)):  # Moebius transform over subsets
      for i in range(len(subsets)):
        if i >> j & 1:
          coefficient[i] -= coefficient[i ^ (1 << j)]
    for part in layer.ranges:
      for channel in range(part.start, part.end):
        paths = [subset for subset, value in zip(subsets, coefficient[:, channel], strict=True) if value]
        assert {len(subset) + 1 for subset in paths} == set(part.timestamps), (layer.name, channel)
        last = {min(subset, key=steps.index) if subset else LOSS for subset in paths}
        assert last == {LOSS if s.startswith(LOSS) else s for s in part.sources}, (layer.name, channel)


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_of_sources(seed: int) -> None:
  """The Jacobian's zero pattern: channel c of the gradient that a source emits reaches these channels of these layers.
  Channels of one source that reach the same layers are one part."""
  graph = random_graph(seed)
  steps = [layer.name for layer in graph if is_step(graph, layer)]
  sources = [*(LOSS + head.name for head in graph.heads), *steps]
  behind = lambda s: set(steps[steps.index(s) :]) if s in steps else set()  # noqa: E731
  settings = stacked([all_scales(graph, steps, behind(source)) for source in sources])
  jacobians = jax.jit(jax.vmap(jax.jacfwd(gradients_at_biases(graph))))(settings)
  delivered = {
    source: {name: np.asarray(jacobians[name][source][i]) != 0 for name in steps} for i, source in enumerate(sources)
  }
  for layer in gradients(graph):
    combination: dict[int, frozenset[Any]] = {}
    for channel in range(layer.shape.channels):
      arrived = []
      for source in sources:
        reach = np.stack([delivered[source][name].any(axis=0) for name in steps])  # (layers, channels of the source)
        for c in np.flatnonzero(delivered[source][layer.name][channel]):
          arrived.append((source, tuple(reach[:, c])))
      combination[channel] = frozenset(arrived)
    assert layer.source_combinations == len({c for c in combination.values() if c}), layer.name
    for part in layer.ranges:
      for channel in range(part.start, part.end):
        assert {source for source, _ in combination[channel]} == set(part.sources)
        assert len(combination[channel]) == len(part.parts), (layer.name, channel)
        assert combination[channel] == combination[part.start]
