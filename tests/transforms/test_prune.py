"""Networks without some of their channels: public cfgs and registered models by shapes and by numbers, and random networks.

`PRN_PRUNE_ALL=1 pytest tests/transforms/test_prune.py` takes all of them; else some of each family.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prn_jax.errors import GraphError
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.loading import load
from prn_jax.models import build_graph, list_models
from prn_jax.nested import flattened, nested
from prn_jax.network import Network, Variables, init_variables
from prn_jax.prune import cut as pruning
from prn_jax.prune.units import find_units
from prn_jax.transforms.prune import Unit, cut, kept_channels, silenced, units_of, without_channels
from tests.conftest import NO_DATA, SHARED
from tests.graph.strategies import graphs
from tests.graph.test_coupling import random_net

CFGS = {path.stem: path for path in sorted((SHARED / "cfg").glob("*.cfg"))} if SHARED else {}
FAST = ("yolov3-tiny-prn", "yolov4-tiny", "yolov3-tiny")
SOME_CFGS = (
  "yolov4-csp-s-mish", "yolov4-sam-mish-csp-reorg-bfm", "yolov3.coco-giou-12", "enet-coco", "yolov7-tiny", "darknet",
  "yolov2-tiny", "Gaussian_yolov3_BDD", "writing", "alexnet",
)  # fmt: skip
SOME_MODELS = (
  "yolov3-ghostnet", "mobilenetv3-large", "efficientnet-lite0-prn", "enet-b0-prn", "darknet53", "pelee-prn",
  "resnext50", "densenet121", "yolov4-csp",
)  # fmt: skip
ALL = bool(os.environ.get("PRN_PRUNE_ALL"))


def chosen(some: Collection[str], known: Collection[str]) -> list[Any]:
  """All of the known names, or those of `some` that are known: those that take seconds are slow."""
  return [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in known if ALL or n in some or n in FAST]


def some_units(graph: Graph, share: float, seed: int) -> list[Unit]:
  """A share of the units, at random, that leaves something of every map."""
  free = list(units_of(graph).free)
  random.Random(seed).shuffle(free)
  left = {name: shape.channels for name, shape in graph.shapes.items()}
  chosen: list[Unit] = []
  for unit in free:
    names = [name for name, _ in unit]
    if len(chosen) >= share * len(free):
      break
    if all(left[name] > names.count(name) for name in set(names)):
      chosen.append(unit)
      for name in names:
        left[name] -= 1
  return chosen


def predicted(graph: Graph, units: list[Unit]) -> tuple[int, int]:
  """Parameters, and multiply-adds of convolutions, by counting the channels that are left."""
  left = {name: len(kept) for name, kept in kept_channels(graph, {c for unit in units for c in unit}).items()}
  share = {name: Fraction(left[name], shape.channels) for name, shape in graph.shapes.items()}
  params = macs = Fraction(0)
  for layer in graph:
    made, read = share[layer.name], share[layer.inputs[0]] if layer.inputs else Fraction(1)
    in_groups = getattr(layer, "groups", 1) > 1 or layer.kind == "depthwise"  # a kernel reads its group only
    for array in graph.arrays(layer):
      if array.collection == "params":
        is_read = array.reads is not None and not in_groups
        params += array.size * (made if array.makes is not None else 1) * (read if is_read else 1)
    if layer.kind in ("conv", "depthwise"):
      macs += layer.macs(graph.input_shapes(layer), graph.shapes[layer.name]) * made * (1 if in_groups else read)
  return int(params), int(macs)


def check_shapes(graph: Graph) -> None:
  units = some_units(graph, 0.3, seed=1)
  changed = without_channels(graph, units)
  params, macs = predicted(graph, units)
  found = cost(changed)
  assert found.params == params
  assert sum(row.macs for row in found.layers if row.layer.kind in ("conv", "depthwise")) == macs
  text = darknet_cfg.dump(changed)
  assert darknet_cfg.parse(text).graph.canonical() == darknet_cfg.sequential(changed).canonical()


@pytest.mark.skipif(not CFGS, reason=NO_DATA)
@pytest.mark.parametrize("name", chosen(SOME_CFGS, CFGS) or ["none"])
def test_a_public_cfg_without_a_third_of_its_units(name: str) -> None:
  check_shapes(load(CFGS[name]).graph)


@pytest.mark.parametrize("name", chosen(SOME_MODELS, list_models()))
def test_a_registered_model_without_a_third_of_its_units(name: str) -> None:
  check_shapes(build_graph(name))


def test_the_chosen_ones_exist() -> None:
  assert not CFGS or set(SOME_CFGS) <= CFGS.keys()
  assert set(SOME_MODELS) <= set(list_models())


def noisy(graph: Graph, seed: int) -> Variables:
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32) ** 2 / 9, init_variables(graph))


def outputs(graph: Graph, variables: Variables, seed: int = 0) -> dict[str, np.ndarray]:
  x = np.random.default_rng(seed).random((1, graph.height, graph.width, graph.channels), np.float32)
  run = jax.jit(Network(graph, precision="highest").apply, compiler_options={"xla_backend_optimization_level": 0})
  return jax.tree.map(np.asarray, run(variables, x))


def check_numbers(graph: Graph, seed: int) -> int:
  units = some_units(graph, 0.3, seed)
  quiet = silenced(graph, noisy(graph, seed), units)
  changed, variables = cut(graph, quiet, units)
  before, after = outputs(graph, quiet), outputs(changed, variables)
  for name, expected in before.items():
    np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
  return len(units)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5])
def test_a_random_network_without_units_computes_what_the_silent_one_does(seed: int) -> None:
  assert check_numbers(random_net(seed), seed)


def small(graph: Graph) -> Graph:
  """The same weights on smaller images, where the network can have them."""
  for size in (32, 64, 128, 256):
    try:
      resized = graph.resized(size, size)
    except GraphError:  # a map too small for what follows
      continue
    if all(resized.arrays(a) == graph.arrays(b) for a, b in zip(resized, graph, strict=True)):
      return resized
  return graph


def check_a_network(graph: Graph, seed: int = 3) -> None:
  """What `prn prune` cuts, with every scale another. Biases in front of activations are 0: nothing differs at borders."""
  graph = small(graph)
  rng = np.random.default_rng(seed)
  flat = flattened(init_variables(graph, seed))
  scaled = {k: v * rng.uniform(0.5, 1.5, v.shape).astype(np.float32) for k, v in flat.items()}
  variables = nested(scaled)
  units = {channels: unit for unit in find_units(graph) for channels in [unit.channels]}
  gone = [units[channels] for channels in some_units(graph, 0.3, seed) if channels in units]
  before = outputs(graph, pruning.silenced(graph, variables, gone))
  after = outputs(*pruning.cut(graph, variables, gone))
  assert gone
  for name, expected in before.items():
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))


COMPUTED = ("traffic-tiny-prn", "mobilenetv3-small")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if ALL or name in COMPUTED])
def test_a_model_without_units_computes_what_the_silent_one_does(name: str) -> None:
  check_a_network(build_graph(name))


@pytest.mark.slow
@pytest.mark.skipif(not CFGS, reason=NO_DATA)
@pytest.mark.parametrize("name", [name for name in CFGS if ALL or name == "yolov4-tiny"] or ["none"])
def test_a_cfg_without_units_computes_what_the_silent_one_does(name: str) -> None:
  check_a_network(load(CFGS[name]).graph)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(graphs("conv", branching=True), st.integers(0, 9))
def test_any_graph_builds_without_some_of_its_units(graph: Graph, seed: int) -> None:
  units = some_units(graph, 0.5, seed)
  assume(units)
  variables = init_variables(graph)
  changed, kept = cut(graph, variables, units)
  gone = {channel for unit in units for channel in unit}
  for name, shape in changed.shapes.items():
    assert shape.channels == len(kept_channels(graph, gone)[name])
  for layer in changed:
    for array in changed.arrays(layer):
      assert flattened(kept)[array.key(layer.name)].shape == array.array_shape


def test_one_channel_of_a_depthwise_convolution_is_left() -> None:
  """By its fields it is an ordinary convolution then; its kernel is that of the channel."""
  g = Builder(4, 4)
  g.conv(2, name="a")
  g.conv(2, 3, padding=1, groups=2, name="depthwise")
  g.conv(3, name="end")
  graph = g.graph()
  variables = init_variables(graph)
  changed, left = cut(graph, variables, [units_of(graph).free[0]])
  kernel = "params/depthwise/conv/kernel"
  np.testing.assert_array_equal(flattened(left)[kernel], flattened(variables)[kernel][..., 1:])
  assert changed["depthwise"].groups == 1


def test_nothing_changes_without_units() -> None:
  graph = build_graph("yolov3-tiny-prn")
  variables = init_variables(graph)
  changed, same = cut(graph, variables, [])
  assert changed is graph
  assert all(value is flattened(variables)[key] for key, value in flattened(same).items())


def test_what_stays_is_said() -> None:
  found = units_of(build_graph("yolov3-tiny-prn"))
  assert "image" in found.fixed["input"]
  head = next(layer for layer in build_graph("yolov3-tiny-prn").heads)
  assert head.name in found.fixed[head.inputs[0]]


def test_a_map_keeps_a_channel() -> None:
  g = Builder(4, 4)
  g.conv(2, name="a")
  g.conv(3, name="end")
  graph = g.graph()
  with pytest.raises(GraphError, match="nothing would be left of layer 'a'"):
    without_channels(graph, units_of(graph).free)


def test_half_a_unit_is_refused() -> None:
  g = Builder(4, 4)
  g.conv(4, name="a")
  g.conv(4, name="b")
  g.shortcut("a", name="sum")
  g.conv(3, name="end")
  with pytest.raises(GraphError, match="give whole units"):
    without_channels(g.graph(), [(("sum", 1),)])
