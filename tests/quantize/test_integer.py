"""Integers alone agree with the simulation in floats, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.kinds.quantize import Quantize
from prn_jax.model import Model
from prn_jax.quantize import integer, ptq
from prn_jax.quantize.integer import Fixed
from prn_jax.quantize.presets import preset_of
from tests.nets import random_model


def network(slope: float = 0.125) -> Graph:
  g = Builder(16, 16, name="shifts", defaults={"leaky_slope": slope})
  a = g.conv(8, size=3, padding=1, stride=2, batch_normalize=True, activation="leaky", name="a")
  g.conv(8, size=3, padding=1, groups=8, batch_normalize=True, activation="relu", name="each")
  g.conv(12, batch_normalize=True, name="b")
  g.shortcut(a, activation="leaky", name="sum")
  g.maxpool(2, 2, name="pool")
  g.upsample(2, name="up")
  g.route("up", a, name="both")
  g.conv(6, name="out")
  return g.graph()


def made(graph: Graph) -> tuple[Model, np.ndarray]:
  images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.float32) / 255
  return ptq.quantize(random_model(graph), preset_of("ptq-pow2"), [images]), images


@pytest.mark.parametrize("slope", [0.125, 0.1])  # Darknet's becomes 26/256
def test_every_map_agrees_to_the_last_bit(slope: float) -> None:
  model, images = made(network(slope))
  found = integer.run(model.graph, model.variables, images)
  wanted = model.forward(images, "all")
  compared = [layer.name for layer in model.graph if isinstance(layer, Quantize) or layer.name == "out"]
  assert len(compared) == 9
  for name in compared:
    assert found[name].floats().tobytes() == np.asarray(wanted[name]).tobytes(), name
    assert len(np.unique(found[name].values)) > 10
  sums = found["b"].values
  assert np.abs(sums).max() < 2**24  # where float32 is exact


def test_shifts_round_halves_away_and_cut_off() -> None:
  x = Fixed(np.int64([5, 6, 7, -6, -5, 4000, -4000]), 4)  # 0.3125, 0.375, ...
  assert integer.requantized(x, 2, -128, 127).values.tolist() == [1, 2, 2, -2, -1, 127, -128]
  assert integer.requantized(x, 5, -128, 127).values.tolist() == [10, 12, 14, -12, -10, 127, -128]


def test_what_has_no_shifts_is_named() -> None:
  _, images = made(network())
  with pytest.raises(OutOfScopeError, match=r"layer 'a' has leaky_slope=0.1; expected a multiple of 1/256"):
    integer.slope_integers("leaky", 0.1, "layer 'a'")
  apart = ptq.quantize(random_model(network()), preset_of("ptq-minmax"), [images])
  with pytest.raises(OutOfScopeError, match=r"no power of two. Quantise with --preset ptq-pow2"):
    integer.run(apart.graph, apart.variables, images)


def test_an_adder_needs_one_scale() -> None:
  layer = network()["sum"]
  maps = [Fixed(np.zeros((1, 2, 2, 4), np.int64), bits) for bits in (5, 7)]
  with pytest.raises(
    OutOfScopeError, match=r"layer 'sum' adds maps with .5, 7. fraction bits; an adder needs one scale"
  ):
    integer._output(network(), layer, {}, maps)
