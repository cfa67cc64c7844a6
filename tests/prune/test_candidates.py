"""EagleEye: candidates hit the target, are rated as their compact networks would be, and the best one goes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest

from prn_jax.errors import PrnError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.models import build_graph
from prn_jax.network import Network, init_variables
from prn_jax.prune.candidates import Rating, best_candidate, random_order
from prn_jax.prune.cut import cut, masked
from prn_jax.prune.methods import METHODS
from prn_jax.prune.recalibrate import recalibrated
from prn_jax.prune.selection import Goal, Kept, Target, measured
from prn_jax.prune.units import find_units
from prn_jax.transforms.prune import without_channels
from tests.nets import random_model, tiny_detector

METHOD = METHODS["eagle-eye"]


def test_a_share_of_every_family_goes_and_the_least_of_it_first() -> None:
  graph = build_graph("yolov3-tiny-prn", width=64, height=64)
  units = find_units(graph)
  size = np.random.default_rng(0).random(len(units))
  order = random_order(size, units, 7)
  gone = set(np.argsort(order)[: len(units) // 3].tolist())
  shares = []
  for family, count in Counter(unit.family for unit in units).items():
    own = [i for i, unit in enumerate(units) if unit.family == family]
    least = sorted(own, key=lambda i: size[i])[: len(gone & set(own))]
    assert gone & set(own) == set(least)
    shares.append(len(least) / count)
  assert max(shares) - min(shares) > 0.3  # layers differ, unlike with one threshold of ranks
  assert (order == random_order(size, units, 7)).all()
  assert (order != random_order(size, units, 8)).any()


def test_masks_are_rated_as_what_they_stand_for() -> None:
  """After adaptive batch norm, borders included, whatever the biases were."""
  graph = tiny_detector(64)
  model = random_model(graph)
  units = find_units(graph)[::3]
  images = [np.random.default_rng(i).random((2, 64, 64, 3), np.float32) for i in (0, 1)]
  run = jax.jit(Network(graph, precision="highest").apply)
  found = run(recalibrated(graph, masked(graph, model.variables, units), images), images[0])
  compact, variables = cut(graph, model.variables, units)
  expected = jax.jit(Network(compact, precision="highest").apply)(recalibrated(compact, variables, images), images[0])
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4 * float(np.abs(value).max()))


def wide() -> Graph:
  g = Builder(8, 8)
  for width in (64, 96, 64):
    g.conv(width, 3, padding=1, batch_normalize=True, activation="leaky")
  g.conv(3, name="end")
  return g.graph()


def search(target: Target, kept: Kept | None = None, count: int = 4, **how: Any) -> Any:
  """With a figure that counts the scales that are left of the first layer."""
  graph = wide()
  variables = init_variables(graph, 1)
  images = [np.random.default_rng(0).random((2, 8, 8, 3), np.float32)]
  layer = graph.layers[0].name

  def rate(changed: Any) -> float:
    assert not np.array_equal(
      changed["batch_stats"][layer]["bn"]["var"], variables["batch_stats"][layer]["bn"]["var"]
    )  # estimated again
    return float(np.count_nonzero(changed["params"][layer]["bn"]["scale"]))

  found = best_candidate(
    graph, variables, METHOD, target, kept or Kept(), seeds=range(5, 5 + count), images=images, rate=rate, **how
  )
  return graph, found


@pytest.mark.parametrize("goal", [Goal.FLOPS, Goal.PARAMS, Goal.SHARE])
def test_every_candidate_hits_the_target_and_the_best_one_goes(goal: Goal) -> None:
  seen: list[Rating] = []
  graph, found = search(Target(goal, 0.5), on_rating=seen.append)
  assert found.ratings == tuple(seen)
  assert [rating.seed for rating in seen] == [5, 6, 7, 8]
  assert all(abs(rating.reached - 0.5) <= 0.02 for rating in seen)
  assert found.ratings[found.best].figure == max(rating.figure for rating in seen)
  left = without_channels(graph, [unit.channels for unit in found.choice.units])
  if goal is not Goal.SHARE:
    assert measured(graph, left, goal) == found.ratings[found.best].reached
  assert search(Target(goal, 0.5), count=2)[1].ratings == tuple(seen[:2])


def test_words() -> None:
  with pytest.raises(PrnError, match=r"give the method eagle-eye a share of the channels \(--percent\)"):
    search(Target(Goal.LATENCY, 5.0))
  with pytest.raises(
    PrnError, match=r"none of 2 candidates comes within 0\.02 of the share 0\.9; the nearest misses it by"
  ):
    search(Target(Goal.SHARE, 0.9), Kept(min_keep=1000), 2)
  with pytest.raises(
    PrnError, match=r"keeps \d+% of its parameters when all goes that this method may take; 0% cannot"
  ):
    search(Target(Goal.PARAMS, 0.001), Kept(min_keep=32))
