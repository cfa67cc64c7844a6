"""What each kind says that it reads (`Layer.reads`), against automatic differentiation of its lowering.

The Jacobian of every kind, on random sizes and fields, is zero where the kind says that an output channel does not
depend on an input channel, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.channels import How, Reads, Span, cut, fold, joined, keep, merged, mix, pick, weigh
from prn_jax.graph.graph import KINDS, Context, Graph, Layer, Shape
from prn_jax.kinds.activation import ACTIVATIONS
from prn_jax.network import LayerScope, unflatten_variables

IMAGES = 24  # so many that every maximum and every positive part is met
ANCHORS = ((1.0, 1.0), (2.0, 2.0))
Draw = Callable[[Builder, random.Random], str]


def stated(graph: Graph, layer: Layer) -> list[NDArray[np.bool_]]:
  """(output channels, input channels) of every input: True where the kind says that one depends on the other."""
  tables = []
  for name, reads in zip(layer.inputs, graph.reads(layer), strict=True):
    table = np.zeros((graph.shapes[layer.name].channels, graph.shapes[name].channels), bool)
    for start, end, out_start, out_end, how in reads.spans:
      if how is How.KEEP:
        table[range(out_start, out_end), range(start, end)] = True
      else:
        table[out_start:out_end, start:end] = True
    tables.append(table)
  return tables


def found(graph: Graph, layer: Layer, seed: int) -> list[NDArray[np.bool_]]:
  """The same by the Jacobian of the layer's lowering. Cells have random weights, so that no sum over them is constant."""
  rng = np.random.default_rng(seed)
  xs = [rng.normal(size=(IMAGES, *shape)).astype(np.float32) for shape in graph.input_shapes(layer)]
  weights = rng.normal(size=(IMAGES, *graph.shapes[layer.name])).astype(np.float32)
  arrays: dict[str, NDArray[np.float32]] = {}
  for array in graph.arrays(layer):
    arrays[array.key(layer.name)] = layer.initial(array, rng)
  variables = {kind: of_layers[layer.name] for kind, of_layers in unflatten_variables(arrays).items()}

  def by_channel(xs: list[jax.Array]) -> jax.Array:
    return (LayerScope().apply(variables, layer, xs, Context()) * weights).sum(axis=(0, 1, 2))

  jacobians = jax.jit(jax.jacrev(by_channel), compiler_options={"xla_backend_optimization_level": 0})(xs)
  # (output channels, images, height, width, input channels) each
  return [np.asarray(jacobian).any(axis=(1, 2, 3)) for jacobian in jacobians]


def check(graph: Graph, name: str, seed: int) -> None:
  for by_kind, by_jacobian in zip(stated(graph, graph[name]), found(graph, graph[name], seed), strict=True):
    np.testing.assert_array_equal(by_kind, by_jacobian)


def divisor(rng: random.Random, *numbers: int, least: int = 1) -> int:
  return rng.choice([d for d in range(least, min(numbers) + 1) if not any(n % d for n in numbers)] or [1])


# -- one layer of every kind -----------------------------------------------------------------------------------


def narrow(g: Builder, rng: random.Random) -> str:
  """A map of some of the channels of the image."""
  g.last = "input"
  return g.maxpool(1, 1, depth_out=rng.randint(1, g.shape("input").channels))


def conv(g: Builder, rng: random.Random, **fields: object) -> str:
  groups = divisor(rng, g.shape().channels)
  fields = {"batch_normalize": rng.random() < 0.5, "antialiasing": rng.choice([0, 0, 1, 2])} | fields
  return g.conv(groups * rng.randint(1, 3), 3, padding=1, groups=groups, **fields)


def depthwise(g: Builder, rng: random.Random, **fields: object) -> str:
  return g.conv(g.shape().channels, 3, padding=1, groups=g.shape().channels, **fields)


def channel_by_channel(g: Builder, rng: random.Random, factor: int = 1, **fields: object) -> str:
  fields = {"batch_normalize": rng.random() < 0.5, "same": rng.random() < 0.5} | fields
  return g.depthwise(factor * g.shape().channels, 3, **fields)


