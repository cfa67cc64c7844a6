"""Residual blocks that go as a whole: fewer layers, which saves more time than narrower ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.transforms.stages import Block, find_stages

Variables = dict[str, Any]


def least_blocks(graph: Graph, variables: Variables, count: int) -> list[Block]:
  """The `count` blocks whose branches add least: by the mean gamma of their last layer with batch norm, as usual among
  scripts for YOLO.

  Raises:
    PrnError: there are not so many.
  """
  found = [block for stage in find_stages(graph) for block in stage if graph[block.output].has_batchnorm]
  if not 0 < count <= len(found):
    raise PrnError(
      f"{count} residual blocks to remove; network '{graph.name}' has {len(found)} whose branch ends in batch norm"
      f"{', so that at least 1 and at most as many can go' if found else ''}."
    )
  gammas = [float(np.abs(np.asarray(variables["params"][block.output]["bn"]["scale"])).mean()) for block in found]
  return [found[i] for i in sorted(np.argsort(gammas, kind="stable")[:count])]


def without_blocks(graph: Graph, variables: Variables, blocks: Sequence[Block]) -> tuple[Graph, Variables]:
  """The network in which what read a block reads what the block read; weights of all other layers stay as they are."""
  gone = {name for block in blocks for name in (*block.branch, block.shortcut)}
  instead = {block.shortcut: block.source for block in blocks}

  def source(name: str) -> str:
    while name in instead:
      name = instead[name]
    return name

  layers = tuple(
    dataclasses.replace(layer, inputs=tuple(source(name) for name in layer.inputs))
    for layer in graph
    if layer.name not in gone
  )
  kept = {
    part: {name: value for name, value in values.items() if name not in gone} for part, values in variables.items()
  }
  return dataclasses.replace(graph, layers=layers), kept
