"""Properties of graphs that nobody wrote down: dumps read back, weights survive, shapes are as announced."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.formats.darknet_training import NET, SECTION_TRAINING, LayerTraining, NetTraining, Training
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import KINDS, Graph
from prn_jax.network import Network, expected_variables, flatten_variables, unflatten_variables
from tests.graph.strategies import DRAW, graphs

bounded = functools.partial(
  settings, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def random_variables(graph: Graph, seed: int = 0) -> dict[str, Any]:
  """Values in [0.5, 1.5], so that variances are positive and nothing explodes."""
  rng = np.random.default_rng(seed)
  shapes = expected_variables(graph)
  return unflatten_variables({key: rng.random(shape, np.float32) + 0.5 for key, shape in shapes.items()})


def test_every_kind_has_a_strategy() -> None:
  assert set(DRAW) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_dump_reads_back(kind: str) -> None:
  @bounded(max_examples=25)
  @given(graphs(last=kind))
  def check(graph: Graph) -> None:
    text = darknet_cfg.dump(graph)
    again = darknet_cfg.parse(text)
    assert again.graph == graph
    assert darknet_cfg.dump(again.graph) == darknet_cfg.dump(again.graph, darknet_cfg.parse(text).training)
    canonical = graph.canonical()
    assert canonical.canonical() == canonical
    assert darknet_cfg.parse(darknet_cfg.dump(canonical)).graph == canonical
    assert graph.layers[-1].kind == kind

  check()


@bounded(max_examples=100)
@given(graphs(branching=True))
def test_branching_graph_is_dumped_with_routes(graph: Graph) -> None:
  sequential = darknet_cfg.sequential(graph)
  assert darknet_cfg.parse(darknet_cfg.dump(graph)).graph == sequential
  assert darknet_cfg.sequential(sequential) == sequential
  assert {layer.kind for layer in set(sequential) - set(graph)} <= {"route"} | {layer.kind for layer in graph}
  totals, same = cost(graph), cost(sequential)
  assert (totals.params, totals.bflops, totals.macs) == (same.params, same.bflops, same.macs)


@bounded(max_examples=60)
@given(
  graphs(branching=True), st.integers(0, 2**32 - 1), st.sampled_from([(0, 2, 5, 8), (0, 1, 0, 4), (0, 1001, 0, 8)])
)
def test_weights_survive(graph: Graph, seed: int, version: tuple[int, int, int, int]) -> None:
  variables = random_variables(graph)
  major, minor, revision, seen_bytes = version
  header = darknet_weights.Header(major, minor, revision, seed, seen_bytes)
  with tempfile.TemporaryDirectory() as folder:
    path, again = Path(folder, "a.weights"), Path(folder, "b.weights")
    darknet_weights.save(path, graph, variables, header)
    floats = cost(graph).weight_file_floats
    assert path.stat().st_size == header.size + 4 * floats
    if path.stat().st_size < 20:  # a network without weights under the shortest header: nothing to read
      return
    loaded = darknet_weights.load(path, graph)
    assert loaded.header == header
    assert loaded.missing == ()
    flat, back = flatten_variables(variables), flatten_variables(loaded.variables)
    assert back.keys() == flat.keys()
    for key, value in back.items():
      np.testing.assert_array_equal(value, flat[key])
    darknet_weights.save(again, graph, loaded.variables, loaded.header)
    assert again.read_bytes() == path.read_bytes()


@bounded(max_examples=60)
@given(graphs(branching=True))
def test_network_has_the_announced_shapes(graph: Graph) -> None:
  x = jax.ShapeDtypeStruct((2, graph.height, graph.width, graph.channels), np.float32)
  run = functools.partial(Network(graph).init_with_output, layers="all")
  outputs, variables = jax.eval_shape(run, jax.random.key(0), x)
  shapes = {key: value.shape for key, value in flatten_variables(dict(variables)).items()}
  assert shapes == expected_variables(graph)
  for layer in graph:
    assert outputs[layer.name].shape == (2, *graph.shapes[layer.name]), layer
    assert outputs[layer.name].dtype == np.float32


@bounded(max_examples=15)
@given(graphs(branching=True, max_layers=4), st.integers(0, 1000))
def test_inserted_routes_compute_the_same(graph: Graph, seed: int) -> None:
  again = darknet_cfg.parse(darknet_cfg.dump(graph)).graph
  variables = random_variables(graph)
  x = np.random.default_rng(seed).random((1, graph.height, graph.width, graph.channels), np.float32)
  one = jax.jit(functools.partial(Network(graph).apply, layers="all"))(variables, x)
  other = jax.jit(functools.partial(Network(again).apply, layers="all"))(variables, x)
  assert {layer.name for layer in graph} <= other.keys()
  for name, value in one.items():
    np.testing.assert_allclose(np.asarray(other[name]), np.asarray(value), rtol=1e-6, atol=1e-6, err_msg=name)


def table(cls: type[Any]) -> st.SearchStrategy[Any]:
  """Instances of a table of training keys; each field is at its default, or anything of its type."""

  def field(default: Any) -> st.SearchStrategy[Any]:
    if isinstance(default, bool):
      return st.booleans()
    if isinstance(default, int):
      return st.integers(-(2**31) + 1, 2**31 - 1)
    if isinstance(default, float):
      return st.floats(allow_nan=False, allow_infinity=False)
    if isinstance(default, str):
      return st.one_of(st.just(default), st.text("aZ_./0=#", min_size=1))
    return st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple)

  fields = {f.name: st.one_of(st.just(f.default), field(f.default)) for f in dataclasses.fields(cls)}
  return st.builds(cls, **fields)


@bounded(max_examples=60)
@given(st.data())
def test_training_settings_survive(data: st.DataObject) -> None:
  graph = data.draw(graphs(max_layers=4, last=data.draw(st.sampled_from(["yolo", "gaussian_yolo", "region", "crop"]))))
  sections = {x.name: data.draw(table(SECTION_TRAINING[x.kind])) for x in graph if x.kind in SECTION_TRAINING}
  layers = {x.name: data.draw(table(LayerTraining)) for x in graph}
  training = Training(
    net=data.draw(table(NetTraining)),
    sections=sections,
    layers={name: keys for name, keys in layers.items() if keys != LayerTraining()},
    extra={NET: {"max_epochs": "3"}},
  )
  again = darknet_cfg.parse(darknet_cfg.dump(graph, training))
  assert again.graph == graph
  assert again.training == training


def test_a_layer_called_net_keeps_its_own_extra_keys() -> None:
  text = """[net]
width=8
height=8
channels=3
seen=7
[conv]
# name = net
filters=2
stream=1
activation=linear
"""
  cfg = darknet_cfg.parse(text)
  assert cfg.training.extra == {NET: {"seen": "7"}, "net": {"stream": "1"}}
  assert darknet_cfg.parse(darknet_cfg.dump(cfg.graph, cfg.training)) == cfg
