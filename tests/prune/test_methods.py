"""What the methods choose, on numbers that can be checked by hand."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prn_jax.errors import PrnError
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.models import build_graph
from prn_jax.network import Network, init_variables
from prn_jax.prune import selection
from prn_jax.prune.blocks import least_blocks, without_blocks
from prn_jax.prune.methods import METHODS, Method, get_method, operations, scores
from prn_jax.prune.recalibrate import recalibrated
from prn_jax.prune.selection import Goal, Kept, Target, choose, is_sparse, num_kept
from prn_jax.prune.units import find_units
from prn_jax.transforms.prune import without_channels
from tests.nets import random_model


def chain() -> tuple[Graph, Any]:
  """a (4) -> b (4) -> end, with the gammas 1, 2, 3, 4 of a and 0, 0, 5, 6 of b."""
  g = Builder(8, 8)
  g.conv(4, 3, padding=1, batch_normalize=True, activation="leaky", name="a")
  g.conv(4, 3, padding=1, batch_normalize=True, activation="leaky", name="b")
  g.conv(3, name="end")
  graph = g.graph()
  variables = init_variables(graph)
  variables["params"]["a"]["bn"]["scale"] = np.array([1, 2, 3, -4], np.float32)
  variables["params"]["b"]["bn"]["scale"] = np.array([0, 0, 5, 6], np.float32)
  return graph, variables


def gone(graph: Graph, variables: Any, method: Method, *how: Any) -> set[str]:
  return {f"{name}:{i}" for unit in choose(graph, variables, method, *how).units for name, i in unit.makers}


def test_the_least_gammas_go_and_of_equal_ones_the_last() -> None:
  graph, variables = chain()
  assert gone(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.25)) == {"b:0", "b:1"}
  assert gone(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.125)) == {"b:1"}
  assert gone(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.5)) == {"a:0", "a:1", "b:0", "b:1"}
  assert gone(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.875), Kept(min_keep=2)) == {
    "a:0",
    "a:1",
    "b:0",
    "b:1",
  }
  assert gone(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.99)) == {
    "a:0",
    "a:1",
    "a:2",
    "b:0",
    "b:1",
    "b:2",
  }


def test_scores_by_hand() -> None:
  graph, variables = chain()
  units = find_units(graph)
  kernel = np.asarray(variables["params"]["b"]["conv"]["kernel"])
  by_l1 = scores(graph, variables, units, METHODS["l1"])
  np.testing.assert_allclose(by_l1[4:], np.abs(kernel).sum((0, 1, 2)), rtol=1e-6)
  folded = np.sqrt(np.square(kernel).sum((0, 1, 2))) * np.array([0, 0, 5, 6]) / np.sqrt(1 + 1e-5)
  relative = scores(graph, variables, units, METHODS["group-norm"])
  np.testing.assert_allclose(relative[4:], folded / folded.mean(), rtol=1e-6)


def test_a_sum_counts_all_of_its_layers_or_the_first() -> None:
  g = Builder(8, 8)
  a = g.conv(2, 3, padding=1, batch_normalize=True, name="a")
  g.conv(2, 3, padding=1, batch_normalize=True, name="b")
  g.shortcut(a, name="sum")
  g.conv(3, name="end")
  graph = g.graph()
  variables = init_variables(graph)
  variables["params"]["a"]["bn"]["scale"] = np.array([1, 3], np.float32)
  variables["params"]["b"]["bn"]["scale"] = np.array([5, 2], np.float32)
  units = find_units(graph)
  assert [unit.family for unit in units] == [("a", "b")] * 2
  assert list(scores(graph, variables, units, METHODS["slim"])) == [5, 3]
  assert list(scores(graph, variables, units, METHODS["shortcut"])) == [1, 3]
  assert find_units(graph, METHODS["normal"].scope) == []


@pytest.mark.parametrize(
  ("size", "left", "expected"),
  [(24, 18, 24), (40, 39, 40), (64, 48, 64), (80, 79, 80), (112, 56, 64), (160, 80, 96), (255, 254, 255), (64, 0, 8)],
)
def test_rounding(size: int, left: int, expected: int) -> None:
  """The wrong cases of other programs, with the right answers."""
  assert num_kept(size, left, 32, 8) == expected


@given(size=st.integers(8, 2048), share=st.floats(0, 1), base=st.sampled_from([1, 8, 16, 32]), floor=st.integers(1, 8))
def test_rounding_of_any_width(size: int, share: float, base: int, floor: int) -> None:
  left = int(size * share)
  found = num_kept(size, left, base, floor)
  assert max(left, floor) <= found <= size
  assert found in (size, floor) or found % base == 0


def test_rounded_widths_of_a_network() -> None:
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  choice = choose(graph, init_variables(graph, 2), METHODS["l1"], Target(Goal.SHARE, 0.4), Kept(round_to=8))
  compact = without_channels(graph, [unit.channels for unit in choice.units])
  assert all(
    shape.channels % 8 == 0 for layer in compact if (shape := compact.shapes[layer.name]) and layer.has_batchnorm
  )


@pytest.mark.parametrize("flops", [0.3, 0.7])
def test_operations_are_hit_exactly(flops: float) -> None:
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  choice = choose(graph, init_variables(graph, 2), METHODS["group-norm"], Target(Goal.FLOPS, flops))
  whole, units = cost(graph).macs, list(choice.units)
  assert cost(without_channels(graph, [unit.channels for unit in units])).macs <= flops * whole
  assert cost(without_channels(graph, [unit.channels for unit in units])).macs > (flops - 0.02) * whole


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
  """A machine that needs 10 ms for yolov3-tiny-prn and less in proportion to its operations; gives the measured times."""
  whole, seen = cost(build_graph("yolov3-tiny-prn", width=64, height=64)).macs, list[float]()

  def latencies(graphs: dict[str, Graph]) -> dict[str, float]:
    (graph,) = graphs.values()
    seen.append(10 * cost(graph).macs / whole)
    return {"network": seen[-1]}

  monkeypatch.setattr(selection, "latencies", latencies)
  return seen


def test_a_time_is_searched_in_few_steps(timed: list[float]) -> None:
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  choice = choose(graph, init_variables(graph, 2), METHODS["group-norm"], Target(Goal.LATENCY, 4.0))
  left = without_channels(graph, [unit.channels for unit in choice.units])
  assert 0.36 < cost(left).macs / cost(graph).macs <= 0.4
  assert len(timed) <= 9  # every one compiles a network


def test_words_about_times(timed: list[float]) -> None:
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  variables = init_variables(graph)
  with pytest.raises(PrnError) as unreachable:
    choose(graph, variables, METHODS["l1"], Target(Goal.LATENCY, 0.001))
  least = re.match(
    r"network 'yolov3-tiny-prn' takes (0\.\d+) ms when all goes that this method may take; 0\.001 ms cannot be reached. "
    r"Measured on .* CPU cores.* threads?, batch 1, 64x64. Take a method with a wider scope",
    str(unreachable.value),
  )
  assert least
  assert float(least[1]) == pytest.approx(timed[0], abs=0.01)
  with pytest.raises(
    PrnError, match=r"takes 10\.00 ms as it is, and 12 ms are allowed: nothing has to go. Measured on"
  ):
    choose(graph, variables, METHODS["l1"], Target(Goal.LATENCY, 12))
  with pytest.raises(PrnError, match=r"a time of -1 ms; expected more than 0"):
    choose(graph, variables, METHODS["l1"], Target(Goal.LATENCY, -1))


def test_parameters_are_hit_exactly() -> None:
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  choice = choose(graph, init_variables(graph, 2), METHODS["l1"], Target(Goal.PARAMS, 0.4))
  left = cost(without_channels(graph, [unit.channels for unit in choice.units])).params / cost(graph).params
  assert 0.39 < left <= 0.4


def test_sparse_or_not() -> None:
  graph, variables = chain()
  assert is_sparse(choose(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.25)))
  assert not is_sparse(choose(graph, variables, METHODS["normal"], Target(Goal.SHARE, 0.5)))


def test_blocks() -> None:
  graph = build_graph("darknet-cifar")
  variables = init_variables(graph, 1)
  blocks = least_blocks(graph, variables, 1)
  name = blocks[0].output
  variables["params"][name]["bn"]["scale"] = np.zeros_like(variables["params"][name]["bn"]["scale"])
  assert least_blocks(graph, variables, 1)[0].output == name
  fewer, left = without_blocks(graph, variables, blocks)
  assert len(fewer) == len(graph) - len(blocks[0].branch) - 1
  variables["params"][name]["bn"]["bias"] = np.zeros_like(variables["params"][name]["bn"]["bias"])
  x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  before, after = (jax.jit(Network(g).apply)(v, x) for g, v in ((graph, variables), (fewer, left)))
  for key, value in before.items():
    np.testing.assert_allclose(after[key], value, atol=1e-5)
  with pytest.raises(PrnError, match="99 residual blocks to remove; network 'darknet-cifar' has 10"):
    least_blocks(graph, variables, 99)


def test_statistics_of_batch_norm_are_the_mean_of_the_batches() -> None:
  model = random_model()
  rng = np.random.default_rng(0)
  batches = [rng.random((2, 32, 32, 3), np.float32) for _ in range(3)]
  found = recalibrated(model.graph, model.variables, batches)
  network = Network(model.graph, precision=jax.lax.Precision.HIGHEST)
  stems = [np.asarray(network.apply(model.variables, x, layers="all", train=True, mutable=["batch_stats"])[1]["batch_stats"]["stem"]["bn"]["mean"]) for x in batches]  # fmt: skip
  momentum = Network(model.graph).bn_momentum
  old = np.asarray(model.variables["batch_stats"]["stem"]["bn"]["mean"])
  means = [(stem - momentum * old) / (1 - momentum) for stem in stems]
  np.testing.assert_allclose(found["batch_stats"]["stem"]["bn"]["mean"], np.mean(means, 0), atol=1e-4)
  assert found["params"] is model.variables["params"]
  with pytest.raises(PrnError, match="no images to estimate batch norm from"):
    recalibrated(model.graph, model.variables, [])


def test_words() -> None:
  with pytest.raises(
    PrnError, match=r"pruning method 'slimm' \(did you mean 'slim'\?\); expected one of normal, regular"
  ):
    get_method("slimm")
  graph, variables = chain()
  with pytest.raises(PrnError, match=r"a share of 1\.5 of the channels; expected more than 0 and less than 1"):
    choose(graph, variables, METHODS["normal"], Target(Goal.SHARE, 1.5))
  with pytest.raises(
    PrnError, match=r"keeps \d+% of its operations when all goes that this method may take; 1% cannot"
  ):
    choose(graph, variables, METHODS["normal"], Target(Goal.FLOPS, 0.01))
  g = Builder(8, 8)
  g.conv(4, name="a")
  g.conv(3, name="end")
  plain = g.graph()
  with pytest.raises(PrnError, match="has no batch norm in what may go, so that there are no gammas to judge by"):
    choose(plain, init_variables(plain), Method(), Target(Goal.SHARE, 0.5))


def test_shares_of_variance_by_hand() -> None:
  """b reads a, end reads b: gammas 1, 2, 3, -4 count by their squares and by the weights behind."""
  graph, variables = chain()
  found = scores(graph, variables, find_units(graph), METHODS["variance"])
  kernel = np.square(np.asarray(variables["params"]["b"]["conv"]["kernel"], np.float64)).sum((0, 1))
  parts = kernel * np.array([1, 4, 9, 16])[:, None]
  np.testing.assert_allclose(found[:4], (parts / parts.sum(0)).mean(1))
  assert found[:4].sum() == pytest.approx(1)
  assert list(found[4:6]) == [0, 0]
  assert found[6:].sum() == pytest.approx(1)


def test_operations_that_go_with_a_unit() -> None:
  """Those of one unit alone, against the network without it."""
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  units, whole = find_units(graph), cost(graph).macs
  expected = operations(graph, units)
  for i in (0, len(units) // 2, len(units) - 1):
    left = cost(without_channels(graph, [units[i].channels])).macs
    assert whole - left == pytest.approx(
      expected[i], rel=0.02
    )  # a layer that loses input and output counts a corner twice


def test_shares_of_every_reader_add_up() -> None:
  """Through sums, routes and depthwise kernels: each layer that mixes channels gives its readers' units one in all."""
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  units = find_units(graph)
  found = scores(graph, init_variables(graph, 1), units, METHODS["variance"])
  mixing = [layer for layer in graph if layer.kernel and layer.inputs[0] != "input"]
  assert found.sum() == pytest.approx(len(mixing))
