"""What the doctor of data sets must know of a network: its input, its anchors, the cells of its finest head."""

from __future__ import annotations

import numpy as np

from prn_jax.data_pipelines.doctor.checkup import DEFAULT_MAX_BOXES, Network
from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.graph.head import DetectionHead


def network_facts(graph: Graph, resize: str, max_boxes: int = DEFAULT_MAX_BOXES) -> Network:
  """The facts of a detector.

  Args:
    graph: the network.
    resize: how its input is made of an image, "stretch" or "letterbox".
    max_boxes: objects of an image that a training takes.

  Raises:
    PrnError: the network has no detection head.
  """
  net_size = (graph.width, graph.height)
  maps = [(head, graph.shapes[head.name]) for head in graph.heads if isinstance(head, DetectionHead)]
  if not maps:
    raise PrnError(f"network '{graph.name}' has no detection head, so boxes cannot suit it. Give --size alone.")
  cells = [(graph.width / shape.width, graph.height / shape.height) for _, shape in maps]
  anchors = np.concatenate([head.own_anchors_px((shape.width, shape.height), net_size) for head, shape in maps])
  return Network(
    size_wh=net_size,
    resize=resize,
    cell_px=min(cells),
    anchors_wh_px=anchors if len(anchors) else None,
    max_boxes=max_boxes,
  )
