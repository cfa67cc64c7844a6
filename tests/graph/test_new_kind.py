"""A kind that only this file knows is analysed, cut and warm-started as those of the package, from what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import pytest

from prn_jax.analyze.memory import live_memory
from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.channels import Reads, pick
from prn_jax.graph.cost import cost
from prn_jax.graph.gradients import gradients
from prn_jax.graph.graph import KINDS, SECTIONS, Context, Graph, Layer, Shape, register_kind
from prn_jax.model import Model
from prn_jax.network import Network, init_variables
from prn_jax.transforms.partial_residual import shrink
from prn_jax.transforms.stages import with_filters
from prn_jax.transforms.warm_start import warm_start
from tests.graph.test_channels import check
from tests.nets import random_model


@pytest.fixture(autouse=True)
def shuffle() -> Iterator[None]:
  """[shuffle] and [scramble], known for the time of one test."""

  @register_kind
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Shuffle(Layer):
    """The channels of `groups` equal blocks in turns, as in ShuffleNet."""

    kind = "shuffle"
    sections = ("shuffle",)
    groups: int = 2

    def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
      order = np.arange(output.channels).reshape(self.groups, -1).T.reshape(-1)
      return (pick(order.tolist(), blocks=self.groups),)

    def lower(self, xs: Sequence[jax.Array], ctx: Context) -> jax.Array:
      n, h, w, c = xs[0].shape
      return xs[0].reshape(n, h, w, self.groups, -1).swapaxes(3, 4).reshape(n, h, w, c)

  @register_kind
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Scramble(Shuffle):
    """The same, but it does not say what it reads."""

    kind = "scramble"
    sections = ("scramble",)

    def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
      return Layer.reads(self, inputs, output)

  yield
  for kind in ("shuffle", "scramble"):
    del KINDS[kind], SECTIONS[kind]


def partial(between: str, **fields: object) -> Graph:
  """A convolution of 8 channels, a layer behind it, of which a partial shortcut adds the first four."""
  g = Builder(4, 4)
  g.conv(8, name="a")
  x = getattr(g, between)(**fields, name="between")
  g.conv(4, name="b")
  g.shortcut(x, name="sum")
  return g.graph()


def ranges(graph: Graph, name: str) -> list[tuple[int, int, tuple[str, ...]]]:
  return [(r.start, r.end, r.sources) for x in gradients(graph) if x.name == name for r in x.ranges]


def by_autodiff(graph: Graph) -> list[bool]:
  """Channels of the convolution `a` to which the shortcut hands a gradient past the convolution `b`, whose kernel is 0."""
  variables = jax.tree.map(np.array, init_variables(graph))
  variables["params"]["b"]["conv"]["kernel"][:] = 0
  variables["params"]["a"]["conv"]["bias"][:] = 3  # positive everywhere
  x = np.random.default_rng(0).random((4, 4, 4, 3), np.float32)
  weights = np.random.default_rng(1).normal(size=(4, 4, 4, 4)).astype(np.float32)

  def loss(bias: np.ndarray) -> jax.Array:
    params = variables["params"] | {"a": {"conv": {**variables["params"]["a"]["conv"], "bias": bias}}}
    return (Network(graph).apply({"params": params}, x)["sum"] * weights).sum()

  return (np.asarray(jax.grad(loss)(variables["params"]["a"]["conv"]["bias"])) != 0).tolist()


LOSS = "loss:sum"


def reached(graph: Graph) -> list[bool]:
  return [LOSS in sources for start, end, sources in ranges(graph, "a") for _ in range(start, end)]


def test_a_shuffle_is_analysed() -> None:
  graph = partial("shuffle")
  assert ranges(graph, "a") == [(0, 2, (LOSS, "b")), (2, 4, ("b",)), (4, 6, (LOSS, "b")), (6, 8, ("b",))]
  assert reached(graph) == by_autodiff(graph)
  check(graph, "between", 0)


@pytest.mark.parametrize(
  "activation", ["normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval", "leaky"]
)
def test_activations_across_channels_are_analysed(activation: str) -> None:
  graph = partial("activation", activation=activation)
  assert reached(graph) == by_autodiff(graph) == [True] * 4 + [activation != "leaky"] * 4


def test_a_kind_that_says_nothing_is_analysed_safely() -> None:
  graph = partial("scramble")
  assert ranges(graph, "a") == [(0, 8, (LOSS, "b"))]
  assert sum(by_autodiff(graph)) == 4


def test_memory_and_cost_of_a_shuffle() -> None:
  """It needs memory of its own; the shortcut waits for four of its channels, of 4x4 cells."""
  graph = partial("shuffle")
  (kept,) = live_memory(graph).kept
  assert (kept.source, kept.channels, kept.kept_channels) == ("between", 8, 4)
  assert cost(graph).peak_activation_bytes == 4 * 16 * (8 + 4 + 4)


def net(between: str) -> Graph:
  g = Builder(4, 4)
  g.conv(8, 3, padding=1, name="a")
  getattr(g, between)(name="between")
  g.batchnorm(name="norm")
  g.conv(5, name="b")
  return g.graph()


def outputs(graph: Graph, variables: dict[str, object]) -> np.ndarray:
  x = np.random.default_rng(3).random((2, 4, 4, 3), np.float32)
  return np.asarray(Model(graph, variables).forward(x)["b"])


def test_a_network_with_a_shuffle_is_cut() -> None:
  """Without channels 1 and 5 of the first convolution, which stand side by side behind the shuffle. Where their weights
  were 0, and the batch norm behind hands 0 on, nothing changes."""
  model = random_model(net("shuffle"))
  graph, kept = model.graph, [0, 2, 3, 4, 6, 7]
  variables = jax.tree.map(np.array, model.variables)
  for leaf in variables["params"]["a"]["conv"].values():
    leaf[..., [1, 5]] = 0
  for tree, leaf in (("params", "bias"), ("batch_stats", "mean")):
    variables[tree]["norm"]["bn"][leaf][[2, 3]] = 0
  changed = with_filters(graph, {"a": 6})
  cut = warm_start(graph, variables, changed, {"a": kept})
  np.testing.assert_array_equal(
    cut["params"]["b"]["conv"]["kernel"], variables["params"]["b"]["conv"]["kernel"][:, :, [0, 1, 4, 5, 6, 7]]
  )
  np.testing.assert_allclose(outputs(changed, cut), outputs(graph, variables), atol=1e-6)


def test_a_network_with_a_kind_that_says_nothing_is_not_cut() -> None:
  graph = net("scramble")
  variables = init_variables(graph)
  np.testing.assert_equal(warm_start(graph, variables, graph), variables)
  with pytest.raises(
    GraphError, match=r"layer 'norm' \(batchnorm\) reads 6 channels that it does not read in 'network'"
  ):
    warm_start(graph, variables, with_filters(graph, {"a": 6}), {"a": [0, 2, 3, 4, 6, 7]})


def test_a_stage_with_a_shuffle_shrinks() -> None:
  """Blocks that end with a shuffle are no blocks of the paper, for their channels change places; others are."""
  g = Builder(8, 8)
  g.conv(8, 3, padding=1, name="stem")
  for unit in (1, 2):
    x = g.last
    g.conv(8, groups=2, name=f"unit{unit}_conv1")
    g.shuffle(name=f"unit{unit}_shuffle")
    g.conv(8, groups=2, name=f"unit{unit}_conv2")
    g.shortcut(x, name=f"unit{unit}_add")
  graph = g.graph()
  changed = shrink(graph, 0.5)
  assert [changed.shapes[f"unit{unit}_add"].channels for unit in (1, 2)] == [6, 4]
  found = warm_start(graph, init_variables(graph), changed)
  assert found["params"]["unit2_conv2"]["conv"]["kernel"].shape == (1, 1, 4, 4)
