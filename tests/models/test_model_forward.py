"""Every model in Flax: shapes at its default size, and one real forward pass at a small one."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from prn_jax.graph import Graph
from prn_jax.models import build_graph, get_spec, list_models
from prn_jax.network import Network, expected_variables, flatten_variables, init_variables

QUICK_COMPILE = {"xla_backend_optimization_level": 0}
# More than 5 seconds each, nearly all of it the compilation of the initialisers.
BIG = (
  "csdarknet53-omega",
  "csdarknet53-timm",
  "darknet53-fprn",
  "darknet53-prn-bottleneck",
  "darknet53-prn-expand",
  "darknet53-prn-shrink",
  "darknet53-timm",
  "densenet121",
  "densenet121-timm",
  "densenet201",
  "efficientnet-b0",
  "efficientnet-b0-timm",
  "efficientnet-lite0",
  "efficientnet-lite0-prn",
  "efficientnet-lite1",
  "efficientnet-lite2",
  "efficientnet-lite3",
  "efficientnet-lite4",
  "enet-b0-prn",
  "ghostnet",
  "ghostnet-prn",
  "mobilenetv3-large",
  "mobilenetv3-prn",
  "mpelee-prn",
  "pelee-fpn",
  "pelee-prn",
  "pelee-prn-3l",
  "pelee-ssd",
  "pelee-yolov3",
  "peleenet",
  "resnet101",
  "resnet101-timm",
  "resnet152",
  "resnet50-prn",
  "resnet50-timm",
  "resnext50",
  "sparsenet-40-24",
  "sparsenet-bc-100-24",
  "yolov3",
  "yolov3-fprn",
  "yolov3-ghostnet",
  "yolov3-mobilenetv3",
  "yolov3-prn",
  "yolov3-spp",
  "yolov3-spp3",
  "yolov3-timm",
  "yolov3-tiny-efficientnet-b0",
  "yolov3-tiny-efficientnet-lite0",
  "yolov4",
  "yolov4-csp",
)


def shapes_of(graph: Graph) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
  """Shapes of all variables and of all outputs for a batch of 2, without computing anything."""
  network = Network(graph)
  x = jax.ShapeDtypeStruct((2, graph.height, graph.width, graph.channels), np.float32)
  outputs, variables = jax.eval_shape(
    lambda key, x: network.init_with_output(key, x, layers="all"), jax.random.key(0), x
  )
  return {k: v.shape for k, v in flatten_variables(variables).items()}, {k: v.shape for k, v in outputs.items()}


@pytest.mark.parametrize("name", list_models())
def test_shapes_at_the_default_size(name):
  graph = build_graph(name)
  variables, outputs = shapes_of(graph)
  assert variables == expected_variables(graph)
  assert outputs == {layer.name: (2, *graph.shapes[layer.name]) for layer in graph}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in BIG)) for n in list_models()])
def test_forward_pass_at_a_small_size(name):
  size = max(64, get_spec(name).stride)
  graph = build_graph(name, width=size, height=size)
  variables = init_variables(graph)
  x = np.random.default_rng(0).random((1, size, size, 3), np.float32)
  outputs = jax.jit(Network(graph).apply, compiler_options=QUICK_COMPILE)(variables, x)
  assert set(outputs) == {head.name for head in graph.heads}
  for head in graph.heads:
    values = np.asarray(outputs[head.name])
    assert values.shape == (1, *graph.shapes[head.name])
    assert np.isfinite(values).all()
    if head.kind == "softmax":
      np.testing.assert_allclose(values.sum(), 1, rtol=1e-5)
    else:
      objectness = values.reshape(-1, 5 + head.classes)[:, 4]
      assert ((objectness >= 0) & (objectness <= 1)).all()
