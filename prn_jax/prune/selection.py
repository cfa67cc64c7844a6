"""Which units go, by their scores: the least first, until what is wanted is reached, within what must stay of every layer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import PrnError
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.prune.methods import Method, no_gammas, scores
from prn_jax.prune.units import Unit, find_units
from prn_jax.run.latency import latencies, measured_on
from prn_jax.transforms.prune import without_channels

Variables = dict[str, Any]

_FEWEST = 8  # filters of a family, where they are rounded to a multiple at all
_STEPS = 64  # a time is searched to this part of the units: every step compiles a network


class Goal(StrEnum):
  """What a pruning aims at.

  SHARE: the share of the units of the scope that goes.
  FLOPS, PARAMS: the share of the operations or parameters that stays.
  LATENCY: milliseconds for one image on this machine (`run.latency`).
  """

  SHARE = "share"
  FLOPS = "flops"
  PARAMS = "params"
  LATENCY = "latency"


class Target(NamedTuple):
  """How much goes; see `Goal`."""

  goal: Goal
  value: float


@dataclasses.dataclass(frozen=True)
class Choice:
  """What goes.

  Attributes:
    units: the units that go.
    considered: how many there were to choose from.
    removed_share: the sum of the scores of what goes, as a share of all: near 0 where the scores are sparse.
  """

  units: tuple[Unit, ...]
  considered: int
  removed_share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
  """What must stay.

  Attributes:
    round_to: the number of which filters of every family are left in multiples, upwards, or all; None is the method's own.
    min_keep: how many of every family stay at least.
  """

  round_to: int | None = None
  min_keep: int = 1


def choose(
  graph: Graph,
  variables: Variables,
  method: Method,
  target: Target,
  kept: Kept = Kept(),
  *,
  seed: int = 0,
) -> Choice:
  """The units of least score by the weights alone, as many as the target says.

  Args:
    graph, variables: the network.
    method, target, kept: see there.
    seed: the seed of the method random.

  Raises:
    PrnError: a number is out of its range, nothing may go, or the target cannot be reached.
  """
  units = units_for(graph, method)
  return by_scores(graph, units, scores(graph, variables, units, method, seed), method, target, kept)


def units_for(graph: Graph, method: Method) -> list[Unit]:
  """The units of the scope of a method; PrnError if there are none."""
  units = find_units(graph, method.scope)
  if not units and method.score == "gamma" and not any(layer.has_batchnorm for layer in graph):
    raise no_gammas(graph)
  if not units:
    raise PrnError(f"network '{graph.name}' has no channels that may go in the scope '{method.scope}'.")
  return units


def by_scores(
  graph: Graph, units: Sequence[Unit], found: NDArray[np.float64], method: Method, target: Target, kept: Kept
) -> Choice:
  """The units of least score, as many as the target says; all but a share of the units is found by bisection, from below.

  Args:
    graph: the network.
    units, found: its units, and (units,) what they are worth; infinity stays.
    method: gives what `kept` leaves open.
    target, kept: see there.

  Raises:
    PrnError: the value of the target is out of its range, or cannot be reached.
  """
  _check(target)
  order = sorted(range(len(units)), key=lambda i: (found[i], -i))  # of equal ones the last goes first
  sizes = Counter(unit.family for unit in units)
  limits = _Limits(sizes, kept.round_to or method.round_to, kept.min_keep, method.keep_share)

  def first(count: int) -> list[int]:
    return limits.allowed([(i, units[i].family) for i in order[:count]], found)

  def smaller(count: int) -> Graph:
    return without_channels(graph, [units[i].channels for i in first(count)])

  is_share = target.goal is Goal.SHARE
  gone = first(int(len(units) * target.value) if is_share else _least(graph, smaller, len(units), target))
  total = float(found[np.isfinite(found)].sum())
  lost = float(sum(found[i] for i in gone if math.isfinite(found[i])))
  return Choice(tuple(units[i] for i in sorted(gone)), len(units), lost / total if total else 0.0)


def _check(target: Target) -> None:
  goal, value = target
  if goal is Goal.LATENCY:
    if not value > 0 or not math.isfinite(value):
      raise PrnError(f"a time of {value:g} ms; expected more than 0.")
  elif not 0 < value < 1:
    what = {Goal.SHARE: "channels", Goal.FLOPS: "operations", Goal.PARAMS: "parameters"}[goal]
    raise PrnError(f"a share of {value:g} of the {what}; expected more than 0 and less than 1.")


def measured(whole: Graph, graph: Graph, goal: Goal) -> float:
  """What of a goal a smaller network comes to; not for SHARE, which is no matter of the network."""
  if goal is Goal.LATENCY:
    return latencies({"network": graph})["network"]
  old, new = cost(whole), cost(graph)
  return new.macs / old.macs if goal is Goal.FLOPS else new.params / old.params


def _least(graph: Graph, smaller: Callable[[int], Graph], units: int, target: Target) -> int:
  """The least number of units that must go for the target."""
  left = functools.cache(lambda count: measured(graph, smaller(count), target.goal))
  low, high = 0, units
  if left(high) > target.value:
    raise _unreachable(graph, target, left(high))
  if target.goal is Goal.LATENCY and left(low) <= target.value:
    raise PrnError(
      f"network '{graph.name}' takes {left(low):.2f} ms as it is, and {target.value:g} ms are allowed: nothing has to go. "
      f"Measured on {measured_on()}, batch 1, {graph.width}x{graph.height}."
    )
  step = max(1, units // _STEPS) if target.goal is Goal.LATENCY else 1
  while high - low > step:
    middle = (low + high) // 2
    low, high = (low, middle) if left(middle) <= target.value else (middle, high)
  return high


def _unreachable(graph: Graph, target: Target, least: float) -> PrnError:
  if target.goal is Goal.LATENCY:
    return PrnError(
      f"network '{graph.name}' takes {least:.2f} ms when all goes that this method may take; {target.value:g} ms cannot be "
      f"reached. Measured on {measured_on()}, batch 1, {graph.width}x{graph.height}. Take a method with a wider scope "
      "(variance), residual blocks (--blocks), a smaller input, or more time."
    )
  what = "operations" if target.goal is Goal.FLOPS else "parameters"
  return PrnError(
    f"network '{graph.name}' keeps {least:.0%} of its {what} when all goes that this method may take; {target.value:.0%} "
    f"cannot be reached. Take a method with a wider scope (variance), or more {what}."
  )


@dataclasses.dataclass(frozen=True)
class _Limits:
  """How many units of every family stay."""

  sizes: Mapping[tuple[str, ...], int]
  round_to: int
  min_keep: int
  keep_share: float

  def allowed(self, wanted: Sequence[tuple[int, tuple[str, ...]]], score: NDArray[np.float64]) -> list[int]:
    """Of those that should go, in order, the ones that may."""
    asked = Counter(family for _, family in wanted)
    budget = {family: size - self._kept(size, size - asked[family]) for family, size in self.sizes.items()}
    gone = []
    for index, family in wanted:
      if budget[family] > 0 and math.isfinite(score[index]):
        budget[family] -= 1
        gone.append(index)
    return gone

  def _kept(self, size: int, left: int) -> int:
    fewest = max(self.min_keep, int(size * self.keep_share), min(self.round_to, _FEWEST))
    return num_kept(size, left, self.round_to, fewest)


def num_kept(size: int, left: int, base: int, floor: int) -> int:
  """How many of `size` channels stay where `left` would: the next multiple of `base`, at least `floor`, at most all.

  Example: num_kept(40, 39, 32, 1) is 40, num_kept(80, 79, 32, 1) is 80, num_kept(160, 80, 32, 1) is 96.
  """
  return min(size, max(floor, -(-left // base) * base))


def is_sparse(choice: Choice) -> bool:
  """Whether what goes hardly matters by its scores: at most a twentieth of their sum."""
  return choice.removed_share <= 0.05
