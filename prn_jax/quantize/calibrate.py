"""Runs a quantised network whose ranges are empty, so that it computes as the float one, and looks at what would be rounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from prn_jax.graph.graph import Graph
from prn_jax.kinds.activation import Activation
from prn_jax.model import Model
from prn_jax.network import Network, Variables
from prn_jax.quantize.observers import Seen, chosen_range, range_before
from prn_jax.quantize.rewrite import image_range, ranges_of, with_ranges


def outputs_of(graph: Graph, layers: Sequence[str]) -> Callable[[Variables, np.ndarray], dict[str, jax.Array]]:
  """The compiled network, from variables and images to the outputs of these layers."""
  network = Network(graph)
  return jax.jit(lambda variables, x: network.apply(variables, x, layers=tuple(dict.fromkeys(layers))))


def observed(graph: Graph, variables: Variables, batches: Sequence[np.ndarray]) -> dict[str, Seen]:
  """What every range owner of a quantised graph would round, the maps of those that share its range included.

  Args:
    graph: a quantised graph.
    variables: its variables, with empty ranges.
    batches: images.
  """
  owners = ranges_of(graph)
  maps = {layer.name: layer.shared_with or layer.name for layer in graph if (layer.shared_with or layer.name) in owners}
  run, seen = outputs_of(graph, list(maps)), {name: Seen() for name in owners}
  for images in batches:
    for name, values in run(variables, images).items():
      seen[maps[name]].add(np.asarray(values))
  return seen


def calibrated(graph: Graph, variables: Variables, batches: Sequence[np.ndarray], observer: str) -> Variables:
  """The variables of a quantised graph with the ranges that `observer` chooses from these images."""
  seen = observed(graph, variables, batches)
  owners = ranges_of(graph)
  activations = {layer.inputs[0]: layer for layer in graph if isinstance(layer, Activation)}
  ends = {}
  for name, what in seen.items():
    spec, behind = owners[name].spec(), activations.get(name)
    ends[name] = range_before(what, spec, behind.on_host) if behind else chosen_range(what, spec, observer)
  return with_ranges(graph, variables, ends | image_range(graph))


def with_graph(model: Model, graph: Graph, variables: Variables) -> Model:
  """The model with another graph and its variables."""
  return dataclasses.replace(model, graph=graph, weights=variables, header=None)
