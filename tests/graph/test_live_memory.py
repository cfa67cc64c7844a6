"""Feature maps alive during inference: by hand, and the paper's claim about partial residuals."""

from __future__ import annotations

import pytest

from prn_jax.analyze import live_memory
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import FLOAT_BYTES, peak_activation_bytes
from prn_jax.graph.graph import Graph
from prn_jax.models.registry import build_graph
from prn_jax.transforms.partial_residual import apply, fprn

MAP = 4 * 4 * FLOAT_BYTES  # one channel of a 4x4 map


def block(kept: int) -> Graph:
  """A residual block of 8 channels whose shortcut adds the first `kept` of them."""
  g = Builder(4, 4, channels=2)
  x = g.conv(8, name="x")
  source = x if kept == 8 else g.route(x, groups=8 // kept, name="part")
  g.last = x
  g.conv(1, name="inner")
  g.conv(8, name="outer")
  g.shortcut(source, name="sum")
  g.conv(3, name="end")
  return g.graph()


def test_a_full_residual_block_by_hand() -> None:
  memory = live_memory(block(8))
  # x: image and x; inner: x and inner; outer: x waits, inner and outer; sum: x, outer, sum; end: sum and end
  assert memory.live_bytes == tuple(MAP * n for n in (2 + 8, 8 + 1, 8 + 1 + 8, 8 + 8 + 8, 8 + 3))
  assert memory.shortcut_bytes == tuple(MAP * n for n in (0, 0, 8, 8, 0))
  (kept,) = memory.kept
  assert kept == ("sum", "x", 8, 8, 8 * MAP, 8 * MAP, 3)
  assert memory.peak_bytes == peak_activation_bytes(block(8)) == 24 * MAP
  assert block(8).layers[memory.peak_index].name == "sum"


def test_a_partial_residual_block_by_hand() -> None:
  """The route is a view of x: it takes no memory, and only its channels outlive the layer `inner`."""
  memory = live_memory(block(4))
  assert memory.live_bytes == tuple(MAP * n for n in (2 + 8, 8, 8 + 1, 4 + 1 + 8, 4 + 8 + 8, 8 + 3))
  assert memory.shortcut_bytes == tuple(MAP * n for n in (0, 0, 0, 4, 4, 0))
  assert memory.kept[0].kept_bytes * 2 == memory.kept[0].full_bytes == 8 * MAP


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", ["yolov3", "darknet53", "resnet50"])
def test_a_partial_residual_keeps_its_share(name: str, sparsity: float) -> None:
  """The paper's claim, for every shortcut: adding half of the channels halves what it keeps alive."""
  full, partial = (live_memory(graph) for graph in (build_graph(name), fprn(build_graph(name), sparsity)))
  assert len(full.kept) == len(partial.kept) > 10
  for before, after in zip(full.kept, partial.kept, strict=True):
    assert before.full_bytes == after.full_bytes == before.kept_bytes
    assert after.kept_bytes == (1 - sparsity) * before.kept_bytes
  assert max(partial.shortcut_bytes) == (1 - sparsity) * max(full.shortcut_bytes)


def test_yolov3_fprn() -> None:
  full, partial = live_memory(build_graph("yolov3")), live_memory(build_graph("yolov3-fprn"))
  assert partial.kept_bytes * 2 == full.kept_bytes == 58_146_816


def test_shrinking_blocks_need_only_what_they_add() -> None:
  g = Builder(4, 4, channels=8)
  g.conv(4, name="h")
  g.shortcut("input", name="sum")
  memory = live_memory(g.graph())
  assert memory.live_bytes == (MAP * 12, MAP * (4 + 4 + 4))  # the image's last four channels are gone
  assert memory.kept[0].kept_channels == 4


@pytest.mark.parametrize("spec", ["shrink:0.5", "expand:0.5", "bottleneck:0.5"])
def test_the_whole_map_is_the_one_that_was_cut(spec: str) -> None:
  """A shrinking block adds the first channels of a wider map; an expanding one all of a narrower map, whatever the
  channels of the sum."""
  graph = apply(build_graph("darknet53"), spec)
  for item in live_memory(graph).kept:
    source, total = graph.shapes[item.source].channels, graph.shapes[item.shortcut].channels
    assert (item.channels, item.kept_channels) == (source, min(source, total))
    assert (item.kept_bytes == item.full_bytes) == (source <= total)


def test_cuts_that_are_concatenated_come_from_one_map() -> None:
  """Three quarters of x are a half and a quarter beside each other: a map of its own, of what was cut from x."""
  g = Builder(4, 4)
  x = g.conv(8, name="x")
  cuts = (g.route(x, groups=2, name="half"), g.route(x, groups=4, group_id=2, name="quarter"))
  both = g.route(*cuts, name="both")
  g.last = x
  y = g.conv(12, name="y")
  g.shortcut(both, name="partial")
  joined = g.route(x, y, name="joined")
  g.conv(40, name="z")
  g.shortcut(joined, name="full")
  partial, full = live_memory(g.graph()).kept
  assert (partial.channels, partial.kept_channels) == (8, 6)
  assert (full.channels, full.kept_channels) == (20, 20)  # x and y beside each other are the whole map that is added


def test_results_stay_alive() -> None:
  g = Builder(4, 4, channels=2)
  g.conv(5, name="raw1")
  g.yolo(0, ((1.0, 1.0),), name="head1")
  g.conv(5, name="raw2")
  g.yolo(0, ((1.0, 1.0),), name="head2")
  assert live_memory(g.graph()).live_bytes == tuple(MAP * n for n in (7, 10, 10, 15))


@pytest.mark.parametrize("name", ["yolov3-tiny-prn", "yolov4", "resnet50", "densenet201", "pelee-prn"])
def test_never_more_than_whole_maps(name: str) -> None:
  graph = build_graph(name)
  memory = live_memory(graph)
  assert 0 < memory.peak_bytes <= peak_activation_bytes(graph)
  assert all(0 <= waiting <= live for waiting, live in zip(memory.shortcut_bytes, memory.live_bytes, strict=True))
