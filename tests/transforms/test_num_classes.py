"""Other classes and other anchors, against the registered models and the public cfgs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import AnchorHead
from prn_jax.labels import num_classes
from prn_jax.models.registry import build_graph, get_spec, list_models
from prn_jax.transforms.num_classes import with_anchors, with_num_classes
from tests.conftest import shared_params
from tests.nets import ANCHORS, tiny_detector


@pytest.mark.parametrize("name", [n for n in list_models() if "num_classes" in get_spec(n).options])
def test_registered_models_equal_those_built_for_the_classes(name: str) -> None:
  graph = build_graph(name)
  for classes in (1, 7, num_classes(graph)):
    assert with_num_classes(graph, classes) == build_graph(name, num_classes=classes)


@pytest.mark.parametrize("path", shared_params("cfg/*.cfg"))
def test_public_cfgs_there_and_back(path: Path) -> None:
  graph = darknet_cfg.read(path).graph
  classes = num_classes(graph)
  if any(isinstance(head, Region) and head.tree for head in graph.heads):
    with pytest.raises(PrnError, match="has a class hierarchy"):
      with_num_classes(graph, classes)
    return
  assert with_num_classes(graph, classes) == graph
  other = with_num_classes(graph, classes + 3)
  assert num_classes(other) == classes + 3
  assert cost(other).params > cost(graph).params
  assert with_num_classes(other, classes) == graph
  heads = [head for head in graph.heads if isinstance(head, AnchorHead)]
  if heads and len({head.anchors for head in heads}) == 1:
    assert with_anchors(graph, heads[0].anchors) == graph


def test_anchors_reach_every_head() -> None:
  anchors = tuple((w + 1.0, h + 2.0) for w, h in ANCHORS)
  graph = with_anchors(tiny_detector(), anchors)
  assert [cast(AnchorHead, head).anchors for head in graph.heads] == [anchors, anchors]


def test_anchors_of_region_are_in_cells() -> None:
  graph = build_graph("yolov2-tiny")  # 416 pixels, 13 cells
  head = cast(Region, with_anchors(graph, [(32.0 * i, 16.0 * i) for i in range(1, 6)]).heads[0])
  assert head.anchors == tuple((float(i), i / 2) for i in range(1, 6))


def two_readers() -> Graph:
  g = Builder(8, 8, name="shared")
  g.conv(7, 1, name="out")
  g.yolo(2, ((4, 4),), mask=(0,), name="head")
  g.route("out", name="again")
  return g.graph()


def added_results() -> Graph:
  g = Builder(8, 8, name="sum")
  a = g.conv(4, 1, name="a")
  g.conv(4, 1, name="b")
  g.shortcut(a, name="add")
  return g.graph()


@pytest.mark.parametrize(
  ("graph", "message"),
  [
    (two_readers(), "'out', below the head 'head', is also read by again, which other classes would change"),
    (added_results(), r"the classes of 'add' do not come from one .* layer: 'add' \(shortcut\) stands in between"),
  ],
)
def test_heads_that_cannot_change(graph: Graph, message: str) -> None:
  with pytest.raises(PrnError, match=message):
    with_num_classes(graph, 9)


def test_wrong_numbers() -> None:
  graph = tiny_detector()
  with pytest.raises(PrnError, match="network 'tiny': 0 classes; expected at least 1"):
    with_num_classes(graph, 0)
  message = r"2 anchors were given, but network 'tiny' has 3 \(p5_yolo: 3, p4_yolo: 3\). Give as many"
  with pytest.raises(PrnError, match=message):
    with_anchors(graph, ANCHORS[:2])
  with pytest.raises(PrnError, match="network 'darknet19' has no detection head"):
    with_anchors(build_graph("darknet19"), ANCHORS)
  with pytest.raises(PrnError, match=r"anchor 1 is .*expected a positive width and height"):
    with_anchors(graph, [ANCHORS[0], (0.0, 3.0), ANCHORS[2]])
