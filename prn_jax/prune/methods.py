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
| taylor | every unit | mean square of its first-order share of the training loss (`taylor`) | 1 | Molchanov et al., CVPR 2019 |
| group-taylor | every unit | the same, by the mean of its family | 1 | the same, normalised as in DepGraph |
| eagle-eye | every unit | random shares of layers, the best of many rated after adaptive batch norm (`candidates`) | 1 | Li et al., ECCV 2020 |
| random | every unit | chance | 1 | what any method should beat |

Whole residual blocks go by `blocks.least_blocks`, alone or before the channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.graph.prune_scopes import Scope
from prn_jax.nested import flattened
from prn_jax.prune.units import Unit
from prn_jax.prune.variance import variance_shares
from prn_jax.transforms.fold_batchnorm import folded

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """A way to choose units.

  Attributes:
    scope: see `prune_scopes.Scope`.
    score: "gamma", "l1", "norm", "variance" or "random"; "taylor" and "candidates" need more than weights (`needs_data`).
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

  @property
  def needs_data(self) -> bool:
    """Whether annotated images decide, not weights alone."""
    return self.score in ("taylor", "candidates")


METHODS: Mapping[str, Method] = {
  "normal": Method(scope=Scope.NORMAL),
  "regular": Method(scope=Scope.NORMAL, round_to=8),
  "shortcut": Method(scope=Scope.ALL, over="first"),
  "slim": Method(scope=Scope.ALL, keep_share=0.01),
  "l1": Method(score="l1"),
  "group-norm": Method(score="norm", over="mean", is_relative=True),
  "variance": Method(score="variance"),
  "variance-per-op": Method(score="variance", per_operation=True),
  "taylor": Method(score="taylor"),
  "group-taylor": Method(score="taylor", is_relative=True),
  "eagle-eye": Method(score="candidates"),
  "random": Method(score="random"),
}


def get_method(name: str) -> Method:
  """PrnError, with the nearest name, if there is none called `name`."""
  if name not in METHODS:
    raise PrnError(f"pruning method '{name}'{did_you_mean(name, METHODS)}; expected one of {', '.join(METHODS)}.")
  return METHODS[name]


def scores(
  graph: Graph, variables: Variables, units: Sequence[Unit], method: Method, seed: int = 0
) -> NDArray[np.float64]:
  """(units,) how much each matters by the weights alone, at least 0.

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
    raise no_gammas(graph)
  found = np.nan_to_num(found, nan=np.inf)
  return by_family(found, units) if method.is_relative else found


def no_gammas(graph: Graph) -> PrnError:
  """What is said of a network without batch norm to a method that judges by it."""
  return PrnError(
    f"network '{graph.name}' has no batch norm in what may go, so that there are no gammas to judge by. Take the method "
    "'variance' or 'l1', which judge by kernels too."
  )


def by_family(found: NDArray[np.float64], units: Sequence[Unit]) -> NDArray[np.float64]:
  """(units,) scores, each divided by the mean of its family."""
  families = [unit.family for unit in units]
  counts, sums = Counter(families), dict.fromkeys(families, 0.0)
  for family, value in zip(families, found, strict=True):
    sums[family] += float(value)
  return np.array([v * counts[f] / sums[f] if sums[f] else 0.0 for f, v in zip(families, found, strict=True)])


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
