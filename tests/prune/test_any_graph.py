"""Any network without any of its units computes what the whole one does in which these are silent.

Networks of all kinds but the quantised ones, whose grids see all channels at once, without zeros around their maps: there the
constants of what goes have the same sum of taps everywhere, and nothing differs (docs/compression.md says what borders cost).
`PRN_GRAPHS=300 pytest tests/prune/test_any_graph.py` tries more than the few of a usual run.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.nested import flattened, nested
from prn_jax.network import Network, init_variables
from prn_jax.prune.cut import cut, silenced
from prn_jax.prune.units import Unit, find_units
from prn_jax.transforms.prune import units_of
from tests.graph.strategies import graphs

NUM_GRAPHS = int(os.environ.get("PRN_GRAPHS", "6"))
QUICK = {"xla_backend_optimization_level": 0}
NO_ZEROS = {"padding": 0, "same": False, "antialiasing": 0}


def without_zeros_around(graph: Graph) -> Graph:
  """The same layers without padding, on an input that is large enough for them."""
  layers = [
    dataclasses.replace(layer, **{key: value for key, value in NO_ZEROS.items() if hasattr(layer, key)})
    for layer in graph
  ]
  for size in (12, 16, 24, 32, 48):
    try:
      return dataclasses.replace(graph, layers=tuple(layers), width=size, height=size)
    except GraphError:
      continue
  assume(False)
  raise AssertionError


def some(graph: Graph, share: float, seed: int) -> list[Unit]:
  """A random share of the units that leaves something of every map."""
  units = find_units(graph)
  random.Random(seed).shuffle(units)
  left = {name: shape.channels for name, shape in graph.shapes.items()}
  chosen: list[Unit] = []
  for unit in units[: round(share * len(units) + 0.5)]:
    names = [name for name, _ in unit.channels]
    if all(left[name] > names.count(name) for name in names):
      chosen.append(unit)
      for name in names:
        left[name] -= 1
  return chosen


def shaken(graph: Graph, seed: int) -> Any:
  """Variables of both signs in which nothing is 0, so that every constant matters; variances stay above 0."""
  rng = np.random.default_rng(seed)
  flat = flattened(init_variables(graph, seed))
  drawn = {key: rng.normal(0, 0.3, value.shape).astype(np.float32) for key, value in flat.items()}
  return nested(
    {key: np.abs(value) + 0.1 + drawn[key] ** 2 if key.endswith("var") else value + drawn[key] for key, value in flat.items()}
  )  # fmt: skip


def outputs(graph: Graph, variables: Any, seed: int) -> dict[str, np.ndarray]:
  x = np.random.default_rng(seed).random((2, graph.height, graph.width, graph.channels), np.float32)
  run = jax.jit(Network(graph, precision=jax.lax.Precision.HIGHEST).apply, compiler_options=QUICK)
  return {name: np.asarray(value) for name, value in run(variables, x).items()}


def check(graph: Graph, gone: Collection[Unit], seed: int) -> None:
  variables = shaken(graph, seed)
  expected = outputs(graph, silenced(graph, variables, gone), seed)
  found = outputs(*cut(graph, variables, gone), seed)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * max(1, np.abs(value).max()), err_msg=name)


@settings(max_examples=NUM_GRAPHS, deadline=None, derandomize=NUM_GRAPHS < 100, suppress_health_check=list(HealthCheck))
@given(graphs("conv", branching=True), st.integers(0, 9))
def test_a_random_network_without_half_of_its_units(drawn: Graph, seed: int) -> None:
  graph = without_zeros_around(drawn)
  assume(not any("quantize" in layer.kind for layer in graph))
  gone = some(graph, 0.5, seed)
  assume(gone)
  check(graph, gone, seed)


def net(build: Callable[[Builder], object]) -> Graph:
  """What `build` adds behind a convolution `a` of 6 channels with batch norm, and a convolution behind that."""
  g = Builder(8, 8)
  g.conv(6, 3, batch_normalize=True, activation="leaky", name="a")
  build(g)
  g.conv(3, name="end")
  return g.graph()


# What a random network shows once in some dozens, each by hand.
GATES: dict[str, Callable[[Builder], object]] = {
  "a factor from one map for all channels": lambda g: (g.conv(1, name="scale"), g.scale_channels("a", scale_wh=True)),
  "squeeze and excite": lambda g: g.se(reduction=2),
  "zeros between the cells of a smaller source": lambda g: (
    g.maxpool(2, 2, padding=0, name="half"), g.conv(6, name="b"), g.upsample(2), g.shortcut("half"),
  ),
}  # fmt: skip


@pytest.mark.parametrize("build", GATES.values(), ids=GATES)
def test_behind_a_gate_a_channel_is_0_before_it_goes(build: Callable[[Builder], object]) -> None:
  """Its constant would be none behind the gate, so that its bias becomes 0 as well."""
  graph = net(build)
  gone = some(graph, 0.5, 1)
  assert any(("a", i) in unit.channels for unit in gone for i in range(6))
  check(graph, gone, 1)


def test_a_channel_that_is_never_0_stays_where_a_gate_follows() -> None:
  """The logistic function of a bias is no 0 for any bias, and the gate's factor comes from the image."""
  graph = net(lambda g: (g.activation(activation="logistic", name="half"), g.se(reduction=2, name="gate")))
  why = "channels of 'a' are never 0 in 'half', and what reads 'gate' needs more than a constant for them"
  assert units_of(graph).fixed["a"] == why
  assert not find_units(graph)


@pytest.mark.parametrize("kind", ["conv", "connected"])
def test_channels_under_one_softmax_stay(kind: str) -> None:
  """Each is a share of their sum: without one of them the others are not what they were."""
  graph = net(lambda g: getattr(g, kind)(4, activation="normalize_channels_softmax", name="shares"))
  assert units_of(graph).fixed["shares"] == "channels of 'shares' go through a rule that holds for all of them together"
  gone = some(graph, 0.5, 1)
  assert {name for unit in gone for name, _ in unit.channels} == {"a"}  # what they read may go
  check(graph, gone, 1)
