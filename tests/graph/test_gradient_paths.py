"""Path counts of `graph.gradients` against brute force, no-ops that must not change them, and the kinds that mix
channels, by hand."""

from __future__ import annotations

import pytest

from prn_jax.graph.builder import Builder
from prn_jax.graph.gradients import LayerGradients, gradients, totals
from prn_jax.graph.graph import Graph
from tests.graph.gradient_cases import enumerated_paths, lengths, random_graph, random_mixing_graph, with_no_ops

SEEDS = range(40)
GRAPHS = {"linear": random_graph, "mixing": random_mixing_graph}


def found(graph: Graph) -> dict[str, list[tuple[int, int, dict[int, int], set[str]]]]:
  """Layer -> its ranges: start, end, numbers of paths by timestamp, sources."""
  return {
    x.name: [(r.start, r.end, dict(zip(r.timestamps, r.paths, strict=True)), set(r.sources)) for r in x.ranges]
    for x in gradients(graph)
  }


def layer(graph: Graph, name: str) -> LayerGradients:
  return next(x for x in gradients(graph) if x.name == name)


# -- brute force -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("draw", GRAPHS.values(), ids=GRAPHS)
def test_every_path_of_every_channel(draw: object, seed: int) -> None:
  graph = draw(seed)  # type: ignore[operator]
  expected = enumerated_paths(graph)
  assert found(graph).keys() == expected.keys()
  for name, ranges in found(graph).items():
    assert [start for start, *_ in ranges] == [0, *(end for _, end, *_ in ranges[:-1])]
    assert ranges[-1][1] == len(expected[name])
    for start, end, counts, sources in ranges:
      for channel in range(start, end):
        paths = expected[name][channel]
        assert counts == lengths(paths), (name, channel)
        assert sources == {path[-2] for path in paths}, (name, channel)


def test_the_random_graphs_hold_what_matters() -> None:
  """Layers that receive several paths of one length, layers cut into ranges, and every kind that mixes channels."""
  graphs = [draw(seed) for draw in GRAPHS.values() for seed in SEEDS]
  layers = [x for graph in graphs for x in gradients(graph)]
  assert sum(any(max(r.paths, default=0) > 1 for r in x.ranges) for x in layers) > 50
  assert sum(len({r.paths for r in x.ranges if len(r.timestamps) > 1}) > 1 for x in layers) > 20
  kinds = {x.kind for graph in graphs for x in graph}
  assert kinds > {"conv", "connected", "shortcut", "route", "softmax", "maxpool", "reorg", "sam", "scale_channels"}


# -- what changes nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("draw", GRAPHS.values(), ids=GRAPHS)
def test_cutting_maps_and_concatenating_them_changes_nothing(draw: object, seed: int) -> None:
  graph = draw(seed)  # type: ignore[operator]
  assert gradients(with_no_ops(graph, seed)) == gradients(graph)


def two_branches(cut: bool) -> Graph:
  """Each half of a map goes through a branch of its own; in one branch a map may be cut and concatenated again."""
  g = Builder(8, 8)
  a = g.conv(4, name="a")
  g.route(a, groups=2, group_id=0)
  b = g.conv(4, name="b")
  if cut:
    g.route(g.route(b, groups=2, group_id=0), g.route(b, groups=2, group_id=1))
  left = g.conv(4, name="left")
  g.route(a, groups=2, group_id=1)
  g.conv(4, name="c")
  g.route(left, g.conv(4, name="right"))
  g.conv(4, name="end")
  return g.graph()


def test_branches_by_hand() -> None:
  """Both halves of `a` are reached over one path of four layers, however the map in one branch is written."""
  for graph in (two_branches(cut=False), two_branches(cut=True)):
    assert found(graph)["a"] == [(0, 2, {4: 1}, {"b"}), (2, 4, {4: 1}, {"c"})]
    assert (layer(graph, "a").timestamp_combinations, layer(graph, "a").source_combinations) == (1, 2)


