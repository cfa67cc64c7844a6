"""Networks without some units compute what the whole ones do in which these are silent."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import pytest

from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.models import build_graph
from prn_jax.network import Network, init_variables
from prn_jax.prune.constants import offsets_of
from prn_jax.prune.cut import cut, silenced
from prn_jax.prune.units import Unit, find_units
from tests.graph.test_coupling import random_net
from tests.nets import random_model, tiny_detector

QUICK = {"xla_backend_optimization_level": 0}


def outputs(graph: Graph, variables: Any, x: np.ndarray) -> dict[str, np.ndarray]:
  run = jax.jit(Network(graph, precision=jax.lax.Precision.HIGHEST).apply, compiler_options=QUICK)
  return {name: np.asarray(value) for name, value in run(variables, x).items()}


def some(graph: Graph, units: Collection[Unit], share: float, seed: int) -> list[Unit]:
  """A random share of the units that leaves something of every map."""
  rng, chosen = random.Random(seed), list[Unit]()
  left = {name: shape.channels for name, shape in graph.shapes.items()}
  for unit in rng.sample(list(units), len(units)):
    lost: dict[str, int] = {}
    for name, _ in unit.channels:
      lost[name] = lost.get(name, 0) + 1
    if len(chosen) < share * len(units) and all(lost[name] < left[name] for name in lost):
      chosen.append(unit)
      left.update({name: left[name] - count for name, count in lost.items()})
  return chosen


def shaken(graph: Graph, seed: int) -> Any:
  """Variables in which nothing is 0, so that every constant matters."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32) ** 2 / 9, init_variables(graph, seed))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int) -> None:
  """Every kind of layer; half of the units at a time. Without padding nothing differs at borders."""
  graph = random_net(seed)
  units = find_units(graph)
  gone = some(graph, units, 0.5, seed)
  variables, x = shaken(graph, seed), np.random.default_rng(seed).random((2, 4, 4, 3), np.float32)
  expected = outputs(graph, silenced(graph, variables, gone), x)["end"]
  found = outputs(*cut(graph, variables, gone), x)["end"]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("yolov3-mobilenetv3", "ghostnet-prn", "resnext50")]


@pytest.mark.parametrize("name", ["yolov3-tiny-prn", "yolov4-tiny", *SLOW])
def test_a_third_of_a_real_network(name: str) -> None:
  """With biases of 0 the silent channels of usual activations are 0, and borders are no matter."""
  size = 64
  graph = build_graph(name, width=size, height=size)
  gone = some(graph, find_units(graph), 0.3, 1)
  variables, x = init_variables(graph, 1), np.random.default_rng(0).random((1, size, size, 3), np.float32)
  expected = outputs(graph, silenced(graph, variables, gone), x)
  compact, fewer = cut(graph, variables, gone)
  found = outputs(compact, fewer, x)
  for head, value in expected.items():
    np.testing.assert_allclose(found[head], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=head)
  assert 0.4 < cost(compact).params / cost(graph).params < 0.85


def test_constants_are_carried_on_but_for_borders() -> None:
  """What carrying is worth: the inside of the map is exact, the border is nearer than without, whatever the bias."""
  graph = tiny_detector(96)
  model = random_model(graph)
  gone = some(graph, find_units(graph), 0.4, 3)
  assert offsets_of(graph, silenced(graph, model.variables, gone), gone)
  x = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
  expected = outputs(graph, silenced(graph, model.variables, gone), x)["p4_yolo"]
  found = outputs(*cut(graph, model.variables, gone), x)["p4_yolo"]
  inside = np.abs(found - expected)[:, 4:-4, 4:-4].max()
  assert inside < 1e-4 * np.abs(expected).max()
  assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()
