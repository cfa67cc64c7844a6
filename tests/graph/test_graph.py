"""Graphs and their builder: errors on the user's line, names, sizes, memory, receptive fields."""

from __future__ import annotations

import dataclasses
import inspect
import math

import pytest

from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import KINDS, Graph, Shape, WeightArray
from prn_jax.graph.receptive import receptive_fields
from prn_jax.kinds.avgpool import AvgPool
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.implicit import Implicit
from prn_jax.kinds.maxpool import MaxPool
from prn_jax.kinds.yolo import Yolo


def line() -> int:
  frame = inspect.currentframe()
  assert frame is not None
  assert frame.f_back is not None
  return frame.f_back.f_lineno


def residual() -> Builder:
  g = Builder(16, 8, name="net")
  c1 = g.conv(8, 3, padding=1, name="c1")
  g.conv(4, 3, stride=2, padding=1, name="c2")
  g.upsample(2, name="up")
  g.shortcut(c1, name="skip")
  return g


def test_builder_reports_the_callers_line() -> None:
  g = residual()
  g.maxpool(2, 2, name="half")
  with pytest.raises(GraphError) as caught:
    g.route("half", "c1", name="both")
  expected = (
    f"layer 'both' (route, test_graph.py:{line() - 2}): 'c1' is 16x8x8 but 'half' is 8x4x4. Width and height must "
    "match. Did you mean 'c2' (8x4x4), or is an upsample missing before it?"
  )
  assert str(caught.value) == expected


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda g: g.conv(8, name="c1"), r"'c1' \(conv, .*\): the name is used twice\. Give every layer its own name\."),
    (lambda g: g.conv(8, name="C1"), r"'C1' .*: bad name; expected lower-case letters, digits and '_', starting"),
    (lambda g: g.conv(8, name="params"), r"'params' .*: bad name; .* and none of input, params\."),
    (lambda g: g.conv(8, name="input"), r"'input' .*: bad name"),
    (lambda g: g.shortcut("skp"), r"'shortcut_4' .*: no earlier layer is called 'skp' \(did you mean 'skip'\?\)\."),
    (lambda g: g.shortcut(), r"needs at least one source \(cfg key 'from'\)\."),
    (lambda g: g.route(["c1", "up"]), r"no earlier layer is called '\['c1', 'up'\]'"),
    (lambda g: g.conv(8, fliters=3), r"has no field 'fliters' \(did you mean 'filters'\?\)\."),
    (lambda g: g.conv(8, filters=3), r"got 1 positional values and filters; its fields are filters, size, stride,"),
    (lambda g: g.empty(1), r"got 1 positional values and no names; its fields are none\."),
    (lambda g: g.conv(8, share="skp"), r"shares the weights of 'skp', which is no earlier layer \(did you mean 'skip'"),
    (lambda g: g.conv(8, share="input"), r"shares the weights of 'input', which is no earlier layer\."),
    (lambda g: g.conv(8, activation="leeky"), r"there is no activation 'leeky' \(did you mean 'leaky'\?\)\."),
    (lambda g: g.maxpool(0), r"size=0, stride=1x1, padding=-1; expected at least 1 each, and padding at least 0\."),
    (lambda g: g.maxpool(depth_out=-1), r"depth_out=-1 \(cfg key out_channels\); expected 1 to 4, the input channels\."),
    (lambda g: g.yolo(anchors=()), r"has no anchors; expected anchors=WIDTH,HEIGHT"),
    (lambda g: g.yolo(anchors=((1, 0),)), r"anchor 0 is \(1, 0\); expected a positive width and height\."),
    (lambda g: g.yolo(anchors=((1, math.inf),)), r"anchor 0 is \(1, inf\); expected a positive"),
    (lambda g: g.yolo(anchors=((1, 2),), nms_kind="soft"), r"nms_kind=soft; expected one of default, greedynms,"),
    (lambda g: g.upsample(2**20), r"16777216x8388608x4, 562,949,953,421,312 values; expected at most 2,147,483,647\."),
  ],
)  # fmt: skip
def test_builder_errors(build: object, message: str) -> None:
  with pytest.raises(GraphError, match=message):
    build(residual())  # type: ignore[operator]


