"""Units and scores of `prn prune` against torch-pruning's dependency graph, on residual networks with the same weights.

    python benchmarks/prune_peer.py --depths 20,56

Needs torch and torch-pruning. For every unit of ours the other side is asked for the group of its first filter: it must have
the same filters, scales of batch norm and inputs of convolutions. Criteria that both sides have must give the same
scores: the largest scale of batch norm of a unit, the mean scale relative to the layer's, the L1 norm of the first filter.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch_pruning
from torch import nn
from torch_graph import TorchGraph
from torch_pruning.pruner import function, importance

from prn_jax.graph.builder import Builder
from prn_jax.graph.consumers import consumers_of
from prn_jax.graph.graph import Graph
from prn_jax.network import init_variables
from prn_jax.prune.methods import Method, scores
from prn_jax.prune.units import Unit, find_units

CRITERIA: dict[str, tuple[Method, Callable[[], Any]]] = {
  "gamma, largest": (
    Method(score="gamma", over="max"),
    lambda: importance.BNScaleImportance(group_reduction="max", normalizer=None),
  ),
  "gamma, mean, relative": (
    Method(score="gamma", over="mean", is_relative=True),
    lambda: importance.BNScaleImportance(group_reduction="mean", normalizer="mean"),
  ),
  "l1, first": (
    Method(score="l1", over="first"),
    lambda: importance.GroupMagnitudeImportance(p=1, group_reduction="first", normalizer=None),
  ),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depths", default="20,56", help="layers of the networks, 6 n + 2 each")
  for depth in map(int, parser.parse_args().depths.split(",")):
    compare(resnet(depth))


def resnet(depth: int) -> Graph:
  """The network for CIFAR of He et al. (2016), with projections where the width changes (their option B)."""
  g = Builder(32, 32, name=f"resnet{depth}")
  batch_norm = {"batch_normalize": True}
  g.conv(16, 3, padding=1, activation="relu", name="stem", **batch_norm)
  for stage, width in enumerate((16, 32, 64)):
    for block in range((depth - 2) // 6):
      source, name = g.last, f"s{stage}b{block}"
      stride = 2 if stage and not block else 1
      if stride == 2:
        skip = g.conv(width, 1, stride=2, name=f"{name}_project", **batch_norm)
        g.route(source, name=f"{name}_in")
      else:
        skip = source
      g.conv(width, 3, stride=stride, padding=1, activation="relu", name=f"{name}_a", **batch_norm)
      g.conv(width, 3, padding=1, name=f"{name}_b", **batch_norm)
      g.shortcut(skip, activation="relu", name=f"{name}_sum")
  g.avgpool(name="pool")
  g.conv(10, name="logits")
  g.softmax(name="probabilities")
  return g.graph()


class Classifier(nn.Module):
  """The logits of a graph, as the other side wants a network."""

  def __init__(self, graph: Graph, variables: dict[str, Any]) -> None:
    super().__init__()
    self.net = TorchGraph(graph, variables)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.net(x, ("logits",))["logits"]


def compare(graph: Graph) -> None:
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: np.asarray(x + 0.3 * rng.random(x.shape), np.float32), init_variables(graph))
  model = Classifier(graph, variables).eval()
  other = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, 3, 32, 32))
  units, names = find_units(graph), names_of(model)
  same = sum(members(graph, unit) == group_of(other, model, names, unit) for unit in units)
  print(
    f"{graph.name}: {len(units)} units in {len({unit.family for unit in units})} families; {same} have the same members"
  )
  for criterion, (method, make) in CRITERIA.items():
    ours, theirs = scores(graph, variables, units, method), np.zeros(len(units))
    families = defaultdict(list)
    for i, unit in enumerate(units):
      families[unit.family].append(i)
    for family, places in families.items():
      root = model.net.convs[family[0]]
      group = other.get_pruning_group(root, function.prune_conv_out_channels, list(range(root.out_channels)))
      theirs[places] = make()(group).numpy()
    difference = np.abs(ours / theirs - 1).max()
    print(f"  {criterion}: largest relative difference {difference:.1e}")


def names_of(model: Classifier) -> dict[nn.Module, str]:
  return {module: name for part in (model.net.convs, model.net.norms) for name, module in part.items()}


Member = tuple[str, str, int]  # what it is, layer, number


def members(graph: Graph, unit: Unit) -> set[Member]:
  """Filters, scales and inputs of convolutions that go with a unit."""
  readers = consumers_of(graph)
  found: set[Member] = {("filter", name, i) for name, i in unit.makers}
  found |= {("scale", name, i) for name, i in unit.makers if graph[name].has_batchnorm}
  return found | {("input", reader, i) for name, i in unit.channels for reader in readers[name] if graph[reader].kernel}


def group_of(other: Any, model: Classifier, names: dict[nn.Module, str], unit: Unit) -> set[Member]:
  """The same of the group of the unit's first filter."""
  kinds = {
    function.prune_conv_out_channels: "filter",
    function.prune_batchnorm_out_channels: "scale",
    function.prune_conv_in_channels: "input",
  }
  name, channel = unit.makers[0]
  group = other.get_pruning_group(model.net.convs[name], function.prune_conv_out_channels, [channel])
  return {
    (kinds[dependency.pruning_fn], names[dependency.layer], int(i))
    for dependency, places in group
    if dependency.layer in names
    for i in places
  }


if __name__ == "__main__":
  main()
