"""Nodes behind the heads of a detector: its boxes, and the suppression by ONNX's own operator.

`boxes`: every candidate in Darknet's order (heads in cfg order, cells row by row, anchors): boxes xyxy in pixels of the
network input, scores per class. `detections`: what is left of them, best first, in a fixed number of slots of which
`count` are used; the thresholds are inputs with default values. The rule is that of `detect.nms` with plain overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.graph.graph import Graph
from prn_jax.graph.head import Cells, DetectionHead
from prn_jax.graph.onnx_builder import OnnxBuilder

CONF, NMS = "conf", "nms"  # inputs of `detections`
PLAIN = ("default", "cornersnms")  # suppressions that compare plain overlap


class Output(StrEnum):
  """What an ONNX file puts out."""

  HEADS = "heads"
  BOXES = "boxes"
  DETECTIONS = "detections"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
  """What an ONNX file puts out, and how its boxes are suppressed.

  Attributes:
    output: "heads", "boxes" or "detections".
    conf, nms, max_detections, class_agnostic, nms_kind: the suppression of "detections", in the terms of
      `run.detector.DetectOptions`.
  """

  output: Output | str = Output.HEADS
  conf: float = 0.25
  nms: float = 0.45
  max_detections: int = 300
  class_agnostic: bool = False
  nms_kind: str | None = None


HEADS_ALONE = OutputOptions()


def check(graph: Graph, options: OutputOptions, any_size: bool) -> None:
  """Raises PrnError where a network has no such output."""
  if options.output == Output.HEADS:
    return
  heads = [head for head in graph.heads if isinstance(head, DetectionHead)]
  if not heads:
    raise PrnError(f"--onnx-output {options.output}: network '{graph.name}' classifies; its output is heads.")
  if any_size:
    raise PrnError(f"--onnx-output {options.output} needs one image size: leave --any-size out, or write heads.")
  for head in heads:
    head.check_boxes()
  kind = options.nms_kind or heads[-1].nms.kind
  if options.output == Output.DETECTIONS and kind not in PLAIN:
    raise OutOfScopeError(
      f"--onnx-output detections: network '{graph.name}' suppresses by {kind}, and ONNX's operator by plain overlap, which gives "
      "other boxes. Take plain overlap with --nms-kind default, or write boxes and suppress them afterwards."
    )


def write(o: OnnxBuilder, graph: Graph, options: OutputOptions) -> tuple[list[Any], list[Any]]:
  """Adds the nodes behind the heads, whose tensors have their names.

  Returns:
    Further inputs and the outputs of the file, as ONNX describes them.
  """
  parts = []
  for head in graph.heads:
    assert isinstance(head, DetectionHead)
    o.layer = head.name
    parts.append(_candidates(o, graph, head))
  o.layer = "boxes"
  boxes, objectness, scores = (o.op("Concat", list(part), axis=1) for part in zip(*parts, strict=True))
  if options.output == Output.BOXES:
    return [], _boxes_output(o, graph, boxes, scores)
  o.layer = "suppress"
  return _suppressed(o, graph, options, (boxes, objectness, scores))


def _candidates(o: OnnxBuilder, graph: Graph, head: DetectionHead) -> tuple[str, str, str]:
  """(n, boxes, 4) cxcywh relative to the input, (n, boxes, 1) and (n, boxes, classes) of one head."""
  shape = graph.shapes[head.name]
  anchors = shape.channels // head.entries
  split = o.reshape(head.name, anchors, head.entries, shape.height, shape.width)
  x = o.reshape(o.op("Transpose", [split], perm=[0, 3, 4, 1, 2]), -1, head.entries)
  cells = Cells.all((shape.width, shape.height), (graph.width, graph.height))
  places = np.repeat(cells.xy.reshape(1, -1, 2), anchors, 1)
  objectness, scores = head.onnx_scores(x, o)
  return head.onnx_decode(x, dataclasses.replace(cells, xy=places), o), objectness, scores


def _xyxy_px(o: OnnxBuilder, graph: Graph, boxes: str) -> str:
  size = o.const([graph.width, graph.height])
  centre, extent = (o.op("Mul", [o.slice(boxes, first, first + 2, axis=2), size]) for first in (0, 2))
  half = o.op("Mul", [extent, o.const(0.5)])
  return o.op("Concat", [o.op("Sub", [centre, half]), o.op("Add", [centre, half])], axis=2)


def _boxes_output(o: OnnxBuilder, graph: Graph, boxes: str, scores: str) -> list[Any]:
  from onnx import TensorProto, helper

  count, classes = _num_boxes(graph)
  o.nodes += [o.identity(_xyxy_px(o, graph, boxes), "boxes"), o.identity(scores, "scores")]
  return [
    helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", count, 4]),
    helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", count, classes]),
  ]


def expected(heads: Any, graph: Graph, options: OutputOptions) -> dict[str, np.ndarray]:
  """What the file must give for these heads (n, h, w, channels), by our own decoding and suppression."""
  from prn_jax.detect import nms
  from prn_jax.detect.decode import decode

  def corners(boxes: Any) -> np.ndarray:
    centre, half = np.asarray(boxes)[..., :2], np.asarray(boxes)[..., 2:] / 2
    sides = np.asarray([graph.width, graph.height] * 2, np.float32)
    return np.concatenate([centre - half, centre + half], -1) * sides

  if options.output == Output.BOXES:
    found = decode(heads, graph)
    return {"boxes": corners(found.boxes_cxcywh_rel), "scores": np.asarray(found.scores)}
  kept = nms.postprocess(
    heads,
    graph,
    conf=options.conf,
    nms_threshold=options.nms,
    max_detections=options.max_detections,
    class_agnostic=options.class_agnostic,
    nms_kind=options.nms_kind,
  )
  count, classes = _num_boxes(graph)
  slots = min(options.max_detections, count * (1 if options.class_agnostic else classes))
  arrays = {"boxes": corners(kept.boxes_cxcywh_rel), "scores": kept.scores, "classes": kept.classes}
  return {name: np.asarray(array)[:, :slots] for name, array in arrays.items()} | {"count": np.asarray(kept.count)}


def _num_boxes(graph: Graph) -> tuple[int, int]:
  """All boxes of all heads, and the classes."""
  heads = [head for head in graph.heads if isinstance(head, DetectionHead)]
  return sum(graph.shapes[head.name].size // head.entries for head in heads), heads[-1].classes


def _suppressed(
  o: OnnxBuilder, graph: Graph, options: OutputOptions, found: Sequence[str]
) -> tuple[list[Any], list[Any]]:
  from onnx import TensorProto, helper, numpy_helper

  boxes, objectness, scores = found
  num_boxes, classes = _num_boxes(graph)
  thresholds = ((CONF, options.conf), (NMS, options.nms))
  o.constants += [numpy_helper.from_array(np.asarray([value], np.float32), name) for name, value in thresholds]
  best = o.op("ArgMax", [scores], axis=2, keepdims=0) if options.class_agnostic else ""
  if best:
    scores = o.op("ReduceMax", [scores], axes=[2], keepdims=1)
  scores = o.op("Where", [o.op("Greater", [objectness, CONF]), scores, o.const(0)])
  by_class = o.op("Transpose", [scores], perm=[0, 2, 1])
  inputs = [boxes, by_class, o.ints([num_boxes]), NMS, CONF]
  chosen = o.op("NonMaxSuppression", inputs, center_point_box=1)
  nothing = o.op("Mul", [o.op("Cast", [o.op("Greater", [by_class, o.const(2)])], to=TensorProto.FLOAT), o.const(0)])
  kept = o.op("ScatterND", [nothing, chosen, o.op("GatherND", [by_class, chosen])])
  slots = min(options.max_detections, num_boxes * (1 if best else classes))
  top, place = o.top(o.reshape(kept, -1), slots)
  row = o.op("Div", [place, o.ints([num_boxes])])
  box = o.op("Sub", [place, o.op("Mul", [row, o.ints([num_boxes])])])
  index = o.op("Unsqueeze", [box, o.ints([2])])
  label = o.op("GatherND", [best, index], batch_dims=1) if best else row
  used = o.op("Greater", [top, o.const(0)])
  corners = o.op("GatherND", [_xyxy_px(o, graph, boxes), index], batch_dims=1)
  corners = o.op("Where", [o.op("Unsqueeze", [used, o.ints([2])]), corners, o.const(0)])
  whole = o.op("Cast", [used], to=TensorProto.INT64)
  results = {
    "boxes": (corners, TensorProto.FLOAT, [slots, 4]),
    "scores": (top, TensorProto.FLOAT, [slots]),
    "classes": (o.op("Mul", [label, whole]), TensorProto.INT64, [slots]),
    "count": (o.op("ReduceSum", [whole, o.ints([1])], keepdims=0), TensorProto.INT64, []),
  }
  o.nodes += [o.identity(tensor, name) for name, (tensor, _, _) in results.items()]
  asked = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name, _ in thresholds]
  outputs = [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, (_, kind, shape) in results.items()]
  return asked, outputs