def test_failed_layer_leaves_the_builder_as_it_was() -> None:
  g = residual()
  with pytest.raises(GraphError):
    g.shortcut("nobody")
  assert g.last == "skip"
  assert [layer.name for layer in g.graph()] == ["c1", "c2", "up", "skip"]


def test_unknown_kind() -> None:
  with pytest.raises(AttributeError, match=r"no layer kind is called 'convolution'"):
    residual().convolution(3)


@pytest.mark.parametrize(
  ("layer", "message"),
  [
    (Conv(name="a", inputs=()), r"has 0 inputs \[\]; expected exactly one\."),
    (AvgPool(name="a", inputs=("input", "input")), r"has 2 inputs \['input', 'input'\]; expected exactly one\."),
    (Implicit(name="a", inputs=("input",)), r"has 1 inputs \['input'\]; expected none\."),
    (KINDS["shortcut"](name="a", inputs=()), r"has 0 inputs \[\]; expected the layer before it, then the sources\."),
    (KINDS["route"](name="a", inputs=()), r"needs at least one source \(cfg key 'layers'\)\."),
  ],
)
def test_wrong_number_of_inputs(layer: object, message: str) -> None:
  with pytest.raises(GraphError, match=message):
    Graph((layer,), 8, 8)  # type: ignore[arg-type]


def test_graph_without_layers_or_size() -> None:
  with pytest.raises(GraphError, match=r"network 'x' has no layers\."):
    Graph((), 8, 8, name="x")
  conv = Conv(name="a", inputs=("input",))
  with pytest.raises(GraphError, match=r"network 'x' has input 8x0x3; width, height and channels must be at least 1\."):
    Graph((conv,), 8, 0, name="x")
  with pytest.raises(
    GraphError, match=r"network 'x' has input 100000x100000x3; expected at most 2,147,483,647 values\."
  ):
    Graph((conv,), 100_000, 100_000, name="x")


def test_equal_layers_have_one_form() -> None:
  """Two ways to say the same thing compare equal, and so survive a dump."""
  one = {"name": "a", "inputs": ("input",)}
  assert Conv(**one, stride=2, stride_x=2, stride_y=2) == Conv(**one, stride=2)
  assert Conv(**one, size=1, dilation=3) == Conv(**one, size=1)
  assert Conv(**one, size=3, dilation=3) != Conv(**one, size=3)
  assert MaxPool(**one, size=3, padding=2) == MaxPool(**one, size=3)
  assert MaxPool(**one, size=3, stride=2, stride_x=2) == MaxPool(**one, size=3, stride=2)
  two = {"classes": 1, "anchors": ((1.0, 2.0), (3.0, 4.0))}
  assert Yolo(**one, **two, mask=(0, 1)) == Yolo(**one, **two)
  assert Yolo(**one, classes=1, anchors=[[1, 2], [3, 4]], mask=[0]) == Yolo(**one, **two, mask=(0,))
  assert hash(Yolo(**one, classes=1, anchors=[[1, 2]], mask=[0])) is not None


def test_names() -> None:
  graph = residual().graph()
  assert graph["skip"] is graph.layers[3]
  with pytest.raises(KeyError, match=r"network 'net' has no layer 'skp' \(did you mean 'skip'\?\)"):
    graph["skp"]
  canonical = graph.canonical()
  assert [layer.name for layer in canonical] == ["conv_0", "conv_1", "upsample_2", "shortcut_3"]
  assert canonical.layers[3].inputs == ("upsample_2", "conv_0")
  assert graph.renamed({"c1": "stem"}).layers[3].inputs == ("up", "stem")
  assert dataclasses.replace(graph, name="other") == graph


