"""Small networks for tests."""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax import Model
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import INPUT, Graph, Layer, checked_shape
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.se import SqueezeExcite
from prn_jax.network import init_variables

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0))


def tiny_detector(size: int = 32, classes: int = 2) -> Graph:
  """A two-scale detector with every structure that matters: BN, pooling, partial shortcut, route, upsample."""
  g = Builder(size, size, name="tiny", defaults={"leaky_slope": 0.1})
  conv = {"size": 3, "padding": 1, "batch_normalize": True, "activation": "leaky"}
  filters = 3 * (5 + classes)
  g.conv(6, name="stem", **conv)
  g.maxpool(2, 2, name="stem_pool")
  g.conv(8, name="c1", **conv)
  c1 = g.maxpool(2, 2, name="c1_pool")
  g.conv(8, name="c2", **conv | {"stride": 2})
  p5 = g.conv(4, name="p5", **conv)
  g.conv(filters, name="p5_out")
  g.yolo(classes, ANCHORS, name="p5_yolo")
  g.route(p5, name="p4_from")
  g.upsample(2, name="p4_up")
  g.shortcut(c1, activation="leaky", name="p4_skip")
  g.conv(filters, name="p4_out")
  g.yolo(classes, ANCHORS, name="p4_yolo")
  return g.graph()


def smooth_detector() -> Graph:
  """A detector without corners: no max-pooling, no leaky slope, and (by ignore_thresh) no threshold in its loss.

  Another number of devices adds in another order. Where the loss has corners, such differences of 1e-7 grow by a factor
  of ten in a few steps, whatever the learning rate; where it has none they stay.
  """
  g = Builder(32, 32, name="smooth")
  conv = {"size": 3, "padding": 1, "batch_normalize": True, "activation": "swish"}
  g.conv(8, stride=2, name="stem", **conv)
  c1 = g.conv(8, stride=2, name="c1", **conv)
  g.conv(12, name="c2", **conv)
  g.shortcut(c1, name="skip")
  g.conv(3 * (5 + 4), name="out")
  g.yolo(4, ((4.0, 6.0), (8.0, 8.0), (16.0, 12.0)), name="yolo")
  return g.graph()


def random_model(graph: Graph | None = None, seed: int = 0, **kwargs: object) -> Model:
  """A model whose every variable is random, rolling statistics too, so that nothing cancels."""
  graph = graph or tiny_detector()
  rng = np.random.default_rng(seed)
  variables = init_variables(graph, seed)

  def shake(path: str, value: np.ndarray) -> np.ndarray:
    noise = rng.uniform(0.5, 1.5, value.shape) if path.endswith(("var", "scale")) else rng.normal(0, 0.1, value.shape)
    return noise.astype(np.float32) if "/bn/" in path or path.endswith("bias") else np.array(value)

  from prn_jax.network import flatten_variables, unflatten_variables

  flat = {path: shake(path, value) for path, value in flatten_variables(variables).items()}
  return Model(graph, unflatten_variables(flat), **kwargs)  # type: ignore[arg-type]


def narrow(graph: Graph, factor: int) -> Graph:
  """The same network with its widths divided, but for the convolutions that the heads count on; weights are cheap."""
  heads = {"yolo", "gaussian_yolo", "region", "softmax"}
  last = len(graph) - 4  # a classifier ends in convolution, mean, softmax and perhaps cost
  seen: dict[str, Layer] = {}
  shapes = {INPUT: graph.shapes[INPUT]}
  for i, layer in enumerate(graph):
    inputs = graph.input_shapes(layer)
    changed = layer.follow(inputs, [shapes[name] for name in layer.inputs])
    if changed == layer and isinstance(layer, Conv) and i < last and graph.layers[i + 1].kind not in heads:
      groups = max(1, layer.groups // factor) if layer.groups > 1 else 1
      changed = dataclasses.replace(layer, filters=max(1, layer.filters // factor), groups=groups)
    elif isinstance(layer, SqueezeExcite):
      changed = dataclasses.replace(changed, squeezed=max(1, layer.hidden(inputs[0].channels) // factor))
    shapes[layer.name] = checked_shape(changed, seen, shapes)
    seen[layer.name] = changed
  return dataclasses.replace(graph, layers=tuple(seen.values()))
