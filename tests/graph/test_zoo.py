"""Every public cfg: it parses, builds, and costs exactly what Darknet prints."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from prn_jax.formats import darknet_cfg
from prn_jax.graph.cost import cost, layer_cost
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, expected_variables, flatten_variables
from tests.conftest import SHARED, shared_params
from tests.timing import least_seconds

ZOO = shared_params("cfg/*.cfg")
ANY_CFG = shared_params("cfg/*.cfg", "golden/*/net.cfg", "data/weights/*/*.cfg")
# In these three a shortcut has another size than its source; AlexeyAB's Darknet stops there, pjreddie's does not.
UNEQUAL_SHORTCUTS = {"resnet50.cfg", "resnet101.cfg", "resnet152.cfg"}


@functools.cache
def zoo() -> dict[str, dict[str, str]]:
  assert SHARED is not None
  with (SHARED / "reference" / "zoo.csv").open() as file:
    return {row["cfg"]: row for row in csv.DictReader(file)}


def variable_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
  """Shapes of all variables by tracing the network; its outputs are traced as well."""
  x = jax.ShapeDtypeStruct((1, graph.height, graph.width, graph.channels), np.float32)
  outputs, variables = jax.eval_shape(
    functools.partial(Network(graph).init_with_output, layers="all"), jax.random.key(0), x
  )
  assert {name: value.shape for name, value in outputs.items()} == {
    layer.name: (1, *graph.shapes[layer.name]) for layer in graph
  }
  assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
  return {key: value.shape for key, value in flatten_variables(dict(variables)).items()}


def test_zoo_has_all_cfgs(shared: Path) -> None:
  assert {path.name for path in (shared / "cfg").glob("*.cfg")} == set(zoo())
  assert len(zoo()) == 62
  assert {name for name, row in zoo().items() if row["status"] != "ok"} == UNEQUAL_SHORTCUTS


@pytest.mark.parametrize("path", ZOO)
def test_cost_is_what_darknet_prints(path: Path) -> None:
  graph = darknet_cfg.read(path).graph
  row, total = zoo()[path.name], cost(graph)
  assert f"{total.bflops:.3f}" == row["bflops"]
  assert str(total.params) == row["params"]
  assert str(total.weight_file_floats) == row["weight_file_floats"]
  assert (str(len(graph)), str(graph.width), str(graph.height)) == (row["layers"], row["width"], row["height"])


@pytest.mark.parametrize("path", ZOO)
def test_kinds_are_those_of_the_zoo_table(path: Path) -> None:
  graph = darknet_cfg.read(path).graph
  types = [layer.sections[0] for layer in graph]
  counts = ";".join(f"{kind}:{types.count(kind)}" for kind in sorted(set(types)))
  assert counts == zoo()[path.name]["layer_types"]


@pytest.mark.parametrize("path", ANY_CFG)
def test_round_trip(path: Path) -> None:
  cfg = darknet_cfg.read(path)
  again = darknet_cfg.parse(darknet_cfg.dump(cfg.graph, cfg.training))
  assert again.graph == cfg.graph
  assert again.training == cfg.training
  assert again.graph.name == cfg.graph.name
  assert darknet_cfg.dump(again.graph, again.training) == darknet_cfg.dump(cfg.graph, cfg.training)


@pytest.mark.parametrize("path", ANY_CFG)
def test_renamed_network_survives_a_dump(path: Path) -> None:
  cfg = darknet_cfg.read(path)
  names = {layer.name: f"x{i}_{layer.kind}" for i, layer in enumerate(cfg.graph)}
  graph, training = cfg.graph.renamed(names), cfg.training.renamed(names)
  again = darknet_cfg.parse(darknet_cfg.dump(graph, training))
  assert again.graph == graph
  assert again.training == training
  assert graph != cfg.graph
  assert graph.canonical() == cfg.graph.canonical()


@pytest.mark.parametrize("path", ZOO)
def test_network_builds(path: Path) -> None:
  graph = darknet_cfg.read(path).graph
  assert variable_shapes(graph) == expected_variables(graph)


def test_yolov4_builds_fast(shared: Path) -> None:
  """Measured 0.5 s on two cores; Darknet's users should not feel it."""
  cfg = shared / "cfg" / "yolov4.cfg"
  assert least_seconds(lambda: variable_shapes(darknet_cfg.read(cfg).graph), 6) < 6


def test_costs_add_up(shared: Path) -> None:
  """yolov3-tiny-prn by hand: its first convolution, its partial shortcut (layer 22), its first pool."""
  graph = darknet_cfg.read(shared / "cfg" / "yolov3-tiny-prn.cfg").graph
  rows = [layer_cost(graph, layer) for layer in graph]
  assert rows[0].macs == 416 * 416 * 16 * 27
  assert rows[0].flops == 2 * rows[0].macs
  assert (rows[0].params, rows[0].weight_file_floats) == (16 * 27 + 2 * 16, 16 * 27 + 4 * 16)
  assert rows[1].flops == 2 * 2 * 208 * 208 * 16
  assert rows[22].flops == 26 * 26 * 128  # all channels of the target, although the source has more
  assert cost(graph).macs == sum(row.macs for row in rows)
