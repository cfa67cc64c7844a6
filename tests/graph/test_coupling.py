"""Channels that can only go together: every kind by hand, and random networks without one set, against the same
networks in which its weights are 0."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection

import jax
import numpy as np
import pytest

from prn_jax.graph.builder import Builder
from prn_jax.graph.coupling import Channel, Coupled, coupled_channels
from prn_jax.graph.graph import Graph, Layer
from prn_jax.models import build_graph
from prn_jax.network import Network, Variables, init_variables
from prn_jax.transforms.warm_start import warm_start
from tests.graph.gradient_cases import add_layer


def group(graph: Graph, layer: str, channel: int) -> Coupled:
  return next(found for found in coupled_channels(graph) if (layer, channel) in found.channels)


def together(graph: Graph, layer: str, channel: int) -> set[str]:
  """The channels that go with one, as "layer:channel"; raises if they are fixed."""
  found = group(graph, layer, channel)
  assert not found.is_fixed
  return {f"{name}:{i}" for name, i in found.channels}


def ended(build: Callable[[Builder], object], size: int = 4) -> Graph:
  """What `build` adds behind a convolution `a` of 8 channels, and a convolution behind it, so that nothing is fixed
  only because it is the result."""
  g = Builder(size, size)
  g.conv(8, name="a")
  build(g)
  g.conv(3, name="end")
  return g.graph()


# -- by hand -------------------------------------------------------------------------------------------------


def test_a_chain_of_convolutions() -> None:
  graph = ended(lambda g: g.conv(4, name="b"))
  assert together(graph, "a", 5) == {"a:5"}
  assert together(graph, "b", 0) == {"b:0"}
  assert group(graph, "end", 0) == Coupled((("end", 0),), is_fixed=True)  # the result
  assert group(graph, "input", 1) == Coupled((("input", 1),), is_fixed=True)
  assert sum(len(found.channels) for found in coupled_channels(graph)) == 3 + 8 + 4 + 3


def test_partial_shortcuts_of_several_sources() -> None:
  """Eight channels of `a` and four of `b` are added to six of `c`: each sum takes what reaches so far."""

  def build(g: Builder) -> None:
    g.conv(4, name="b")
    g.conv(6, name="c")
    g.shortcut("a", "b", name="sum")

  graph = ended(build)
  assert together(graph, "sum", 3) == {"a:3", "b:3", "c:3", "sum:3"}
  assert together(graph, "sum", 5) == {"a:5", "c:5", "sum:5"}
  assert together(graph, "a", 6) == {"a:6"}


def test_a_chain_of_residual_blocks_is_one_set_for_each_channel() -> None:
  graph = build_graph("darknet53")
  found = group(graph, "stage3_down", 7)
  assert not found.is_fixed
  assert {channel for _, channel in found.channels} == {7}
  assert len(found.channels) == 1 + 2 * 8  # and for each of eight units its convolution and its sum


def test_a_route_with_groups_keeps_its_parts_equal() -> None:
  graph = ended(lambda g: g.route("a", groups=2, group_id=1, name="half"))
  assert together(graph, "half", 1) == together(graph, "a", 1) == {"a:1", "a:5", "half:1"}


def test_a_concatenation() -> None:
  graph = ended(lambda g: (g.maxpool(3, 1, name="pool"), g.route("pool", "a", name="both")))
  assert together(graph, "a", 2) == {"a:2", "pool:2", "both:2", "both:10"}


def test_depthwise_and_grouped_convolutions() -> None:
  graph = ended(lambda g: (g.conv(8, groups=8, name="depthwise"), g.conv(4, groups=2, name="grouped")))
  expected = {f"{name}:{i}" for name in ("a", "depthwise") for i in range(4)} | {"grouped:0", "grouped:1"}
  assert together(graph, "a", 3) == expected
  wider = ended(lambda g: g.conv(16, groups=8, name="twice"))
  assert together(wider, "a", 3) == {"a:3", "twice:6", "twice:7"}


def test_products() -> None:
  def build(g: Builder) -> None:
    g.avgpool(name="mean")
    g.conv(8, activation="logistic", name="scale")
    g.scale_channels("a", name="product")
    g.conv(8, name="attention")
    g.sam("product", name="masked")

  graph = ended(build)
  expected = {f"{name}:2" for name in ("a", "mean", "scale", "product", "attention", "masked")}
  assert together(graph, "masked", 2) == expected


def test_a_learned_vector_goes_with_what_it_is_multiplied_by() -> None:
  graph = ended(lambda g: (g.avgpool(name="mean"), g.implicit(filters=8, name="vector"), g.sam("mean", name="product")))
  assert together(graph, "vector", 6) == {"a:6", "mean:6", "vector:6", "product:6"}


def test_a_scale_of_one_channel_stays_while_the_map_may_go() -> None:
  graph = ended(lambda g: (g.conv(1, name="scale"), g.scale_channels("a", scale_wh=True, name="product")))
  assert together(graph, "a", 2) == {"a:2", "product:2"}
  assert group(graph, "scale", 0).is_fixed


def test_maps_that_change_their_form() -> None:
  """Space-to-depth puts a channel in four places; the old reorg mixes them up and holds for all channels only."""
  graph = ended(lambda g: g.reorg3d(2, name="deep"))
  assert together(graph, "a", 3) == {"a:3", "deep:3", "deep:11", "deep:19", "deep:27"}
  assert group(ended(lambda g: g.reorg(2, name="deep")), "a", 3).is_fixed
  assert together(ended(lambda g: g.reorg(2, reverse=True, name="flat")), "a", 3) == {
    "a:1",
    "a:3",
    "a:5",
    "a:7",
    "flat:1",
  }
  assert together(ended(lambda g: g.maxpool(1, 1, depth_out=3, name="most")), "a", 5) == {"a:2", "a:5", "most:2"}


@pytest.mark.parametrize(
  "build",
  [
    lambda g: g.softmax(name="last"),
    lambda g: g.activation(activation="normalize_channels", name="last"),
    lambda g: g.conv(8, groups=8, activation="normalize_channels", name="last"),
  ],
)
def test_rules_across_channels_fix_them(build: Callable[[Builder], object]) -> None:
  graph = ended(build)
  assert all(group(graph, name, i).is_fixed for name in ("a", "last") for i in range(8))


def test_shared_weights() -> None:
  graph = ended(lambda g: (g.conv(8, name="b"), g.conv(8, share="b", name="again")))
  assert together(graph, "again", 4) == {"a:4", "b:4", "again:4"}  # `again` reads `b` with what `b` reads `a` with


def test_heads_are_fixed() -> None:
  graph = build_graph("yolov3-tiny-prn")
  sets = coupled_channels(graph)
  fixed = {name for found in sets if found.is_fixed for name, _ in found.channels}
  assert fixed == {"input", *(head.name for head in graph.heads), *(head.inputs[0] for head in graph.heads)}
  # both partial residuals of the fine level add the first 128 channels of stage5_conv
  assert {"stage5_conv:3", "p4_skip_a:3", "p4_skip_b:3"} <= together(graph, "stage5_conv", 3)
  assert all(name != "p4_skip_a" for name, _ in group(graph, "stage5_conv", 200).channels)


# -- random networks without one set --------------------------------------------------------------------------

KINDS = ("conv", "grouped", "shortcut", "shortcut", "route", "pool", "reorg3d", "sam", "se", "attention")
MORE = ("softmax", "batchnorm", "shared", "reorg back", "same size pool", "reorg", "connected")


def random_net(seed: int) -> Graph:
  """Everything that couples channels, between convolutions, on 4x4 maps that space-to-depth makes smaller."""
  rng = random.Random(seed)
  g = Builder(4, 4, channels=3)
  names = [g.conv(rng.choice([4, 6, 8]))]
  for _ in range(9):
    kind = rng.choice(KINDS + MORE) if g.shape().channels <= 16 else "conv"
    if kind == "conv":
      g.conv(rng.choice([2, 4, 6]), batch_normalize=rng.random() < 0.5, activation="leaky")
    elif kind == "reorg3d" and g.shape().height > 1:
      g.reorg3d(2)
    elif kind == "reorg back" and g.shape().height < 4 and g.shape().channels % 4 == 0:
      g.reorg(2, reverse=True)
    elif kind == "same size pool":
      g.maxpool(2, 1)
    elif kind == "batchnorm":
      g.batchnorm()
    elif kind == "shared":
      first = g.last
      owner = g.conv(g.shape().channels)
      g.route(first)
      g.conv(g.shape().channels, share=owner)
    elif kind == "connected" and rng.random() < 0.3:
      g.connected(4)
    else:
      add_layer(g, rng, kind, [name for name in names if g.shape(name)[:2] == g.shape()[:2]])
    names.append(g.last)
  g.conv(3, name="end")
  return g.graph()


def removable(graph: Graph) -> list[Coupled]:
  """Sets that may go and leave something of every map."""
  widths = {name: shape.channels for name, shape in graph.shapes.items()}
  return [
    found
    for found in coupled_channels(graph)
    if not found.is_fixed
    and all(sum(n == name for n, _ in found.channels) < widths[name] for name, _ in found.channels)
  ]


def without(graph: Graph, channels: Collection[Channel]) -> Graph:
  """The network with fewer filters, groups and outputs."""
  gone = {name: sum(n == name for n, _ in channels) for name in graph.shapes}

  def smaller(layer: Layer) -> Layer:
    lost = gone[layer.name]
    if lost and layer.kind == "conv":
      filters, groups = layer.filters, layer.groups  # type: ignore[attr-defined]
      groups -= lost // (filters // groups) if groups > 1 else 0
      return dataclasses.replace(layer, filters=filters - lost, groups=groups)  # type: ignore[call-arg]
    if lost and layer.kind == "connected":
      return dataclasses.replace(layer, output=layer.output - lost)  # type: ignore[attr-defined, call-arg]
    if lost and getattr(layer, "depth_out", 0):
      return dataclasses.replace(layer, depth_out=layer.depth_out - lost)  # type: ignore[attr-defined, call-arg]
    return layer

  changed = dataclasses.replace(graph, layers=tuple(map(smaller, graph.layers)))
  assert {name: shape.channels + gone[name] for name, shape in changed.shapes.items()} == {
    name: shape.channels for name, shape in graph.shapes.items()
  }
  return changed


def silenced(graph: Graph, variables: Variables, channels: Collection[Channel]) -> Variables:
  """The weights that make these channels are 0, and what batch norm adds."""
  result = jax.tree.map(np.array, variables)
  for layer in graph:
    for array in graph.arrays(layer):
      *folders, leaf = (array.collection, layer.name, *array.path.split("/"))
      place = result
      for key in folders:
        place = place[key]
      gone = [i for name, i in channels if name == layer.name]
      if array.makes is not None and leaf != "var":
        np.moveaxis(place[leaf], array.makes, 0)[gone] = 0
  return result


def kept(graph: Graph, channels: Collection[Channel]) -> dict[str, list[int]]:
  makers = [x for x in graph if not x.shared_with and any(reads.is_learned for reads in graph.reads(x))]
  return {x.name: [i for i in range(graph.shapes[x.name].channels) if (x.name, i) not in channels] for x in makers}


def test_every_set_of_many_random_networks_can_go() -> None:
  """By its shapes, at least: what is left has as many channels as there should be, everywhere."""
  seen = set[str]()
  sets = 0
  for seed in range(120):
    graph = random_net(seed)
    for found in removable(graph):
      without(graph, set(found.channels))
      seen |= {graph[name].kind for name, _ in found.channels}
      sets += 1
  assert sets > 900
  assert seen >= {"conv", "shortcut", "route", "maxpool", "reorg3d", "reorg", "sam", "scale_channels", "batchnorm"}


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11])  # in 8 a softmax fixes what matters
def test_a_network_without_a_set_computes_what_the_silenced_one_does(seed: int) -> None:
  """The set of most layers of which the result depends at all."""
  graph = random_net(seed)
  rng = np.random.default_rng(seed)
  x = rng.random((2, 4, 4, 3), np.float32)
  variables = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32) ** 2 / 9, init_variables(graph))

  def program(network: Graph) -> Callable[[Variables], np.ndarray]:
    run = jax.jit(Network(network).apply, compiler_options={"xla_backend_optimization_level": 0})
    return lambda values: np.asarray(run(values, x)["end"])

  run = program(graph)
  before = run(variables)
  for found in sorted(removable(graph), key=lambda found: -len({name for name, _ in found.channels})):
    gone = set(found.channels)
    quiet = silenced(graph, variables, gone)
    expected = run(quiet)
    if not np.allclose(before, expected):
      break
  else:
    pytest.fail("the result depends on no set")
  changed = without(graph, gone)
  cut = warm_start(graph, quiet, changed, kept(graph, gone))
  np.testing.assert_allclose(program(changed)(cut), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
