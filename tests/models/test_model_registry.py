"""The registry itself: look-up, options, sizes, error texts, and that it needs no JAX."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from prn_jax.errors import GraphError, ModelNotFoundError, PrnError
from prn_jax.graph.graph import default_name
from prn_jax.models import build_graph, get_spec, list_models

# pelee-ssd's coarsest maps come from unpadded convolutions: their size is no quotient of the image's.
DETECTORS = [name for name in list_models() if get_spec(name).task == "detect" and name != "pelee-ssd"]
CLASSIFIERS = [name for name in list_models() if get_spec(name).task == "classify"]


def test_every_promised_model_is_registered():
  promised = """yolov2 yolov2-tiny yolov3 yolov3-spp yolov3-tiny yolov3-tiny-3l yolov3-tiny-prn enet-b0-prn yolov4
    yolov4-tiny yolov4-csp yolov7-tiny darknet19 darknet53 csdarknet53-omega efficientnet-b0 resnet50 resnet101
    resnet152 densenet201 tiny-darknet yolov3-fprn yolov3-prn darknet53-fprn darknet53-prn-shrink
    darknet53-prn-expand darknet53-prn-bottleneck peleenet pelee-ssd pelee-prn pelee-prn-3l pelee-yolov3 pelee-fpn
    mpelee-prn yolov3-tiny-prn-3l densenet121 resnext50 sparsenet-40-24 sparsenet-bc-100-24"""
  assert set(promised.split()) <= set(list_models())
  assert list_models() == sorted(list_models())


@pytest.mark.parametrize("name", list_models())
def test_names_are_chosen_and_the_graph_carries_the_models_name(name):
  graph = build_graph(name)
  assert graph.name == name
  assert (graph.width, graph.height) == (get_spec(name).width, get_spec(name).height)
  defaults = [layer.name for i, layer in enumerate(graph) if layer.name == default_name(layer, i)]
  assert defaults == []
  bare = [layer.name for layer in graph if re.fullmatch(rf"({layer.kind}_?)?\d*", layer.name)]
  assert bare == []


def test_underscores_stand_for_hyphens():
  assert get_spec("yolov3_tiny_prn") is get_spec("yolov3-tiny-prn")
  assert build_graph("yolov3_tiny_3l").name == "yolov3-tiny-3l"


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_with_three_classes_at_another_size(name):
  graph = build_graph(name, width=160, height=96, num_classes=3)
  assert [head.classes for head in graph.heads] == [3] * len(build_graph(name).heads)
  coarsest = min((graph.shapes[head.name] for head in graph.heads), key=lambda shape: shape.width)
  stride = 16 if name == "traffic-nano-prn" else get_spec(name).stride  # its deepest map, at stride 32, has no head
  assert (coarsest.width, coarsest.height) == (160 // stride, 96 // stride)
  for head in graph.heads:
    anchors = len(head.anchor_indices) if head.kind == "yolo" else len(head.anchors)
    assert graph.shapes[head.name].channels == anchors * (5 + 3)


def test_ssd_has_the_maps_and_boxes_of_its_paper():
  graph = build_graph("pelee-ssd", num_classes=3)
  assert [graph.shapes[head.name][:2] for head in graph.heads] == [(n, n) for n in (19, 19, 10, 5, 3, 1)]
  assert [head.anchor_indices for head in graph.heads] == [tuple(range(i, i + 6)) for i in range(0, 36, 6)]
  assert {graph.shapes[head.name].channels for head in graph.heads} == {6 * (5 + 3)}
  boxes = graph.heads[0].anchors
  assert boxes[0] == (21, 21)  # 7% of 304
  assert boxes[1] == (31, 31)  # half-way, in ratio, to 15%
  assert boxes[2] == (30, 15)  # the area of the first, twice as wide as high
  assert build_graph("pelee-ssd", width=608, height=304).shapes["head_p8_yolo"][:2] == (1, 6)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_with_three_classes_at_another_size(name):
  graph = build_graph(name, width=160, height=96, num_classes=3)
  (head,) = graph.heads
  assert head.kind == "softmax"
  assert graph.shapes[head.name] == (1, 1, 3)
  assert graph.shapes["head_pool"][:2] == (1, 1)
  default = build_graph(name)
  assert default.shapes[default.heads[0].name] == (1, 1, get_spec(name).options["num_classes"])


@pytest.mark.parametrize("name", list_models())
def test_the_smallest_input_of_one_stride_fits(name):
  stride = get_spec(name).stride
  graph = build_graph(name, width=stride, height=stride)
  assert len(graph) == len(build_graph(name))


def test_one_side_alone_keeps_the_default_of_the_other():
  graph = build_graph("yolov4", width=320)
  assert (graph.width, graph.height) == (320, 608)


def test_own_anchors():
  anchors = [[8, 9], [16, 17], [32, 33], [64, 65], [128, 129], [256, 257]]
  graph = build_graph("yolov3-tiny", anchors=anchors)
  assert graph["head_p4_yolo"].anchors == tuple((float(w), float(h)) for w, h in anchors)
  assert build_graph("yolov2", anchors=anchors)["head_conv"].filters == 6 * 85


def test_a_shared_backbone_has_the_same_names():
  classifier, detector = build_graph("darknet53"), build_graph("yolov3-spp", width=256, height=256)
  backbone = [layer for layer in classifier if not layer.name.startswith("head_")]
  assert list(detector)[: len(backbone)] == backbone
  assert len(backbone) == 75
  csp = build_graph("csdarknet53-omega")
  assert list(build_graph("yolov4"))[:105] == list(csp)[:105]


def test_unknown_model():
  with pytest.raises(ModelNotFoundError) as error:
    get_spec("yolo3-tiny-prn")
  assert str(error.value) == (
    "no model is called 'yolo3-tiny-prn' (did you mean 'yolov3-tiny-prn'?). "
    f"'prn models' lists all {len(list_models())}."
  )
  with pytest.raises(ModelNotFoundError, match=r"no model is called 'xyz'\. 'prn models' lists all"):
    build_graph("xyz")


def test_unknown_option():
  with pytest.raises(PrnError) as error:
    build_graph("yolov3", num_clases=3)
  assert str(error.value) == (
    "model 'yolov3' has no option 'num_clases' (did you mean 'num_classes'?). "
    "It takes width, height, num_classes, anchors."
  )


@pytest.mark.parametrize("classes", [0, -3, 2.0, True, "80"])
def test_bad_number_of_classes(classes):
  expected = re.escape(f"model 'darknet19': num_classes={classes!r}; expected a whole number of at least 1.")
  with pytest.raises(PrnError, match=expected):
    build_graph("darknet19", num_classes=classes)


def test_a_size_that_does_not_fit():
  with pytest.raises(GraphError) as error:
    build_graph("yolov3", width=100, height=100)
  text = str(error.value)
  assert text.startswith("model 'yolov3' at 100x100: layer 'p4_concat' (route")
  assert "'p4_up' is 8x8x256" in text
  assert "'stage4_unit8_add' is 7x7x512" in text
  assert text.endswith("Sides that are multiples of 32 always fit.")
  with pytest.raises(PrnError, match=r"model 'yolov3' at 0x416: width and height must be at least 1\."):
    build_graph("yolov3", width=0)


def test_wrong_anchors():
  with pytest.raises(
    GraphError,
    match=r"layer 'head_p5_yolo': 2 anchors given, but the levels p3, p4, p5 need exactly 9 \(width, height\) pairs\.",
  ):
    build_graph("yolov3", anchors=((1, 2), (3, 4)))
  with pytest.raises(GraphError, match=r"anchors=\(1, 2\); expected \(width, height\) pairs such as"):
    build_graph("yolov2", anchors=(1, 2))


def test_published_figures_name_their_source():
  for name in list_models():
    for figures in get_spec(name).published:
      assert len(figures.source) > 10
      assert any(
        value is not None
        for value in (figures.bflops, figures.params_m, figures.ap, figures.ap50, figures.top1, figures.top5)
      )


def test_the_registry_does_not_import_jax():
  code = "import sys; from prn_jax.models import *; build_graph('yolov4'); sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