def test_rename_follows_shared_weights() -> None:
  g = Builder(8, 8)
  g.conv(3, name="a")
  g.conv(3, name="b", share="a")
  graph = g.graph().renamed({"a": "first"})
  assert graph["b"].shared_with == "first"
  assert graph.arrays(graph["b"]) == ()
  assert [a.path for a in graph.arrays(graph["first"])] == ["conv/bias", "conv/kernel"]


def test_resized() -> None:
  graph = residual().graph().resized(32, 64)
  assert graph.shapes["skip"] == Shape(64, 32, 4)
  assert str(graph.shapes["skip"]) == "32x64x4"


def test_heads() -> None:
  """Detection heads, else the last layer that computes."""
  g = residual()
  assert [layer.name for layer in g.graph().heads] == ["skip"]
  g.softmax(name="out")
  g.cost()
  assert [layer.name for layer in g.graph().heads] == ["out"]
  g.conv(6, name="logits")
  g.yolo(classes=1, anchors=((1, 2),), name="small")
  g.conv(12)
  g.yolo(classes=1, anchors=((1, 2), (3, 4)), name="large")
  assert [layer.name for layer in g.graph().heads] == ["small", "large"]


def test_weight_array_shapes() -> None:
  kernel = WeightArray("dense/kernel", "params", (5, 3, 2, 4), (2, 3, 1, 0), (24, 5))
  assert (kernel.size, kernel.permuted_shape, kernel.array_shape) == (120, (2, 4, 3, 5), (24, 5))
  assert WeightArray("bn/bias", "params", (7,)).array_shape == (7,)


def test_peak_memory_by_hand() -> None:
  """float32 values alive while each layer runs: input 16x8x3 = 384, c1 16x8x8 = 1024, c2 8x4x4 = 128, up 512, skip 512.

  c1: 384 + 1024. c2: 1024 + 128. up: 1024 + 128 + 512. skip: 1024 + 512 + 512 = 2048, the most.
  """
  assert cost(residual().graph()).peak_activation_bytes == 4 * 2048


def test_peak_memory_does_not_count_layers_that_pass_on() -> None:
  g = Builder(8, 8, 1)
  g.conv(4, name="a")  # 64 + 256
  g.dropout()
  g.route("a")
  g.conv(1)  # 256 + 64
  assert cost(g.graph()).peak_activation_bytes == 4 * 320


def test_receptive_field_by_hand() -> None:
  """3x3: 3. Pool 2/2 behind it: 3 + 1 * 1 = 4, stride 2. 3x3: 4 + 2 * 2 = 8. Dilation 2 (5 wide): 8 + 4 * 2 = 16."""
  g = Builder(64, 64)
  g.conv(1, 3, padding=1, name="a")
  g.maxpool(2, 2, name="b")
  g.conv(1, 3, padding=1, name="c")
  g.conv(1, 3, padding=1, dilation=2, name="d")
  g.upsample(2, name="e")
  g.conv(1, 3, padding=1, stride_x=2, name="f")
  g.avgpool(name="g")
  fields = receptive_fields(g.graph())
  assert [fields[name].size for name in "abcd"] == [(3, 3), (4, 4), (8, 8), (16, 16)]
  assert [fields[name].stride for name in "abcdef"] == [(1, 1), (2, 2), (2, 2), (2, 2), (1, 1), (1, 2)]
  assert fields["g"].size == (math.inf, math.inf)


def test_defaults_of_one_kind() -> None:
  """For the layers inside the `with` alone; what a layer says itself goes before."""
  g = Builder(8, 8, defaults={"leaky_slope": 0.2})
  with g.defaults_of("conv", leaky_slope=0.01, activation="leaky"):
    g.conv(4, name="a")
    with g.defaults_of("conv", activation="relu"):
      g.conv(4, leaky_slope=0.3, name="b")
    g.shortcut("a", name="c")
  g.conv(4, name="d")
  found = [(layer.activation, layer.leaky_slope) for layer in g.graph()]
  assert found == [("leaky", 0.01), ("relu", 0.3), ("linear", 0.2), ("linear", 0.2)]
