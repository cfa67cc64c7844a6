"""Ways to choose what goes: named combinations of a scope, a score of units, and constraints.

| method | scope | score of a unit | floor | source |
|---|---|---|---|---|
| normal | channels that go by themselves | gamma | 1 | network slimming (Liu et al., ICCV 2017) |
| regular | the same | gamma | multiples of 8 | the same, for hardware |
| shortcut | and what shortcuts tie | gamma of the first layer | 1 | usual among scripts for YOLO |
| slim | the same | largest gamma of all layers | 1% of each | SlimYOLOv3 (Zhang et al., 2019) |
| l1 | every unit | sum of a filter's weights, largest of all layers | 1 | Li et al., ICLR 2017 |
| group-norm | every unit | norm of all its filters with batch norm folded in, by the mean of its family | 1 | DepGraph (Fang et al., CVPR 2023) |
| variance | every unit | share of the variance of what the layers behind it read (`variance`) | 1 | Berisha et al., ICCV 2025 |
| variance-per-op | every unit | the same, for each operation that goes with it | 1 | ours: where operations are short |
| random | every unit | chance | 1 | what any method should beat |

Whole residual blocks go by `blocks.least_blocks`, alone or before the channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.graph.prune_scopes import Scope
from prn_jax.nested import flattened
from prn_jax.prune.units import Unit, find_units
from prn_jax.prune.variance import variance_shares
from prn_jax.transforms.fold_batchnorm import folded
from prn_jax.transforms.prune import without_channels

Variables = dict[str, Any]

_FEWEST = 8  # filters of a family, where they are rounded to a multiple at all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """A way to choose units.

  Attributes:
    scope: see `prune_scopes.Scope`.
    score: "gamma", "l1", "norm", "variance" or "random".
    over: how the scores of a unit's layers become one: "first", "max" or "mean".
    is_relative: whether scores are divided by the mean of their family first.
    per_operation: whether they are divided by the multiply-adds that go with the unit.
    round_to: filters are left in multiples of this.
    keep_share: the share of every family that stays at least.
  """

  scope: Scope = Scope.COUPLED
  score: str = "gamma"
  over: str = "max"
  is_relative: bool = False
  per_operation: bool = False
  round_to: int = 1
  keep_share: float = 0.0


METHODS: Mapping[str, Method] = {
  "normal": Method(scope=Scope.NORMAL),
  "regular": Method(scope=Scope.NORMAL, round_to=8),
  "shortcut": Method(scope=Scope.ALL, over="first"),
  "slim": Method(scope=Scope.ALL, keep_share=0.01),
  "l1": Method(score="l1"),
  "group-norm": Method(score="norm", over="mean", is_relative=True),
  "variance": Method(score="variance"),
  "variance-per-op": Method(score="variance", per_operation=True),
  "random": Method(score="random"),
}


def get_method(name: str) -> Method:
  """PrnError, with the nearest name, if there is none called `name`."""
  if name not in METHODS:
    raise PrnError(f"pruning method '{name}'{did_you_mean(name, METHODS)}; expected one of {', '.join(METHODS)}.")
  return METHODS[name]


# -- scores ------------------------------------------------------------------------------------------------------------


def scores(
  graph: Graph, variables: Variables, units: Sequence[Unit], method: Method, seed: int = 0
) -> NDArray[np.float64]:
  """(units,) how much each matters, at least 0.

  Raises:
    PrnError: the score is gamma, and no unit has batch norm.
  """
  if method.score == "random":
    return np.random.default_rng(seed).random(len(units))
  if method.score == "variance":
    shares = variance_shares(graph, variables, units)
    return shares / operations(graph, units) if method.per_operation else shares
  layers = {name for unit in units for name in unit.family}
  measured = {name: _filters(graph, variables, name, method.score) for name in layers}
  found = np.array([_of_unit(unit, measured, method.over) for unit in units])
  if len(units) and np.isnan(found).all():
    raise PrnError(
      f"network '{graph.name}' has no batch norm in what may go, so that there are no gammas to judge by. Take the method "
      "'variance' or 'l1', which judge by kernels too."
    )
  found = np.nan_to_num(found, nan=np.inf)
  if method.is_relative:
    families = [unit.family for unit in units]
    sums, counts = Counter[tuple[str, ...]](), Counter(families)
    for family, value in zip(families, found, strict=True):
      sums[family] += value
    found = np.array([v * counts[f] / sums[f] if sums[f] else 0.0 for f, v in zip(families, found, strict=True)])
  return found


def operations(graph: Graph, units: Sequence[Unit]) -> NDArray[np.float64]:
  """(units,) multiply-adds that go with each unit alone, by its part of what its layers make and their readers read."""
  made, read = {}, dict.fromkeys(graph.shapes, 0.0)
  for row in cost(graph).layers:
    made[row.layer.name] = row.macs / row.output.channels
    if row.macs and row.inputs:
      read[row.layer.inputs[0]] += row.macs / row.inputs[0].channels
  return np.array([sum(made[name] + read[name] for name, _ in unit.channels) for unit in units])


def _of_unit(unit: Unit, measured: Mapping[str, NDArray[np.float64]], over: str) -> float:
  values = [measured[name][i] for name, i in unit.makers]
  values = [value for value in values if not math.isnan(value)]
  if not values:
    return math.nan
  if over == "first":
    return values[0]
  return max(values) if over == "max" else sum(values) / len(values)


def _filters(graph: Graph, variables: Variables, name: str, score: str) -> NDArray[np.float64]:
  """One figure for every filter of a layer; NaN where the score is not defined."""
  layer = graph[name]
  owner = layer.shared_with or name
  params = variables["params"][owner]
  filters = graph.shapes[name].channels
  if score == "gamma":
    return np.abs(np.asarray(params["bn"]["scale"], np.float64)) if layer.has_batchnorm else np.full(filters, math.nan)
  arrays = [
    array
    for array in graph.arrays(graph[owner])
    if array.makes is not None and array.path.endswith(("kernel", "vector"))
  ]
  if not arrays:
    return np.full(filters, math.nan)
  value = np.asarray(flattened(variables)[arrays[0].key(owner)], np.float64)
  if score == "norm" and layer.has_batchnorm:
    value = np.asarray(
      folded(graph[owner], params, variables["batch_stats"][owner])[0][layer.kernel]["kernel"], np.float64
    )
  assert arrays[0].makes is not None
  rows = np.moveaxis(value, arrays[0].makes, 0).reshape(filters, -1)
  return np.abs(rows).sum(1) if score == "l1" else np.sqrt(np.square(rows).sum(1))


# -- selection ---------------------------------------------------------------------------------------------------------


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


def choose(
  graph: Graph,
  variables: Variables,
  method: Method,
  *,
  share: float | None = None,
  flops: float | None = None,
  round_to: int | None = None,
  min_keep: int = 1,
  seed: int = 0,
) -> Choice:
  """The units of least score, so that either a share of them goes or a share of the operations stays.

  Args:
    share: the share of the units of the scope that goes, in (0, 1).
    flops: the share of the operations that stays, in (0, 1); found by bisection, from below.
    round_to: the number of which filters of every family are left in multiples, upwards, or all; None is the method's own.
    min_keep: how many of every family stay at least.
    seed: the seed of the method random.

  Raises:
    PrnError: a number is out of its range, nothing may go, or the operations cannot become so few.
  """
  units = find_units(graph, method.scope)
  if not units:
    raise PrnError(f"network '{graph.name}' has no channels that may go in the scope '{method.scope}'.")
  found = scores(graph, variables, units, method, seed)
  order = sorted(range(len(units)), key=lambda i: (found[i], -i))  # of equal ones the last goes first
  limits = _Limits(Counter(unit.family for unit in units), round_to or method.round_to, min_keep, method.keep_share)

  def first(count: int) -> list[int]:
    return limits.allowed([(i, units[i].family) for i in order[:count]], found)

  if share is not None:
    if not 0 < share < 1:
      raise PrnError(f"a share of {share:g} of the channels; expected more than 0 and less than 1.")
    gone = first(int(len(units) * share))
  else:
    gone = _for_flops(graph, units, first, flops)
  total = float(found[np.isfinite(found)].sum())
  lost = float(sum(found[i] for i in gone if math.isfinite(found[i])))
  return Choice(tuple(units[i] for i in sorted(gone)), len(units), lost / total if total else 0.0)


def _for_flops(
  graph: Graph, units: Sequence[Unit], first: Callable[[int], list[int]], flops: float | None
) -> list[int]:
  if flops is None or not 0 < flops < 1:
    raise PrnError(f"{flops} of the operations; expected more than 0 and less than 1.")
  whole = cost(graph).macs

  def left(count: int) -> float:
    return cost(without_channels(graph, [units[i].channels for i in first(count)])).macs / whole

  low, high = 0, len(units)
  if left(high) > flops:
    raise PrnError(
      f"network '{graph.name}' keeps {left(high):.0%} of its operations when all goes that this method may take; "
      f"{flops:.0%} cannot be reached. Take a method with a wider scope (variance), or more operations."
    )
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if left(middle) <= flops else (middle, high)
  return first(high)


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
    return kept(size, left, self.round_to, fewest)


def kept(size: int, left: int, base: int, floor: int) -> int:
  """How many of `size` channels stay where `left` would: the next multiple of `base`, at least `floor`, at most all.

  Example: kept(40, 39, 32, 1) is 40, kept(80, 79, 32, 1) is 80, kept(160, 80, 32, 1) is 96.
  """
  return min(size, max(floor, -(-left // base) * base))


def is_sparse(choice: Choice) -> bool:
  """Whether what goes hardly matters by its scores: at most a twentieth of their sum."""
  return choice.removed_share <= 0.05


def by_layer(graph: Graph, compact: Graph) -> list[dict[str, Any]]:
  """Rows of a table: layers with weights of both networks, their channels, parameters and operations."""
  before, after = ({row.layer.name: row for row in cost(one).layers} for one in (graph, compact))
  return [
    {
      "layer": name,
      "channels": graph.shapes[name].channels,
      "channels_left": compact.shapes[name].channels if name in after else 0,
      "params": row.params,
      "params_left": after[name].params if name in after else 0,
      "bflops": row.flops / 1e9,
      "bflops_left": after[name].flops / 1e9 if name in after else 0.0,
    }
    for name, row in before.items()
    if row.params
  ]
