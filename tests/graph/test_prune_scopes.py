"""The prune sets of network slimming: published counts and lists of known networks, and what each scope leaves out, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prn_jax.graph.builder import Builder
from prn_jax.graph.coupling import coupled_channels
from prn_jax.graph.graph import Graph
from prn_jax.graph.prune_scopes import Scope, layers_in_scope, scale_key
from prn_jax.loading import load
from prn_jax.models.registry import build_graph
from prn_jax.network import expected_variables

# Layers with batch norm and their channels; layers (and channels) of NORMAL, ALL and RESIDUAL.
COUNTS = {
  "yolov3": ((72, 26_304), (42, 13_376), (70, 25_920), (23, 10_560)),
  "yolov3-tiny": ((11, 3_184), (10, 3_056), (10, 3_056), (0, 0)),
  "yolov3-tiny-3l": ((13, 3_440), (11, 3_184), (11, 3_184), (0, 0)),
  "yolov4": ((107, 33_152), (76, 25_920), (104, 32_256), (23, 5_312)),
  "yolov4-tiny": ((19, 3_104), (15, 2_528), (15, 2_528), (0, 0)),
  "yolov3-mobilenetv3": ((67, 20_728), (19, 9_088), (35, 10_312), (10, 792)),
  "yolov3-tiny-mobilenetv3-small": ((39, 7_672), (6, 2_080), (16, 2_632), (6, 344)),
}
NORMAL = {
  "yolov3": [0, 2, 6, 9, *range(13, 35, 3), *range(38, 60, 3), *range(63, 73, 3), *range(75, 81), *range(87, 93), *range(99, 105)],
  "yolov3-tiny": [0, 2, 4, 6, 8, 10, 12, 13, 14, 21],
  "yolov4-tiny": [0, 1, 4, 5, 7, 12, 13, 15, 20, 21, 23, 26, 27, 28, 35],
  "yolov3-mobilenetv3": [*range(64, 71), *range(77, 83), *range(89, 95)],
  "yolov3-tiny-mobilenetv3-small": [0, 4, 49, 50, 51, 58],
}  # fmt: skip
LEFT_OUT_OF_ALL = {"yolov3": [84, 96], "yolov3-tiny": [18], "yolov4": [107, 117, 127], "yolov4-tiny": [2, 10, 18, 32]}


def numbers(graph: Graph, scope: Scope | str) -> list[int]:
  place = {layer.name: i for i, layer in enumerate(graph)}
  return [place[name] for name in layers_in_scope(graph, scope)]


def size(graph: Graph, names: tuple[str, ...]) -> tuple[int, int]:
  return len(names), sum(graph.shapes[name].channels for name in names)


@pytest.mark.parametrize("model", COUNTS)
def test_counts_and_lists_of_known_networks(model: str) -> None:
  graph = build_graph(model)
  normalised = tuple(layer.name for layer in graph if layer.has_batchnorm)
  scopes = (layers_in_scope(graph, scope) for scope in (Scope.NORMAL, Scope.ALL, Scope.RESIDUAL))
  assert tuple(size(graph, names) for names in (normalised, *scopes)) == COUNTS[model]
  if model in NORMAL:
    assert numbers(graph, "normal") == NORMAL[model]
  if model in LEFT_OUT_OF_ALL:
    place = {layer.name: i for i, layer in enumerate(graph)}
    assert [place[name] for name in normalised if name not in layers_in_scope(graph, "all")] == LEFT_OUT_OF_ALL[model]
  if model == "yolov3":
    assert numbers(graph, "residual") == [3, 7, 10, *range(14, 36, 3), *range(39, 61, 3), 64, 67, 70, 73]


def test_the_entry_of_a_spatial_pyramid(shared: Path) -> None:
  graph = load(shared / "cfg" / "yolov3-spp.cfg").graph
  assert [len(layers_in_scope(graph, scope)) for scope in ("normal", "all", "coupled")] == [42, 70, 73]
  place = {layer.name: i for i, layer in enumerate(graph)}
  spared = {layer.name for layer in graph if layer.has_batchnorm} - set(layers_in_scope(graph, "all"))
  assert sorted(place[name] for name in spared) == [77, 91, 103]


@pytest.mark.parametrize("model", ["yolov3-tiny-prn", "ghostnet", "resnet50", "densenet201", "yolov7-tiny", "peleenet"])
def test_scopes_lie_within_each_other_and_have_scales(model: str) -> None:
  graph = build_graph(model)
  normal, tied, residual, coupled = (set(layers_in_scope(graph, scope)) for scope in Scope)
  assert normal <= tied <= coupled
  assert coupled
  keys = expected_variables(graph)
  assert all(scale_key(name) in keys for name in coupled | residual)


@pytest.mark.parametrize("model", ["yolov3-tiny-prn", "yolov4-tiny", "ghostnet"])
def test_what_may_go_is_what_the_channel_relation_lets_go(model: str) -> None:
  """COUPLED walks along layers; `coupled_channels` joins single channels."""
  graph = build_graph(model)
  fixed = {name for one in coupled_channels(graph) if one.is_fixed for name, _ in one.channels}
  may_go = {layer.name for layer in graph if layer.has_batchnorm and graph.arrays(layer) and layer.name not in fixed}
  assert set(layers_in_scope(graph, Scope.COUPLED)) == may_go


# -- by hand -----------------------------------------------------------------------------------------------------------


def built(build: Callable[[Builder], object]) -> Graph:
  """Convolution `a` with batch norm, what `build` adds, and a head without."""
  g = Builder(16, 16)
  g.conv(8, batch_normalize=True, name="a")
  build(g)
  g.conv(3, name="end")
  return g.graph()


def shortcut(g: Builder) -> None:
  g.conv(8, batch_normalize=True, name="b")
  g.dropout(0.1)
  g.shortcut("a")


def shortcut_of_a_pool(g: Builder) -> None:
  pool = g.maxpool(2, 2)
  g.conv(8, batch_normalize=True, name="b")
  g.shortcut(pool)


def pyramid(g: Builder) -> None:
  pool = g.maxpool(3, 1)
  g.route("a", pool)


def concatenation(g: Builder) -> None:
  g.conv(8, batch_normalize=True, name="b")
  g.route("a", "b")


def mixed(g: Builder) -> None:
  g.softmax()


@pytest.mark.parametrize(
  ("build", "normal", "tied", "residual", "coupled"),
  [
    (lambda g: None, "a", "a", "", "a"),
    (shortcut, "", "a b", "b", "a b"),
    (shortcut_of_a_pool, "", "a b", "b", "a b"),
    (concatenation, "a b", "a b", "", "a b"),
    (pyramid, "", "", "", "a"),
    (lambda g: g.upsample(2), "", "", "", "a"),
    (lambda g: g.depthwise(8, size=3, padding=1, batch_normalize=True, name="b"), "", "", "", "a b"),
    (lambda g: g.conv(8, groups=8, batch_normalize=True, name="b"), "", "", "", "a b"),
    (lambda g: g.route("a", groups=2, group_id=1), "", "", "", "a"),
    (mixed, "", "", "", ""),
  ],
  ids=["plain", "shortcut", "pool", "concatenation", "pyramid", "upsample", "depthwise", "groups", "half", "softmax"],
)
def test_what_a_scope_leaves_out(
  build: Callable[[Builder], object], normal: str, tied: str, residual: str, coupled: str
) -> None:
  graph = built(build)
  found = [" ".join(layers_in_scope(graph, scope)) for scope in Scope]
  assert found == [normal, tied, residual, coupled]


def test_a_result_keeps_its_channels() -> None:
  g = Builder(8, 8)
  g.conv(4, batch_normalize=True, name="a")
  g.conv(4, batch_normalize=True, name="result")
  assert layers_in_scope(g.graph(), "coupled") == ("a",)