def quantized_conv(g: Builder, rng: random.Random, **fields: object) -> str:
  """Rounded to 8 bits, few of which are 0."""
  groups = divisor(rng, g.shape().channels)
  return g.quantized_conv(groups * rng.randint(1, 3), 3, padding=1, groups=groups, **fields)


def squeeze_excite(g: Builder, rng: random.Random, **fields: object) -> str:
  """Several hidden channels, and a gate that is nowhere flat."""
  return g.se(**{"squeezed": 6, "biased": rng.random() < 0.5, "gate": "logistic"} | fields)


def softmax(g: Builder, rng: random.Random) -> str:
  """Blocks of several values: the softmax of one is 1, whatever the value."""
  size = g.shape().size
  return g.softmax(groups=size // divisor(rng, size, least=2))


def region(g: Builder, rng: random.Random, *, has_softmax: bool) -> str:
  g.route("input", "input")
  return g.region(g.shape().channels // 2 - 5, ANCHORS, softmax=has_softmax)


def head(kind: str, entries: int) -> Draw:
  def add(g: Builder, rng: random.Random) -> str:
    g.route("input", "input")
    return getattr(g, kind)(g.shape().channels // 2 - entries, ANCHORS)

  return add


def reorg(g: Builder, rng: random.Random, *, reverse: bool) -> str:
  stride = rng.choice([1, 2, 2])
  g.route(*["input"] * stride**2)
  return g.reorg(stride, reverse=reverse)


def route(g: Builder, rng: random.Random) -> str:
  sources = rng.sample(["input", "input", narrow(g, rng), narrow(g, rng)], rng.randint(1, 4))
  groups = divisor(rng, *(g.shape(name).channels for name in sources))
  return g.route(*sources, groups=groups, group_id=rng.randrange(groups))


def shortcut(g: Builder, rng: random.Random, **fields: object) -> str:
  sources = [narrow(g, rng), narrow(g, rng), "input"]
  g.last = sources.pop(rng.randrange(3))
  return g.shortcut(*rng.sample(sources, rng.randint(1, 2)), **fields)


def weighted_shortcut(g: Builder, rng: random.Random) -> str:
  kind, how = rng.choice(["per_feature", "per_channel"]), rng.choice(["relu", "softmax"])
  return shortcut(g, rng, weights_type=kind, weights_normalization=how)


def sam(g: Builder, rng: random.Random, **fields: object) -> str:
  g.activation()
  return g.sam("input", **fields)


def scale_channels(g: Builder, rng: random.Random, **fields: object) -> str:
  g.avgpool()
  return g.scale_channels("input", **fields)


def scale_cells(g: Builder, rng: random.Random, **fields: object) -> str:
  g.maxpool(1, 1, depth_out=1)
  return g.scale_channels("input", scale_wh=True, **fields)


ALL: dict[str, Draw] = {
  "activation": lambda g, rng: g.activation(activation="leaky"),
  "avgpool": lambda g, rng: g.avgpool(),
  "batchnorm": lambda g, rng: g.batchnorm(),
  "connected": lambda g, rng: g.connected(rng.randint(1, 9), batch_normalize=rng.random() < 0.5),
  "conv": conv,
  "conv of each channel": depthwise,
  "cost": lambda g, rng: g.cost(),
  "crop": lambda g, rng: g.crop(height=rng.randint(1, 4), width=rng.randint(1, 4)),
  "depthwise": lambda g, rng: channel_by_channel(g, rng),
  "depthwise of several": lambda g, rng: channel_by_channel(g, rng, factor=2),
  "dropout": lambda g, rng: g.dropout(),
  "empty": lambda g, rng: g.empty(),
  "gaussian_yolo": head("gaussian_yolo", 9),
  "local_avgpool": lambda g, rng: g.local_avgpool(rng.randint(1, 3), rng.randint(1, 2)),
  "maxpool": lambda g, rng: g.maxpool(rng.randint(1, 3), rng.randint(1, 2), antialiasing=rng.choice([0, 0, 1])),
  "maxpool over channels": narrow,
  "normalize": lambda g, rng: g.normalize(*[(0.5,) * g.shape().channels] * 2),
  "quantize": lambda g, rng: g.quantize(),
  "quantized_conv": lambda g, rng: quantized_conv(g, rng),
  "region": lambda g, rng: region(g, rng, has_softmax=True),
  "region of raw classes": lambda g, rng: region(g, rng, has_softmax=False),
  "reorg": lambda g, rng: reorg(g, rng, reverse=False),
  "reorg back": lambda g, rng: reorg(g, rng, reverse=True),
  "reorg3d": lambda g, rng: g.reorg3d(rng.choice([1, 2, 4])),
  "route": route,
  "sam": sam,
  "scale_channels": scale_channels,
  "scale_channels of one": scale_cells,
  "se": squeeze_excite,
  "shortcut": shortcut,
  "shortcut of less": lambda g, rng: (narrow(g, rng), g.route("input"), g.shortcut("maxpool_0"))[2],
  "shortcut of more": lambda g, rng: (narrow(g, rng), g.shortcut("input"))[1],
  "shortcut with weights": weighted_shortcut,
  "softmax": softmax,
  "upsample": lambda g, rng: g.upsample(rng.choice([2, -2]), scale=0.5),
  "yolo": head("yolo", 5),
}
LEAST = {"region": 7, "region of raw classes": 6, "yolo": 5, "gaussian_yolo": 9}  # channels; classes need two


def test_every_kind_is_compared() -> None:
  assert {name.split()[0] for name in ALL} == KINDS.keys() - {"implicit"}  # which reads nothing


SEEDS = range(3)


def drawn(name: str, seed: int) -> tuple[Graph, Layer]:
  rng = random.Random(f"{name} a {seed}")
  least = LEAST.get(name, 1)
  g = Builder(4, 4, channels=rng.randint(least, least + 11))
  last = ALL[name](g, rng)
  return g.graph(), g.graph()[last]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ALL)
def test_a_kind_reads_what_the_jacobian_says(name: str, seed: int) -> None:
  graph, layer = drawn(name, seed)
  check(graph, layer.name, seed)


def test_the_random_layers_hold_what_matters() -> None:
  """Grouped kernels, several groups of a route, partial shortcuts on both sides, softmax across channels and in them."""

  def three(name: str) -> list[tuple[Any, int, int]]:
    """(layer, channels of its last input, channels of its output)"""
    layers = [drawn(name, seed) for seed in SEEDS]
    return [
      (layer, graph.input_shapes(layer)[-1].channels, graph.shapes[layer.name].channels) for graph, layer in layers
    ]

  assert any(1 < layer.groups < channels for layer, channels, _ in three("conv"))
  assert any(layer.groups > 1 for layer, _, _ in three("route"))
  assert any(source > output for _, source, output in three("shortcut of more"))
  assert any(source < output for _, source, output in three("shortcut of less"))
  assert any(source % output for _, source, output in three("maxpool over channels"))
  assert {layer.groups > channels for layer, channels, _ in three("softmax")} == {True, False}


# -- activations -----------------------------------------------------------------------------------------------

WITH_ACTIVATION = {
  "connected": lambda g, rng, activation: g.connected(5, activation=activation),
  "conv": lambda g, rng, activation: g.conv(6, groups=2, activation=activation),
  "conv of each channel": lambda g, rng, activation: depthwise(g, rng, activation=activation),
  "depthwise": lambda g, rng, activation: channel_by_channel(g, rng, activation=activation),
  "quantized_conv": lambda g, rng, activation: quantized_conv(g, rng, activation=activation),
  "se": lambda g, rng, activation: squeeze_excite(g, rng, activation=activation),
  "sam": lambda g, rng, activation: sam(g, rng, activation=activation),
  "scale_channels": lambda g, rng, activation: scale_channels(g, rng, activation=activation),
  "scale_channels of one": lambda g, rng, activation: scale_cells(g, rng, activation=activation),
  "shortcut": lambda g, rng, activation: shortcut(g, rng, activation=activation),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_reads_what_the_jacobian_says(activation: str) -> None:
  g = Builder(4, 4, channels=5)
  g.activation(activation=activation, name="act")
  check(g.graph(), "act", 0)


@pytest.mark.parametrize("activation", ["mish", "normalize_channels", "normalize_channels_softmax"])
@pytest.mark.parametrize("name", WITH_ACTIVATION)
def test_a_kind_with_an_activation_reads_what_the_jacobian_says(name: str, activation: str) -> None:
  g = Builder(4, 4, channels=6)
  last = WITH_ACTIVATION[name](g, random.Random(name), activation)
  check(g.graph(), last, 1)


def test_every_kind_with_an_activation_is_compared() -> None:
  have = {kind for kind, cls in KINDS.items() if "activation" in {field.name for field in dataclasses.fields(cls)}}
  assert {name.split()[0] for name in WITH_ACTIVATION} == have - {"activation"}


def test_a_new_kind_mixes_everything() -> None:
  layer = Layer(name="new", inputs=("a", "b"))
  a, b, output = Shape(1, 1, 3), Shape(1, 1, 4), Shape(1, 1, 2)
  assert layer.reads([a, b], output) == (mix(3, 2), mix(4, 2))
  assert [one.spans[0].how for one in layer.reads([a, b], output)] == [How.MIX] * 2


# -- the relation itself, by hand ------------------------------------------------------------------------------


def test_spans() -> None:
  assert keep(4).spans == (Span(0, 4, 0, 4, How.KEEP),)
  assert cut(2, 4, at=5).spans == (Span(2, 4, 5, 7, How.KEEP),)
  assert cut(2, 2).spans == ()
  assert pick([2, 3, 0]).spans == (Span(2, 4, 0, 2, How.KEEP), Span(0, 1, 2, 3, How.KEEP))
  assert fold(5, 2).spans == (*cut(0, 2).spans, *cut(2, 4).spans, *cut(4, 5).spans)
  assert weigh(4, 6, groups=2).spans == (Span(0, 2, 0, 3, How.WEIGH), Span(2, 4, 3, 6, How.WEIGH))
  assert joined([cut(0, 2), mix(3, 2)], [4, 3]).spans == (Span(0, 2, 0, 2, How.KEEP), Span(4, 7, 0, 2, How.MIX))
  assert merged([(4, 6), (0, 2), (1, 3), (3, 4), (8, 9)]) == ((0, 6), (8, 9))


@pytest.mark.parametrize(
  ("reads", "one_to_one", "kept"),
  [
    (keep(4), True, True),
    (cut(0, 3), True, False),
    (cut(1, 4), True, False),
    (pick([1, 0, 3, 2]), True, False),
    (pick([0, 1, 2, 3, 0, 1, 2, 3]), False, False),
    (fold(4, 2), False, False),
    (weigh(4, 4), False, False),
    (mix(4, 4), False, False),
  ],
)
def test_what_is_taken_as_it_is(reads: Reads, one_to_one: bool, kept: bool) -> None:
  assert (reads.is_one_to_one, reads.keeps(4)) == (one_to_one, kept)


def test_there_and_back() -> None:
  grouped, shuffled = weigh(4, 6, groups=2), pick([0, 2, 1, 3])
  assert grouped.inputs_of([(0, 1), (2, 3)]) == ((0, 2),)
  assert grouped.inputs_of([(2, 4)]) == ((0, 4),)
  assert grouped.outputs_of([(3, 4)]) == ((3, 6),)
  assert shuffled.inputs_of([(0, 2)]) == ((0, 1), (2, 3))
  assert shuffled.outputs_of([(2, 4)]) == ((1, 2), (3, 4))
  assert grouped.mixed(6).spans == (Span(0, 2, 0, 6, How.WEIGH), Span(2, 4, 0, 6, How.WEIGH))
  assert cut(0, 2).mixed(4).spans == (Span(0, 2, 0, 4, How.MIX),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claims(Layer):
  """A kind that says what it is told to say."""

  kind = "claims"
  answers: tuple[Reads, ...] = ()

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return self.answers


@pytest.mark.parametrize(
  ("answers", "message"),
  [
    ((), r"layer 'x' \(claims\): reads\(\) has 0 answers; expected one for each of the 1 inputs\."),
    (
      (cut(1, 4),),
      r"layer 'x' \(claims\): reads\(\) says that channels 1 to 3 of 'input' give channels 0 to 2; expected 0 to 2 and 0 to 2\.",
    ),
  ],
)
def test_a_kind_that_says_what_cannot_be(answers: tuple[Reads, ...], message: str) -> None:
  graph = Graph((Claims(name="x", inputs=("input",), answers=answers),), 4, 4)
  with pytest.raises(GraphError, match=message):
    graph.reads(graph["x"])
