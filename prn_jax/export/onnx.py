"""Model -> ONNX, written from the layer graph (opset 17, NCHW, any batch size, batch norm folded).

The file carries the graph as cfg text, the class names and the resize mode in its metadata. Outputs are the heads
as Darknet stores them; boxes and suppression are the caller's, with `prn_jax.detect` or without it. Height and width
are fixed, or with `any_size` left open. Attributes that ONNX lets a runtime infer are written where OpenCV 4 wants them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.files.disk import written_beside
from prn_jax.files.places import to_path
from prn_jax.formats.darknet_weights import to_file
from prn_jax.graph.graph import INPUT, Graph, Shape
from prn_jax.graph.onnx_builder import OnnxBuilder
from prn_jax.nested import flattened
from prn_jax.transforms.fold_batchnorm import fold_batchnorm

if TYPE_CHECKING:
  from prn_jax.model import Model

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17; newer ones lock out older runtimes


def save(path: Path, model: Model, *, any_size: bool = False) -> None:
  """Writes `model` as one .onnx file.

  Args:
    path: the file to write.
    model: a model with weights.
    any_size: leave height and width of the images open; `size_step` says which sizes the network takes.

  Raises:
    OutOfScopeError: a layer or an activation has no ONNX form, or none for any size (named in the message).
    PrnError: the package `onnx` is not installed.
  """
  _require("onnx")
  import onnx

  proto = to_proto(model, any_size=any_size)
  onnx.checker.check_model(proto)
  with written_beside(path) as file:
    file.write(proto.SerializeToString())


def to_proto(model: Model, *, any_size: bool = False) -> Any:
  """The ONNX ModelProto of a model; see `save`."""
  from onnx import TensorProto, helper

  metadata = {"graph_cfg": model.cfg(), "names": json.dumps(list(model.names)), "resize": model.resize}
  step, grown = _grown(model.graph) if any_size else (0, model.graph)
  if any_size:
    metadata["size_step"] = str(step)
  graph, variables = fold_batchnorm(model.graph, model.variables)
  o = _nodes(graph, variables, grown)
  shapes = {INPUT: graph.shapes[INPUT]} | {head.name: graph.shapes[head.name] for head in graph.heads}
  tensors = [
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", shape.channels, *_extents(graph, shape, any_size)])
    for name, shape in shapes.items()
  ]
  inputs, outputs = tensors[:1], tensors[1:]
  proto = helper.make_model(
    helper.make_graph(o.nodes, graph.name, inputs, outputs, o.constants),
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="prn_jax",
  )
  helper.set_model_props(proto, metadata)
  return proto


def size_step(graph: Graph) -> int:
  """Pixels by which both sides of the input may grow: 32 for most detectors, 1 for many classifiers; see `_grown`."""
  return _grown(graph)[0]


def _grown(graph: Graph) -> tuple[int, Graph]:
  """The smallest step by which the input may grow, and the network on an input larger by one step and two.

  Raises:
    OutOfScopeError: a layer's weights belong to one image size.
  """
  reason = ""
  for step in (2**k for k in range(9)):
    try:
      grown = graph.resized(graph.width + step, graph.height + 2 * step)
    except PrnError as error:
      reason = str(error)
      continue
    for layer, other in zip(graph, grown, strict=True):
      if graph.arrays(layer) != grown.arrays(other):
        raise OutOfScopeError(
          f"layer '{layer.name}' ({layer.kind}) of network '{graph.name}' has weights for images of "
          f"{graph.width}x{graph.height} only; write ONNX for that size, without any size."
        )
    return step, grown
  raise OutOfScopeError(f"network '{graph.name}' takes images of {graph.width}x{graph.height} only: {reason}")


def _extents(graph: Graph, shape: Shape, any_size: bool) -> list[int | str]:
  """Height and width of a tensor; if they are left open, symbols that say how they follow from the image's."""
  if not any_size or (shape.height, shape.width) == (1, 1):
    return [shape.height, shape.width]
  sides = (("height", graph.height, shape.height), ("width", graph.width, shape.width))
  return [side if whole == part else f"{side}/{whole // part}" for side, whole, part in sides]


def _nodes(graph: Graph, variables: dict[str, Any], other: Graph) -> OnnxBuilder:
  """Lets every layer that a head needs write itself, for the maps of `graph` and of `other`, which may be larger."""
  names, flat = {INPUT: INPUT}, flattened(variables)
  o = OnnxBuilder(lambda path: np.empty(0))
  heads = {head.name for head in graph.heads}
  for layer in (layer for layer in graph if layer.name in _needed(graph)):
    owner = graph[layer.shared_with or layer.name]
    arrays = {array.path: array for array in graph.arrays(owner)}

    def variable(path: str, owner: Any = owner, arrays: Any = arrays) -> np.ndarray:
      return to_file(flat[arrays[path].key(owner.name)], arrays[path])

    o.layer, o.variable = layer.name, variable
    o.any_size = any(graph.shapes[name] != other.shapes[name] for name in layer.inputs)
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


def differences(model: Model, path: str | Path, size: tuple[int, int] | None = None) -> dict[str, float]:
  """Largest absolute difference of each head between `model` and an .onnx file, run by onnxruntime at batch 2.

  Args:
    model: what was written.
    path: the file.
    size: width and height of the images; by default the network's own.
  """
  _require("onnxruntime")
  import onnxruntime

  from prn_jax.export.verify import probe_input

  probe = probe_input(model, size)
  x = np.concatenate([probe, 1 - probe])
  session = onnxruntime.InferenceSession(to_path(path).read_bytes(), providers=["CPUExecutionProvider"])
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
