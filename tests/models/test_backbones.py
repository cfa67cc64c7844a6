"""Detectors on other backbones: the published counts to the last digit, indices, heads on backbones, forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from prn_jax.errors import GraphError, PrnError
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.models import build_graph, get_spec
from prn_jax.models.backbones import BACKBONES, HEADS, compose

# Learnable parameters of the cfg files of SpursLipu's repository, counted there: (model, classes) -> number.
PARAMETERS = {
  ("yolov3", 80): 61_949_149,
  ("yolov3", 1): 61_523_734,
  ("yolov3", 2): 61_529_119,
  ("yolov3", 5): 61_545_274,
  ("yolov3", 10): 61_572_199,
  ("yolov3", 20): 61_626_049,
  ("yolov3-spp", 80): 62_998_749,
  ("yolov3-spp3", 80): 64_276_701,
  ("yolov3-tiny", 80): 8_852_366,
  ("yolov3-tiny", 1): 8_669_876,
  ("yolov3-tiny", 5): 8_679_116,
  ("yolov3-tiny", 10): 8_690_666,
  ("yolov3-tiny", 20): 8_713_766,
  ("yolov3-tiny3", 80): 9_213_453,
  ("yolov3-mobilenetv3", 80): 24_209_877,
  ("yolov3-mobilenetv3", 1): 23_784_462,
  ("yolov3-mobilenetv3", 2): 23_789_847,
  ("yolov3-mobilenetv3", 10): 23_832_927,
  ("yolov3-tiny-mobilenetv3-small", 80): 3_041_430,
  ("yolov3-tiny-mobilenetv3-small", 1): 2_858_940,
  ("yolov3-tiny-mobilenetv3-small", 2): 2_861_250,
  ("yolov3-tiny-mobilenetv3-small", 10): 2_879_730,
  ("yolov3-ghostnet", 80): 23_867_141,
  ("yolov4", 80): 64_363_101,
  ("yolov4", 1): 63_937_686,
  ("yolov4", 10): 63_986_151,
  ("yolov4-tiny", 80): 6_056_606,
}


@pytest.mark.parametrize(("model", "classes"), PARAMETERS)
def test_parameters_by_classes(model: str, classes: int) -> None:
  assert cost(build_graph(model, num_classes=classes)).params == PARAMETERS[model, classes]


def test_parameters_of_a_grey_network() -> None:
  graph = dataclasses.replace(build_graph("yolov3", num_classes=5), channels=1)
  assert cost(graph).params == 61_544_698


@pytest.mark.parametrize(
  ("model", "channels"),
  [
    ("yolov3", 26_304), ("yolov3-tiny", 3_184), ("yolov3-mobilenetv3", 20_728), ("yolov3-tiny-mobilenetv3-small", 7_672),
    ("yolov4", 33_152), ("yolov4-tiny", 3_104),
  ],
)  # fmt: skip
def test_channels_with_batch_norm(model: str, channels: int) -> None:
  found = cost(build_graph(model))
  assert found.weight_file_floats - found.params == 2 * channels


@pytest.mark.parametrize(
  ("model", "operations"),
  [
    ("yolov3", ("116.92", "65.86", "140.7")),
    ("yolov3-tiny", ("9.88", "5.56", "11.89")),
    ("yolov3-mobilenetv3", ("32.02", "18.04", "38.53")),
    ("yolov3-tiny-mobilenetv3-small", ("2.82", "1.59", "3.40")),
    ("yolov4", ("106.69", "60.10", "128.4")),
    ("yolov4-tiny", ("12.26", "6.91", "14.76")),
  ],
)
def test_operations_of_the_convolutions(model: str, operations: tuple[str, ...]) -> None:
  """Two for each multiplication, in billions, at 640x480, 416x416 and 608x608; products of [se] are none."""
  for (width, height), expected in zip(((640, 480), (416, 416), (608, 608)), operations, strict=True):
    rows = cost(build_graph(model, width=width, height=height)).layers
    found = 2 * sum(row.macs for row in rows if row.layer.kind != "se") / 1e9
    digits = len(expected.partition(".")[2])
    assert f"{found:.{digits}f}" == expected


def sources(graph: Graph, kind: str) -> list[tuple[int, ...]]:
  """Indices of the inputs of all layers of a kind."""
  index = {layer.name: i for i, layer in enumerate(graph)}
  return [tuple(index[name] for name in layer.inputs) for layer in graph if layer.kind == kind]


@pytest.mark.parametrize(
  ("model", "layers", "laterals", "heads"),
  [
    ("yolov3-mobilenetv3", 97, [(49, 112), (25, 40)], [72, 84, 96]),
    ("yolov3-tiny-mobilenetv3-small", 61, [(34, 48)], [53, 60]),
    ("yolov3-ghostnet", 172, [(96, 112), (45, 40)], [147, 159, 171]),
  ],
)
def test_layers_stand_at_the_published_indices(
  model: str, layers: int, laterals: list[tuple[int, int]], heads: list[int]
) -> None:
  graph = build_graph(model)
  assert len(graph) == layers
  assert [i for i, layer in enumerate(graph) if layer.kind == "yolo"] == heads
  joins = [each for each in sources(graph, "route") if len(each) == 2 and graph.layers[each[0]].kind == "upsample"]
  assert [(join[1], graph.shapes[graph.layers[join[1]].name].channels) for join in joins] == laterals


def test_residuals_of_mobilenet_stand_at_the_published_indices() -> None:
  """Convolutions that additions tie together."""
  large, small = (
    sources(build_graph(name), "shortcut") for name in ("yolov3-mobilenetv3", "yolov3-tiny-mobilenetv3-small")
  )
  assert large == [(3, 0), (10, 7), (19, 15), (24, 20), (31, 28), (35, 32), (39, 36), (48, 44), (57, 53), (62, 58)]
  assert small == [(10, 7), (19, 15), (24, 20), (33, 29), (42, 38), (47, 43)]


# -- any head on any backbone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_head_stands_on_every_backbone(backbone: str, head: str) -> None:
  """Shapes and links; a level is 8, 16 or 32 times smaller than the image."""
  g = Builder(96, 64)
  compose(g, backbone, head, num_classes=2)
  graph = g.graph()
  strides = [graph.width // graph.shapes[layer.name].width for layer in graph.heads]
  assert strides == ([32, 16] if head in ("prn", "yolov3-tiny") else [32, 16, 8])
  assert {graph.shapes[layer.name].channels for layer in graph.heads} == {3 * 7}


def test_a_registered_detector_is_a_composition() -> None:
  g = Builder(416, 416)
  compose(g, "ghostnet-timm", "yolov3", num_classes=4)
  assert build_graph("yolov3-ghostnet", num_classes=4, form="timm") == g.graph()
  g = Builder(416, 416)
  compose(g, "darknet53", "yolov3-spp")
  assert build_graph("yolov3-spp", width=416, height=416) == g.graph()


def test_a_classifier_and_its_detector_have_the_same_backbone() -> None:
  """So that weights of the one start the other."""
  for classifier, detector in (
    ("mobilenetv3-large", "yolov3-mobilenetv3"),
    ("mobilenetv3-small", "mobilenetv3-small-prn"),
    ("ghostnet", "ghostnet-prn"),
  ):
    ours, theirs = build_graph(classifier, width=416, height=416), build_graph(detector, form="timm")
    count = next(i for i, layer in enumerate(ours) if layer.name.startswith("head_"))
    assert list(ours)[:count] == list(theirs)[:count]
    assert count >= 50
  lite = list(build_graph("efficientnet-lite0", width=416, height=416))[:59]
  assert list(build_graph("efficientnet-lite0-prn"))[:59] == lite


def test_a_grey_network_of_any_backbone_runs() -> None:
  from prn_jax.model import Model
  from prn_jax.network import init_variables

  for backbone in ("mobilenetv3-small", "ghostnet"):
    g = Builder(32, 32, channels=1)
    compose(g, backbone, "prn", num_classes=1)
    model = Model(g.graph(), init_variables(g.graph()))
    for value in model.forward(np.zeros((1, 32, 32, 1), np.uint8)).values():
      assert np.isfinite(np.asarray(value)).all()


def test_unknown_names_and_forms() -> None:
  g = Builder(64, 64)
  with pytest.raises(
    PrnError, match=r"there is no backbone 'ghosnet' \(did you mean 'ghostnet'\?\); expected csdarknet53"
  ):
    compose(g, "ghosnet", "prn")
  with pytest.raises(
    PrnError, match=r"there is no head 'yolo3' \(did you mean 'yolov3'\?\); expected prn or prn-3l or"
  ):
    compose(g, "ghostnet", "yolo3")
  with pytest.raises(GraphError, match="6 anchors given, but the levels p3, p4, p5 need exactly 9"):
    compose(g, "darknet53", "yolov3", anchors=((1, 2),) * 6)
  with pytest.raises(PrnError, match=r"model 'yolov3-ghostnet': form='torch'; expected cfg or timm\."):
    build_graph("yolov3-ghostnet", form="torch")
  with pytest.raises(PrnError, match=r"model 'ghostnet': form='tim' \(did you mean 'timm'\?\); expected timm or cfg\."):
    build_graph("ghostnet", form="tim")
  with pytest.raises(PrnError, match=r"model 'mobilenetv3-large': form='TF'; expected timm or cfg or tf\."):
    build_graph("mobilenetv3-large", form="TF")


def test_only_networks_with_two_forms_take_one() -> None:
  assert get_spec("ghostnet-prn").options["form"] == "cfg"
  assert get_spec("efficientnet-lite0-prn").options["form"] == "tf"
  tf = build_graph("mobilenetv3-prn", form="tf")
  assert (tf["stem"].same, tf["stem"].bn_epsilon, tf["stem_normalize"].mean) == (True, 1e-3, (0.5, 0.5, 0.5))
  assert "form" not in get_spec("yolov3-spp3").options
