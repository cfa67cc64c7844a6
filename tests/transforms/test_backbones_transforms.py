"""The paper's rewrites on backbones of other families: depthwise convolutions, [se] and ghost modules inside the units."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.errors import GraphError
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.models import build_graph
from prn_jax.models.backbones import compose
from prn_jax.models.ghostnet import STAGES
from prn_jax.network import Network, expected_variables, flatten_variables, init_variables, unflatten_variables
from prn_jax.transforms.partial_residual import apply
from prn_jax.transforms.stages import find_stages
from prn_jax.transforms.warm_start import warm_start
from tests.nets import narrow

QUICK_COMPILE = {"xla_backend_optimization_level": 0}
WITH_STAGES = (
  "mobilenetv3-large", "mobilenetv3-small-tf", "efficientnet-b0", "efficientnet-b0-timm", "efficientnet-lite0", "ghostnet",
  "ghostnet-timm",
)  # fmt: skip


def detector(backbone: str, head: str = "yolov3-tiny") -> Graph:
  g = Builder(64, 64, name=backbone)
  compose(g, backbone, head, num_classes=2)
  return g.graph()


def expect_the_cfg_to_hold(graph: Graph, original: Graph) -> None:
  assert darknet_cfg.parse(darknet_cfg.dump(graph)).graph == graph
  assert [graph.shapes[head.name] for head in graph.heads] == [original.shapes[head.name] for head in original.heads]


@settings(max_examples=25, deadline=None)
@given(
  st.sampled_from([*WITH_STAGES, "darknet53-timm", "resnet50-timm"]),
  st.sampled_from(["prn", "yolov3", "yolov3-spp", "yolov3-tiny3"]),
  st.sampled_from([0.25, 0.5, 0.75]),
)
def test_fprn_keeps_all_variables(backbone: str, head: str, sparsity: float) -> None:
  graph = detector(backbone, head)
  changed = apply(graph, f"fprn:{sparsity}")
  expect_the_cfg_to_hold(changed, graph)
  assert expected_variables(changed) == expected_variables(graph)
  assert len(changed) > len(graph)


@settings(max_examples=10, deadline=None)
@given(
  st.sampled_from(WITH_STAGES),
  st.sampled_from(["shrink", "expand", "bottleneck"]),
  st.sampled_from([0.375, 0.5, 0.75]),
)
def test_widths_change_and_weights_follow(backbone: str, schedule: str, gamma: float) -> None:
  """Layers inside a unit keep their width: depthwise convolutions and [se] are as they were."""
  graph = detector(backbone)
  changed = apply(graph, f"{schedule}:{gamma}")
  expect_the_cfg_to_hold(changed, graph)
  assert [layer for layer in graph if layer.kind in ("depthwise", "se")] == [
    layer for layer in changed if layer.kind in ("depthwise", "se")
  ]
  outputs = [block.output for stage in find_stages(graph) for block in stage]
  assert any(changed[name].filters < graph[name].filters for name in outputs)
  weights = flatten_variables(warm_start(graph, init_variables(graph), changed))
  assert {key: value.shape for key, value in weights.items()} == expected_variables(changed)


@pytest.mark.parametrize(
  ("backbone", "transforms"),
  [
    ("mobilenetv3-small", ("shrink:0.5", "multi-source")),
    pytest.param("ghostnet", ("shrink:0.5",), marks=pytest.mark.slow),
    pytest.param("efficientnet-lite0", ("bottleneck:0.5", "fprn:0.5"), marks=pytest.mark.slow),
  ],
)
def test_a_changed_network_runs(backbone: str, transforms: tuple[str, ...]) -> None:
  """With the weights of the original; all values are finite, and not those of the original."""
  original = narrow(detector(backbone), 4)
  graph = original
  for text in transforms:
    graph = apply(graph, text)
  variables = init_variables(original)
  x = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)

  def run(graph: Graph, weights: object) -> dict[str, jax.Array]:
    return jax.jit(Network(graph).apply, compiler_options=QUICK_COMPILE)(weights, x)

  before = run(original, variables)
  after = run(graph, unflatten_variables(flatten_variables(warm_start(original, variables, graph))))
  assert after.keys() == before.keys()
  for name, value in after.items():
    assert np.isfinite(value).all()
    assert value.shape == before[name].shape
    assert not np.allclose(value, before[name])


def ghost_parameters(widths: Sequence[int]) -> int:
  """Of GhostNet whose stem and units end in so many channels, by the paper's table and without a graph; batch norm has two
  for a channel."""
  inputs, before = widths[0], 16
  total = (27 + 2) * inputs
  for unit, width in zip((unit for stage in STAGES for unit in stage), widths[1:], strict=True):
    expanded, half, area = unit.expanded, unit.expanded // 2, unit.kernel**2
    total += inputs * half + 9 * half + 4 * half
    total += (area + 2) * expanded if unit.stride > 1 else 0
    squeezed = (expanded // 4 + 2) // 4 * 4
    total += 2 * expanded * squeezed + squeezed + expanded if unit.has_se else 0
    total += expanded * width // 2 + 9 * width // 2 + 2 * width
    if (before, 1) != (unit.channels, unit.stride):
      total += (area + 2) * inputs + inputs * width + 2 * width
    inputs, before = width, unit.channels
  return total + inputs * 960 + 2 * 960 + 960 * 1280 + 1280 + 1280 * 1000 + 1000


@pytest.mark.parametrize(
  ("text", "params", "widths"),
  [
    ("fprn:0.5", 5_182_508, (16, 16, 24, 24, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160, 160, 160)),
    ("shrink:0.5", 4_868_264, (16, 8, 24, 12, 40, 20, 80, 66, 54, 40, 112, 56, 160, 140, 120, 100, 80)),
    ("expand:0.5", 5_058_404, (8, 16, 24, 24, 40, 40, 80, 54, 66, 80, 112, 112, 160, 100, 120, 140, 160)),
    ("bottleneck:0.5", 5_017_754, (16, 16, 24, 24, 40, 40, 80, 54, 54, 80, 112, 112, 160, 120, 80, 120, 160)),
  ],
)
def test_a_ghost_module_is_as_wide_as_two_of_its_convolution(text: str, params: int, widths: tuple[int, ...]) -> None:
  """Chains of 1, 1, 1, 3, 1 and 4 units with a way around that is the input itself; widths are even. The stem in front of the
  first is narrowed where it grows."""
  graph = apply(build_graph("ghostnet"), text)
  units = [f"stage{i}_unit{j}_ghost2_concat" for i, stage in enumerate(STAGES, 1) for j in range(1, len(stage) + 1)]
  assert tuple(graph.shapes[name].channels for name in ("stem", *units)) == widths
  assert cost(graph).params == ghost_parameters(widths) == params


def test_what_is_joined_of_two_convolutions_is_no_block() -> None:
  """Two convolutions side by side (YOLOv4's stages): neither decides how wide the sum is."""
  g = Builder(32, 32)
  x = g.conv(16, 3, name="stem")
  left = g.conv(8, 1, name="left")
  g.route(x, name="back")
  right = g.conv(8, 1, name="right")
  g.route(left, right, name="both")
  g.shortcut(x, name="add")
  with pytest.raises(GraphError, match=r"has no residual stages, so none can shrink\."):
    apply(g.graph(), "shrink:0.5")