def test_wires_between_two_layers_are_one_path() -> None:
  """A pyramid of pools reads one map four times; a map is added to itself: the layers on the path are the same."""
  g = Builder(8, 8)
  x = g.conv(4, name="a")
  pools = []
  for size in (3, 5):
    g.last = x
    pools.append(g.maxpool(size, 1))
  g.route(*pools, x)
  b = g.conv(4, name="b")
  g.shortcut(b)
  assert found(g.graph()) == {"a": [(0, 4, {2: 1}, {"b"})], "b": [(0, 4, {1: 1}, {"loss:shortcut_5"})]}


def test_different_groups_make_one_path() -> None:
  """Both groups of a convolution hand on the same path: it is counted once where the two meet again."""
  g = Builder(8, 8)
  g.conv(4, name="a")
  g.conv(4, groups=2, name="grouped")
  g.conv(4, name="b")
  assert found(g.graph())["a"] == [(0, 4, {3: 1}, {"grouped"})]
  assert totals(gradients(g.graph())) == (3, 3, 3, 3)


# -- kinds without a kernel that mix or multiply, by hand --------------------------------------------------------


def half_is_read(mix: str | None) -> Graph:
  """A map of 4 channels, a layer behind it, of whose output the next layer reads the first half."""
  g = Builder(4, 4)
  g.conv(4, name="a")
  if mix == "softmax":
    g.softmax()
  elif mix == "reorg":
    g.reorg(2)
  elif mix == "pool":
    g.maxpool(1, 1, depth_out=2)
  g.route(g.last, groups=2, group_id=0)
  g.conv(3, name="b")
  return g.graph()


@pytest.mark.parametrize("mix", ["softmax", "reorg", "pool"])
def test_a_layer_that_mixes_hands_the_gradient_to_all_channels(mix: str) -> None:
  assert found(half_is_read(None))["a"] == [(0, 2, {2: 1}, {"b"}), (2, 4, {}, set())]
  assert found(half_is_read(mix))["a"] == [(0, 4, {2: 1}, {"b"})]
  assert layer(half_is_read(mix), "a").source_combinations == 1  # a mixed gradient has no parts


def test_squeeze_and_excitation() -> None:
  """Both factors are reached at once, the scaled map also through the scale; each channel by its own scale."""
  g = Builder(4, 4)
  x = g.conv(6, name="a")
  g.avgpool()
  g.conv(6, name="scale")
  g.scale_channels(x, name="product")
  g.route("product", groups=2, group_id=0)
  g.conv(2, name="end")
  assert found(g.graph()) == {
    "end": [(0, 2, {1: 1}, {"loss:end"})],
    "scale": [(0, 3, {2: 1}, {"end"}), (3, 6, {}, set())],
    "a": [(0, 3, {2: 1, 3: 1}, {"end", "scale"}), (3, 6, {3: 1}, {"scale"})],
  }


def test_a_scale_with_one_channel() -> None:
  """Every channel of the product reads it."""
  g = Builder(4, 4)
  x = g.conv(6, name="a")
  g.conv(1, name="scale")
  g.scale_channels(x, scale_wh=True, name="product")
  g.route("product", groups=2, group_id=1)
  g.conv(2, name="end")
  assert found(g.graph()) == {
    "end": [(0, 2, {1: 1}, {"loss:end"})],
    "scale": [(0, 1, {2: 1}, {"end"})],
    "a": [(0, 3, {3: 1}, {"scale"}), (3, 6, {2: 1, 3: 1}, {"end", "scale"})],
  }


def test_spatial_attention() -> None:
  """The product of two equal maps: channel by channel to both."""
  g = Builder(4, 4)
  x = g.conv(4, name="a")
  g.conv(4, groups=4, name="attention")
  g.sam(x, name="product")
  g.route("product", groups=2, group_id=0)
  g.conv(2, name="end")
  assert found(g.graph()) == {
    "end": [(0, 2, {1: 1}, {"loss:end"})],
    "attention": [(0, 2, {2: 1}, {"end"}), (2, 4, {}, set())],
    "a": [(0, 2, {2: 1, 3: 1}, {"end", "attention"}), (2, 4, {}, set())],
  }
