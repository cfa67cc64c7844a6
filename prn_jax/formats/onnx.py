"""Model -> ONNX, written from the layer graph (opset 17, NCHW, any batch size, batch norm folded).

The file carries the graph as cfg text, the class names and the resize mode in its metadata. Outputs are the heads
as Darknet stores them; boxes and suppression are the caller's, with `prn_jax.detect` or without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.formats.darknet_weights import to_file
from prn_jax.formats.files import written_beside
from prn_jax.graph.graph import INPUT, Graph
from prn_jax.graph.onnx_builder import OnnxBuilder
from prn_jax.transforms.fold_batchnorm import fold_batchnorm

if TYPE_CHECKING:
  from prn_jax.model import Model

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17; newer ones lock out older runtimes


def save(path: Path, model: Model) -> None:
  """Writes `model` as one .onnx file.

  Raises:
    OutOfScopeError: a layer or an activation has no ONNX form (named in the message).
    PrnError: the package `onnx` is not installed.
  """
  _require("onnx")
  import onnx

  proto = to_proto(model)
  onnx.checker.check_model(proto)
  with written_beside(path) as file:
    file.write(proto.SerializeToString())


def to_proto(model: Model) -> Any:
  """The ONNX ModelProto of a model."""
  from onnx import TensorProto, helper

  graph, variables = fold_batchnorm(model.graph, model.variables)
  o = _nodes(graph, variables)
  shape: list[str | int | None] = ["batch", graph.channels, graph.height, graph.width]
  inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)]
  outputs = []
  for head in graph.heads:
    h, w, c = graph.shapes[head.name]
    outputs.append(helper.make_tensor_value_info(head.name, TensorProto.FLOAT, ["batch", c, h, w]))
  proto = helper.make_model(
    helper.make_graph(o.nodes, graph.name, inputs, outputs, o.constants),
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="prn_jax",
  )
  metadata = {"graph_cfg": model.cfg(), "names": json.dumps(list(model.names)), "resize": model.resize}
  helper.set_model_props(proto, metadata)
  return proto


def _nodes(graph: Graph, variables: dict[str, Any]) -> OnnxBuilder:
  """Lets every layer that a head needs write itself."""
  names = {INPUT: INPUT}
  o = OnnxBuilder(lambda path: np.empty(0))
  heads = {head.name for head in graph.heads}
  for layer in (layer for layer in graph if layer.name in _needed(graph)):
    owner = graph[layer.shared_with or layer.name]
    arrays = {array.path: array for array in graph.arrays(owner)}

    def variable(path: str, owner: Any = owner, arrays: Any = arrays) -> np.ndarray:
      node = variables[arrays[path].collection][owner.name]
      for key in path.split("/"):
        node = node[key]
      return to_file(node, arrays[path])

    o.layer, o.variable = layer.name, variable
    o.input_shapes = [(s.channels, s.height, s.width) for s in graph.input_shapes(layer)]
    out = layer.onnx([names[name] for name in layer.inputs], o)
    if layer.name in heads:
      o.nodes.append(o.identity(out, layer.name))
      out = layer.name
    names[layer.name] = out
  return o


def _needed(graph: Graph) -> set[str]:
  """Layers on a path to a head."""
  needed = {head.name for head in graph.heads}
  for layer in reversed(graph.layers):
    if layer.name in needed:
      needed.update(layer.inputs)
  return needed


def differences(model: Model, path: str | Path) -> dict[str, float]:
  """Largest absolute difference of each head between `model` and an .onnx file, run by onnxruntime at batch 2."""
  _require("onnxruntime")
  import onnxruntime

  from prn_jax.formats.verify import probe_input

  x = np.concatenate([probe_input(model), 1 - probe_input(model)])
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  names = [output.name for output in session.get_outputs()]
  theirs = session.run(names, {INPUT: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
  ours = model.forward(x)
  return {
    name: float(np.abs(np.asarray(ours[name]).transpose(0, 3, 1, 2) - y).max())
    for name, y in zip(names, theirs, strict=True)
  }


def _require(package: str) -> None:
  import importlib.util

  if importlib.util.find_spec(package) is None:
    raise PrnError(f"ONNX needs the package '{package}': pip install 'prn-jax[onnx]'.")
