"""Random candidates that hit the target, rated after adaptive batch norm; the best one goes (EagleEye).

Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning" (ECCV 2020): shares of the layers are drawn
at random, the filters with the least L1 norm of each layer go, batch norm is estimated again from images, and the candidate
with the best figure wins. What differs: a candidate is an order of all units, of which as many go as the target says, so that
every candidate hits it, where the paper draws until one does; constants of what goes are carried on; statistics begin
anew from images as they are at inference; and candidates run as masks of the whole network, which is compiled once.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.prune.cut import masked
from prn_jax.prune.methods import Method, scores
from prn_jax.prune.recalibrate import Recalibration
from prn_jax.prune.selection import Choice, Goal, Kept, Target, by_scores, measured, units_for
from prn_jax.prune.units import Unit
from prn_jax.transforms.prune import without_channels

Variables = dict[str, Any]

TOLERANCE = 0.02  # how far a candidate may be from the share that is wanted


class Rating(NamedTuple):
  """A candidate.

  Attributes:
    seed: the seed of its shares.
    reached: what it comes to, of the kind of the target.
    figure: its figure after adaptive batch norm.
  """

  seed: int
  reached: float
  figure: float


class Found(NamedTuple):
  """The best candidate.

  Attributes:
    choice: what goes. Its `removed_share` is 0: chance has no scores.
    best: its number in `ratings`.
    ratings: those of all candidates, in the order of their seeds.
  """

  choice: Choice
  best: int
  ratings: tuple[Rating, ...]


def random_order(by_size: NDArray[np.float64], units: Sequence[Unit], seed: int) -> NDArray[np.float64]:
  """(units,) scores whose order takes a random share of every family, those of least `by_size` first.

  A family with the share r has lost the fraction r s of its units when what goes has got to the scale s: the unit of rank k of
  n is worth (k / n) / r.

  Example: of two families of 4 with shares 1.0 and 0.5 the first has lost 2 units when the second has lost 1.
  """
  rng = np.random.default_rng(seed)
  sizes = Counter(unit.family for unit in units)
  shares = {family: rng.uniform(1e-3, 1.0) for family in sizes}
  ranks, seen = np.zeros(len(units)), Counter[tuple[str, ...]]()
  for i in np.argsort(by_size, kind="stable").tolist():
    family = units[i].family
    seen[family] += 1
    ranks[i] = seen[family] / sizes[family] / shares[family]
  return ranks


def best_candidate(
  graph: Graph,
  variables: Variables,
  method: Method,
  target: Target,
  kept: Kept,
  *,
  seeds: Sequence[int],
  images: Sequence[np.ndarray],
  rate: Callable[[Variables], float],
  on_rating: Callable[[Rating], None] = lambda rating: None,
) -> Found:
  """The best of some random candidates.

  Args:
    graph, variables: the network.
    method: its scope; filters are ranked by their L1 norms.
    target: a share of units, operations or parameters.
    kept: see `selection.Kept`.
    seeds: one for every candidate.
    images: batches from which batch norm is estimated again, see `recalibrate`.
    rate: figure of the whole network with variables of a candidate.
    on_rating: called with every rating as it comes.

  Raises:
    PrnError: the target is a time, cannot be reached, or no candidate comes within `TOLERANCE` of it.
  """
  if target.goal is Goal.LATENCY:
    raise PrnError(
      "with a time as the target every candidate would have to be timed: give the method eagle-eye a share of the channels "
      "(--percent), operations (--target-flops) or parameters (--target-params)."
    )
  units, calibrate = units_for(graph, method), Recalibration(graph)
  by_size = scores(graph, variables, units, dataclasses.replace(method, score="l1"))
  choices, ratings, nearest = list[Choice](), list[Rating](), float("inf")
  for seed in seeds:
    choice = by_scores(graph, units, random_order(by_size, units, seed), method, target, kept)
    reached = _reached(graph, choice, target)
    nearest = min(nearest, abs(reached - target.value))
    if abs(reached - target.value) <= TOLERANCE:
      figure = rate(calibrate(masked(graph, variables, choice.units), images))
      choices.append(choice)
      ratings.append(Rating(seed, reached, figure))
      on_rating(ratings[-1])
  if not choices:
    raise PrnError(
      f"none of {len(seeds)} candidates comes within {TOLERANCE:g} of the share {target.value:g}; the nearest misses it by "
      f"{nearest:.3f}. Take a smaller --round-to or --min-keep, more --candidates, or another share."
    )
  best = max(range(len(choices)), key=lambda i: ratings[i].figure)  # of equal ones the first
  return Found(dataclasses.replace(choices[best], removed_share=0.0), best, tuple(ratings))


def _reached(graph: Graph, choice: Choice, target: Target) -> float:
  if target.goal is Goal.SHARE:
    return len(choice.units) / choice.considered
  return measured(graph, without_channels(graph, [unit.channels for unit in choice.units]), target.goal)
