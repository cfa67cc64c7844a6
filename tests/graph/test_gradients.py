"""Gradient combinations: cases by hand, the paper's closed forms, and automatic differentiation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import prn_jax.kinds  # noqa: F401  (registers the builder's methods)
from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.gradients import ChannelRange, LayerGradients, gradients, stages, totals
from prn_jax.graph.graph import Graph
from prn_jax.models.registry import build_graph
from tests.timing import least_seconds

BLOCKS = range(2, 17)  # k in the paper
EVEN_BLOCKS = range(2, 17, 2)
FULL, STEP = 80, 2  # channels of a stage, and by how much a block is wider than the next

# -- stages of k blocks, each one convolution; the image stands for the map in front of the stage --------------


def residual(widths: Sequence[int], cut: int = 1) -> Graph:
  """x_i = H_i(x_{i-1}) + x_{i-1}, in the channels that both have; `cut` 2 adds the first half only."""
  g = Builder(8, 8, channels=widths[0])
  x = "input"
  for i, width in enumerate(widths[1:], 1):
    source = x if cut == 1 else g.route(x, groups=cut, name=f"part{i}")
    if cut > 1:
      g.last = x
    g.conv(width, 3, padding=1, name=f"h{i}")
    x = g.shortcut(source, name=f"x{i}")
  return g.graph()


def plain(k: int) -> Graph:
  g = Builder(8, 8)
  for i in range(1, k + 1):
    g.conv(8, 3, padding=1, name=f"h{i}")
  return g.graph()


def aggregated(k: int, sparse: bool) -> Graph:
  """H_i reads all earlier layers (DenseNet), or those 1, 2, 4, 8, ... before it (SparseNet); so does the result."""
  g = Builder(8, 8)
  for i in range(1, k + 2):
    distances = [d for d in range(1, i) if not sparse or d.bit_count() == 1]
    if distances:
      g.route(*(f"h{i - d}" for d in distances), name=f"concat{i}")
    if i <= k:
      g.conv(4, 3, padding=1, name=f"h{i}")
  return g.graph()


def shrinking(k: int) -> list[int]:
  """Channels in front of the stage and behind each block."""
  return [FULL - STEP * i for i in range(k + 1)]


def combinations(graph: Graph) -> tuple[int, int]:
  layers = gradients(graph)
  return totals(layers).timestamp_combinations, totals(layers).source_combinations


def layer(graph: Graph, name: str) -> LayerGradients:
  return next(x for x in gradients(graph) if x.name == name)


# -- the paper's closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", BLOCKS)
def test_shrink(k: int) -> None:
  assert combinations(residual(shrinking(k))) == ((1 + k) * k / 2, (1 + k) * k / 2)


@pytest.mark.parametrize("k", BLOCKS)
def test_expand(k: int) -> None:
  assert combinations(residual(shrinking(k)[::-1])) == (k, (1 + k) * k / 2)


@pytest.mark.parametrize("k", EVEN_BLOCKS)
def test_bottleneck(k: int) -> None:
  """k/2 blocks that shrink, and the same widths back."""
  half = shrinking(k // 2)
  widths = half + half[:0:-1]
  assert len(widths) == k + 1
  assert combinations(residual(widths)) == (((1 + k / 2) * (k / 2) + k) / 2, (1 + k / 2) * (k / 2))


@pytest.mark.parametrize("k", EVEN_BLOCKS)
def test_a_bottleneck_of_two_counted_stages(k: int) -> None:
  """A strict V (one narrowest block): exact if its halves are counted each by itself; as one stage its k/2 expanding
  layers have one part more, which also reaches the shrinking half."""
  half = shrinking(k // 2)
  parts = [combinations(residual(half)), combinations(residual(half[::-1]))]
  closed = (((1 + k / 2) * (k / 2) + k) / 2, (1 + k / 2) * (k / 2))
  assert tuple(map(sum, zip(*parts, strict=True))) == closed
  assert combinations(residual(half + half[-2::-1])) == (closed[0], closed[1] + k / 2)


@pytest.mark.parametrize("k", BLOCKS)
def test_plain_resnet_densenet_sparsenet(k: int) -> None:
  """All channels of a layer receive the same: one combination per layer, however many timestamps are in it."""
  pairs = (1 + k) * k / 2
  plain_totals = totals(gradients(plain(k)))
  assert plain_totals == (k, k, k, k)
  assert totals(gradients(residual([FULL] * (k + 1)))) == (pairs, pairs, k, k)
  assert totals(gradients(aggregated(k, sparse=False))) == (pairs, pairs, k, k)
  # A layer d steps before the result is reached over sums of powers of two that make d: at least as many steps as d
  # has ones, at most d; directly from every power of two up to d.
  sparse = (sum(d - d.bit_count() + 1 for d in range(1, k + 1)), sum(d.bit_length() for d in range(1, k + 1)), k, k)
  assert totals(gradients(aggregated(k, sparse=True))) == sparse


@pytest.mark.parametrize("k", BLOCKS)
def test_fprn(k: int) -> None:
  """Half of the channels are added: each half of a layer has its own combination; both halves of the last one get the
  loss at once, but different parts of it."""
  assert combinations(residual([FULL] * (k + 1), cut=2)) == (2 * k - 1, 2 * k)


@pytest.mark.parametrize("k", EVEN_BLOCKS)
def test_partial_residuals_have_the_timestamps_and_sources_of_resnet(k: int) -> None:
  """What differs is which channels get them."""
  half = shrinking(k // 2)
  stages_of_k = [
    residual(shrinking(k)),
    residual(shrinking(k)[::-1]),
    residual(half + half[:0:-1]),
    residual([FULL] * (k + 1), cut=2),
  ]
  for graph in stages_of_k:
    assert totals(gradients(graph))[:2] == ((1 + k) * k / 2, (1 + k) * k / 2)


@pytest.mark.parametrize("k", BLOCKS)
def test_timestamps_without_their_numbers_of_paths_would_not_fit(k: int) -> None:
  """Why a combination of timestamps counts paths: as bare sets, shrink would have 2k - 1."""
  sets = sum(len({part.timestamps for part in x.ranges}) for x in gradients(residual(shrinking(k))))
  assert sets == 2 * k - 1


@pytest.mark.parametrize("k", BLOCKS)
def test_timestamps_with_their_sources_need_no_path_counts(k: int) -> None:
  """The other reading that gives the paper's forms: sets of timestamps, told apart by the sources that bring them."""

  def pairs(graph: Graph) -> int:
    return sum(len({(r.timestamps, r.sources) for r in x.ranges if r.timestamps}) for x in gradients(graph))

  assert pairs(residual(shrinking(k))) == (1 + k) * k / 2
  assert pairs(residual(shrinking(k)[::-1])) == k
  if k % 2 == 0:
    half = shrinking(k // 2)
    closed = ((1 + k / 2) * (k / 2) + k) / 2
    assert pairs(residual(half + half[:0:-1])) == closed
    assert pairs(residual(half + half[-2::-1])) == closed  # with one narrowest block as well


def test_the_papers_example_of_a_resnet() -> None:
  """Figure 5, of which only a summary is known to us: a ResNet of five layers, blocks of two, has the sets G1, G2,
  G1+G3, G2+G4 and G1+G3+G5 of timestamps, from the last layer to the first."""
  g = Builder(8, 8)
  x = g.conv(8, 3, padding=1, name="l1")
  for i in (2, 4):
    g.conv(8, 3, padding=1, name=f"l{i}")
    g.conv(8, 3, padding=1, name=f"l{i + 1}")
    x = g.shortcut(x)
  assert [x.timestamps for x in reversed(gradients(g.graph()))] == [(1,), (2,), (1, 3), (2, 4), (1, 3, 5)]


# -- by hand ---------------------------------------------------------------------------------------------------


def test_two_shrinking_blocks_by_hand() -> None:
  last, first = layer(residual([6, 4, 2]), "h2"), layer(residual([6, 4, 2]), "h1")
  assert last.ranges == (ChannelRange(0, 2, (1,), (1,), ("loss:x2",), frozenset({("loss:x2", 0)})),)
  both, behind = first.ranges  # channels 0 and 1 are added to x2; 2 and 3 are only read by h2
  assert both == ChannelRange(0, 2, (1, 2), (1, 1), ("loss:x2", "h2"), frozenset({("loss:x2", 0), ("h2", 0)}))
  assert behind == ChannelRange(2, 4, (2,), (1,), ("h2",), frozenset({("h2", 0)}))


def test_paths_are_counted() -> None:
  """Three residual blocks: the first is reached over any of the 2^2 subsets of the later ones."""
  (part,) = layer(residual([8] * 4), "h1").ranges
  assert (part.timestamps, part.paths) == ((1, 2, 3), (1, 2, 1))
  assert part.sources == ("loss:x3", "h3", "h2")


def test_route_cuts_and_orders_channels() -> None:
  g = Builder(8, 8)
  a, b = g.conv(4, name="a"), g.conv(6, name="b")
  g.route(b, a, groups=2, group_id=1, name="halves")
  g.conv(5, name="c")
  first, second = layer(g.graph(), "a"), layer(g.graph(), "b")
  assert [(r.start, r.end, r.timestamps, r.sources) for r in first.ranges] == [
    (0, 2, (3,), ("b",)),
    (2, 4, (2, 3), ("c", "b")),
  ]
  assert [(r.start, r.end, r.timestamps, r.sources) for r in second.ranges] == [(0, 3, (), ()), (3, 6, (2,), ("c",))]


def test_depthwise_convolution_keeps_channels_apart() -> None:
  g = Builder(8, 8)
  a = g.conv(6, name="a")
  g.conv(6, 3, padding=1, groups=6, name="depthwise")
  g.conv(3, 3, padding=1, groups=3, name="b")
  g.shortcut("depthwise", name="sum")
  g.route(a, "sum", name="end")
  parts = layer(g.graph(), "a").ranges
  assert [(r.start, r.end, r.timestamps) for r in parts] == [(0, 3, (1, 2, 3)), (3, 6, (1, 3))]


def test_every_head_is_a_loss_of_its_own() -> None:
  found = gradients(build_graph("yolov3-tiny"))
  assert found[-1].sources == ("loss:head_p4_yolo",)
  assert {s for x in found for s in x.sources if s.startswith("loss:")} == {"loss:head_p5_yolo", "loss:head_p4_yolo"}


def test_stages_by_size_and_by_name() -> None:
  found = gradients(build_graph("yolov3"))
  by_size = stages(found)
  assert [s.name for s in by_size] == [
    "416x416", "208x208", "104x104", "52x52", "26x26", "13x13", "26x26 #2", "52x52 #2",
  ]  # fmt: skip
  assert tuple(x for s in by_size for x in s.layers) == found
  assert [s.name for s in stages(found, "name")][:4] == ["stem", "stage1", "stage2", "stage3"]


def test_a_network_without_kernels() -> None:
  g = Builder(8, 8, name="pools")
  g.maxpool(2, 2)
  with pytest.raises(GraphError, match=r"network 'pools' has no convolution and no connected layer"):
    gradients(g.graph())


@pytest.mark.parametrize(("name", "limit_sec"), [("yolov3", 1), ("densenet201", 3)])
def test_large_networks_are_quick(name: str, limit_sec: float) -> None:
  """0.01 s and 0.2 s measured; densenet201 has more than 2^98 paths."""
  graph = build_graph(name)
  found = gradients(graph)
  assert least_seconds(lambda: gradients(graph), limit_sec) < limit_sec
  assert len(found) == sum(x.kind == "conv" for x in graph)
