"""Warm starts that keep any channels, not only the leading ones."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.coupling import coupled_channels
from prn_jax.graph.graph import Graph
from prn_jax.model import Model
from prn_jax.network import init_variables
from prn_jax.transforms.stages import with_filters
from prn_jax.transforms.warm_start import warm_start
from tests.nets import random_model


def net(a: int = 4, b: int = 6, groups: int = 1) -> Graph:
  """A convolution and a pool, two convolutions that read it, their sum, and a matrix product over the 2x2 map."""
  g = Builder(4, 4, name="net")
  g.conv(a, 3, padding=1, batch_normalize=True, name="a")
  pool = g.maxpool(2, 2, name="pool")
  c = g.conv(b, name="c")
  g.route(pool)
  g.conv(b, groups=groups, name="b")
  g.shortcut(c, weights_type="per_channel", weights_normalization="relu", name="sum")
  g.batchnorm(name="norm")
  g.connected(3, name="end")
  return g.graph()


def numbered(graph: Graph) -> dict[str, object]:
  variables = init_variables(graph)
  for tree in variables.values():
    for layer in tree.values():
      for module, leaves in layer.items():
        if isinstance(leaves, dict):
          leaves.update({leaf: np.arange(x.size, dtype=np.float32).reshape(x.shape) for leaf, x in leaves.items()})
        else:
          layer[module] = np.arange(leaves.size, dtype=np.float32).reshape(leaves.shape)
  return variables


def test_any_channels_in_any_order() -> None:
  graph = net()
  variables = numbered(graph)
  changed = with_filters(graph, {"a": 2, "b": 3, "c": 3})
  found = warm_start(graph, variables, changed, {"a": [3, 1], "b": [5, 0, 2], "c": [5, 0, 2]})
  old, new = variables["params"], found["params"]
  np.testing.assert_array_equal(new["a"]["conv"]["kernel"], old["a"]["conv"]["kernel"][..., [3, 1]])
  np.testing.assert_array_equal(found["batch_stats"]["a"]["bn"]["var"], [3, 1])
  np.testing.assert_array_equal(new["b"]["conv"]["kernel"], old["b"]["conv"]["kernel"][:, :, [3, 1]][..., [5, 0, 2]])
  np.testing.assert_array_equal(new["b"]["conv"]["bias"], [5, 0, 2])
  np.testing.assert_array_equal(new["sum"]["weights"], old["sum"]["weights"][:, [5, 0, 2]])
  np.testing.assert_array_equal(new["norm"]["bn"]["scale"], [5, 0, 2])
  rows = [cell * 6 + channel for cell in range(4) for channel in (5, 0, 2)]  # of 2x2 cells with six channels each
  np.testing.assert_array_equal(new["end"]["dense"]["kernel"], old["end"]["dense"]["kernel"][rows])


def test_leading_channels_are_the_default_of_each_group() -> None:
  graph = net(groups=2)
  variables = numbered(graph)
  changed = with_filters(graph, {"b": 4, "c": 4})
  found = warm_start(graph, variables, changed)["params"]
  np.testing.assert_array_equal(found["b"]["conv"]["bias"], [0, 1, 3, 4])
  np.testing.assert_array_equal(found["norm"]["bn"]["scale"], [0, 1, 3, 4])


def test_a_group_goes_as_a_whole() -> None:
  """Two of the three groups of two inputs and outputs stay, and one input and output of each of two groups."""
  graph = net(a=6, groups=3)
  variables = numbered(graph)
  kernel = variables["params"]["b"]["conv"]["kernel"]
  whole = warm_start(
    graph, variables, net(a=4, b=4, groups=2), {"a": [0, 1, 4, 5], "b": [0, 1, 4, 5], "c": [0, 1, 4, 5]}
  )
  np.testing.assert_array_equal(whole["params"]["b"]["conv"]["kernel"], kernel[..., [0, 1, 4, 5]])
  thin = warm_start(graph, variables, net(a=3, b=3, groups=3), {"a": [1, 2, 5], "b": [0, 3, 4], "c": [0, 3, 4]})
  rows = [[1, 0, 1], [0, 3, 4]]
  np.testing.assert_array_equal(thin["params"]["b"]["conv"]["kernel"][0, 0, 0], kernel[0, 0][tuple(rows)])


def test_channels_of_another_group() -> None:
  graph = net(a=6, groups=3)
  message = (
    "layer 'b' (conv): channels [0, 1] would read channels [2, 3], of another of its groups of 2, for which they have no "
    "weights. Keep whole groups, or as many channels of each."
  )
  with pytest.raises(GraphError, match=re.escape(message)):
    warm_start(
      graph, init_variables(graph), net(a=4, b=4, groups=2), {"a": [2, 3, 4, 5], "b": [0, 1, 4, 5], "c": [0, 1, 4, 5]}
    )


def test_a_learned_vector_keeps_any_channels() -> None:
  def build(width: int) -> Graph:
    g = Builder(4, 4, name="vectors")
    g.conv(width, name="a")
    mean = g.avgpool(name="mean")
    g.implicit(filters=width, name="vector")
    g.sam(mean, name="product")
    g.conv(2, name="end")
    return g.graph()

  variables = numbered(build(4))
  found = warm_start(build(4), variables, build(2), {"a": [1, 3], "vector": [1, 3]})["params"]
  np.testing.assert_array_equal(found["vector"]["vector"].reshape(-1), [1, 3])
  np.testing.assert_array_equal(
    found["end"]["conv"]["kernel"], variables["params"]["end"]["conv"]["kernel"][:, :, [1, 3]]
  )
  with pytest.raises(GraphError, match=r"layer 'end' \(conv\) reads 2 channels that it does not read in 'vectors'"):
    warm_start(build(4), variables, build(2), {"a": [1, 3], "vector": [3, 1]})  # a product of others


def test_a_sum_adds_the_pairs_that_it_added() -> None:
  def build(width: int) -> Graph:
    g = Builder(4, 4, name="residual")
    a = g.conv(width, name="a")
    g.conv(width, name="b")
    g.shortcut(a, name="sum")
    g.conv(2, name="end")
    return g.graph()

  variables = numbered(build(4))
  warm_start(build(4), variables, build(2), {"a": [1, 3], "b": [1, 3]})
  message = (
    "layer 'sum' (shortcut) would add 1 pairs of channels that 'residual' does not add. Keep the same channels of b, a."
  )
  with pytest.raises(GraphError, match=re.escape(message)):
    warm_start(build(4), variables, build(2), {"a": [1, 3], "b": [1, 2]})


def shared(width: int) -> Graph:
  g = Builder(4, 4, name="shared")
  g.conv(width, name="a")
  g.conv(width, name="b")
  g.conv(width, share="b", name="again")
  g.conv(2, name="end")
  return g.graph()


def test_who_shares_weights_keeps_the_same_channels() -> None:
  graph = shared(4)
  variables = numbered(graph)
  found = warm_start(graph, variables, shared(2), {"a": [1, 3], "b": [1, 3]})["params"]
  np.testing.assert_array_equal(
    found["b"]["conv"]["kernel"], variables["params"]["b"]["conv"]["kernel"][..., [1, 3]][:, :, [1, 3]]
  )
  np.testing.assert_array_equal(
    found["end"]["conv"]["kernel"], variables["params"]["end"]["conv"]["kernel"][:, :, [1, 3]]
  )
  message = (
    "layer 'again' (conv) shares the weights of 'b', but not all channels that it reads and makes are the same ones. Keep "
    "the same channels of both, and of what they read."
  )
  with pytest.raises(GraphError, match=re.escape(message)):
    warm_start(graph, variables, shared(2), {"a": [0, 1], "b": [1, 3]})


@pytest.mark.parametrize(
  ("kept", "message"),
  [
    ({"x": [0]}, "channels to keep of layer 'x': no layer of that name has weights that make its channels."),
    ({"pool": [0, 1]}, "channels to keep of layer 'pool': no layer of that name has weights that make its channels."),
    (
      {"a": [0, 1, 2]},
      "channels to keep of layer 'a': [0, 1, 2]; expected 2 different numbers from 0 to 3, since 'net' has 2 of the 4",
    ),
    ({"a": [1, 1]}, "channels to keep of layer 'a': [1, 1]; expected 2 different numbers from 0 to 3"),
    ({"a": [1, 4]}, "channels to keep of layer 'a': [1, 4]; expected 2 different numbers from 0 to 3"),
  ],
)
def test_what_cannot_be_kept(kept: dict[str, list[int]], message: str) -> None:
  graph = net()
  with pytest.raises(GraphError, match=re.escape(message)):
    warm_start(graph, init_variables(graph), with_filters(graph, {"a": 2}), kept)


def test_a_softmax_holds_for_all_its_channels_only() -> None:
  """What is behind it is another feature when a channel goes; as long as none goes, it is the same."""

  def build(width: int) -> Graph:
    g = Builder(4, 4, name="weighed")
    g.conv(width, name="a")
    g.softmax(name="softmax")
    g.conv(2, name="end")
    return g.graph()

  graph, variables = build(4), numbered(build(4))
  np.testing.assert_equal(warm_start(graph, variables, build(4)), variables)
  with pytest.raises(GraphError, match=r"layer 'end' \(conv\) reads 3 channels that it does not read in 'weighed'"):
    warm_start(graph, variables, build(3))


def excited() -> Graph:
  """A depthwise convolution and [se] between two convolutions, and a residual around them."""
  g = Builder(6, 6, name="excited")
  g.conv(8, 3, padding=1, activation="relu", name="a")
  g.depthwise(8, 3, padding=1, batch_normalize=True, activation="h_swish", name="b")
  g.se(reduction=2, biased=True, name="c")
  g.shortcut("a", name="d")
  g.conv(5, name="e")
  return g.graph()


def test_channels_behind_squeeze_and_excitation_go_together() -> None:
  """Channel i of the convolution, of its filter, of its factor and of the sum; any of them may go."""
  sets = [each for each in coupled_channels(excited()) if ("a", 3) in each.channels]
  assert [(each.channels, each.is_fixed) for each in sets] == [(tuple((name, 3) for name in "abcd"), False)]


def test_a_network_is_cut_through_squeeze_and_excitation() -> None:
  """Without channels 1 and 5, whose weights were 0: rows and columns of both products go, and nothing changes."""
  model = random_model(excited())
  variables = jax.tree.map(np.array, model.variables)
  gone, kept = [1, 5], [0, 2, 3, 4, 6, 7]
  for tree, layer, leaf in (("params", "a", "conv"), ("params", "b", "bn"), ("batch_stats", "b", "bn")):
    for key, value in variables[tree][layer][leaf].items():
      value[..., gone] = 1 if key == "var" else 0
  graph = with_filters(model.graph, {"a": 6})
  assert (graph["b"].filters, graph["c"].squeezed) == (6, 4)
  cut = warm_start(model.graph, variables, graph, {"a": kept})
  np.testing.assert_array_equal(
    cut["params"]["c"]["reduce"]["kernel"], variables["params"]["c"]["reduce"]["kernel"][kept]
  )
  np.testing.assert_array_equal(
    cut["params"]["c"]["expand"]["kernel"], variables["params"]["c"]["expand"]["kernel"][:, kept]
  )
  np.testing.assert_array_equal(cut["params"]["c"]["reduce"]["bias"], variables["params"]["c"]["reduce"]["bias"])
  x = np.random.default_rng(0).random((2, 6, 6, 3), np.float32)
  before, after = (np.asarray(Model(*each).forward(x)["e"]) for each in ((model.graph, variables), (graph, cut)))
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
  assert np.ptp(before) > 0.1


def test_a_gate_across_channels_is_not_cut() -> None:
  g = Builder(6, 6, name="across")
  g.conv(8, name="a")
  g.se(gate="normalize_channels_softmax", name="c")
  g.conv(5, name="e")
  assert all(each.is_fixed for each in coupled_channels(g.graph()) if each.channels[0][0] in "ac")
  with pytest.raises(GraphError, match=r"layer 'c' \(se\) reads 6 channels|'c' \(se\)"):
    warm_start(g.graph(), init_variables(g.graph()), with_filters(g.graph(), {"a": 6}), {"a": [0, 2, 3, 4, 6, 7]})
