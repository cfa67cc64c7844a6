"""Model -> ONNX, written from the layer graph (opset 17, NCHW, any batch size, batch norm folded).

The file carries the graph as cfg text, the class names, the resize mode and what its input and outputs are in its metadata
(docs/runtimes.md). Outputs are the heads as Darknet stores them, or boxes, or boxes after suppression (`onnx_boxes`). Height and width
are fixed, or with `any_size` left open. Attributes that ONNX lets a runtime infer are written where OpenCV 4 wants them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.export import onnx_boxes
from prn_jax.export.onnx_boxes import HEADS_ALONE, Output, OutputOptions
from prn_jax.files.disk import written_beside
from prn_jax.files.places import to_path
from prn_jax.formats.darknet_weights import to_file
from prn_jax.graph.graph import INPUT, Graph, Shape
from prn_jax.graph.head import DetectionHead
from prn_jax.graph.onnx_builder import OnnxBuilder
from prn_jax.nested import flattened
from prn_jax.transforms.fold_batchnorm import fold_batchnorm

if TYPE_CHECKING:
  from prn_jax.model import Model

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17; newer ones lock out older runtimes


def save(path: Path, model: Model, *, any_size: bool = False, options: OutputOptions = HEADS_ALONE) -> None:
  """Writes `model` as one .onnx file.

  Args:
    path: the file to write.
    model: a model with weights.
    any_size: leave height and width of the images open; `size_step` says which sizes the network takes.
    options: what it puts out.

  Raises:
    OutOfScopeError: a layer or an activation has no ONNX form, or none for any size (named in the message).
    PrnError: the package `onnx` is not installed.
  """
  _require("onnx")
  import onnx

  proto = to_proto(model, any_size=any_size, options=options)
  onnx.checker.check_model(proto)
  with written_beside(path) as file:
    file.write(proto.SerializeToString())


def to_proto(model: Model, *, any_size: bool = False, options: OutputOptions = HEADS_ALONE) -> Any:
  """The ONNX ModelProto of a model; see `save`."""
  from onnx import TensorProto, helper

  onnx_boxes.check(model.graph, options, any_size)
  metadata = _metadata(model, options)
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
  if options.output != Output.HEADS:
    thresholds, outputs = onnx_boxes.write(o, model.graph, options)
    inputs += thresholds
  proto = helper.make_model(
    helper.make_graph(o.nodes, graph.name, inputs, outputs, o.constants),
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="prn_jax",
  )
  helper.set_model_props(proto, metadata)
  return proto


def _metadata(model: Model, options: OutputOptions) -> dict[str, str]:
  """What a program needs that has no cfg reader; the lists and numbers as JSON."""
  g = model.graph
  image = {"width": g.width, "height": g.height, "channels": "RGB" if g.channels == 3 else g.channels}
  facts: dict[str, Any] = {
    "name": g.name,
    "graph_cfg": model.cfg(),
    "names": list(model.names),
    "resize": str(model.resize),
    "input": image | {"layout": "NCHW", "values": [0, 1]},
    "output": str(options.output),
    "anchors": {head.name: _anchors_px(g, head).tolist() for head in g.heads if isinstance(head, DetectionHead)},
  }
  if options.output != Output.HEADS:
    facts["boxes"] = "x1, y1, x2, y2 in pixels of the input"
  if options.output == Output.DETECTIONS:
    keys = ("conf", "nms", "max_detections", "class_agnostic")
    facts["suppression"] = {key: getattr(options, key) for key in keys}
  return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _anchors_px(graph: Graph, head: DetectionHead) -> np.ndarray:
  """(anchors, 2) width and height in pixels of the input."""
  shape = graph.shapes[head.name]
  return head.own_anchors_px((shape.width, shape.height), (graph.width, graph.height))


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


def differences(
  model: Model, path: str | Path, size: tuple[int, int] | None = None, options: OutputOptions = HEADS_ALONE
) -> dict[str, float]:
  """Largest absolute difference of each output between `model` and an .onnx file, run by onnxruntime at batch 2.

  Args:
    model: what was written.
    path: the file.
    size: width and height of the images; by default the network's own.
    options: those with which it was written. Boxes are compared as parts of the input's sides.
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
  if options.output == Output.HEADS:
    expected = {name: np.asarray(ours[name]).transpose(0, 3, 1, 2) for name in names}
  else:
    expected = onnx_boxes.expected(ours, model.graph, options)
  scale = {"boxes": max(model.graph.width, model.graph.height)} if options.output != Output.HEADS else {}
  return {
    name: float(np.abs(expected[name] - y).max(initial=0)) / scale.get(name, 1)
    for name, y in zip(names, theirs, strict=True)
  }


def _require(package: str) -> None:
  import importlib.util

  if importlib.util.find_spec(package) is None:
    raise PrnError(f"ONNX needs the package '{package}': pip install 'prn-jax[onnx]'.")
