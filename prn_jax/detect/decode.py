"""From activated head outputs to candidate boxes, with static shapes, inside jit (docs/darknet.md c6, c7, a15, a16)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.graph.head import Candidates, DetectionHead


def decode(outputs: Mapping[str, jax.Array], graph: Graph) -> Candidates:
  """Decodes all detection heads of a network.

  Args:
    outputs: head name -> (n, h, w, channels), activated, as `Network` returns them.
    graph: the network that they come from, with the size of the input that was used.

  Returns:
    The candidates of all heads.

  Raises:
    PrnError: the network has no detection head, or its heads differ in classes or kind.
    OutOfScopeError: a head with a class hierarchy (yolo9000).

  Source: Darknet `get_yolo_detections`, `get_gaussian_yolo_detections`, `get_region_detections`; differs: candidates
  below the threshold are still there.
  """
  parts = [head.candidates(outputs[head.name], (graph.width, graph.height)) for head in detection_heads(graph)]
  return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, 1), *parts)


def detection_heads(graph: Graph) -> tuple[DetectionHead, ...]:
  """The heads in cfg order, checked: at least one, of one kind as far as uncertainty goes, with equal classes."""
  heads = tuple(layer for layer in graph.heads if isinstance(layer, DetectionHead))
  if not heads:
    raise PrnError(
      f"network '{graph.name}' has no detection head; its result is '{graph.heads[-1].name}' ({graph.heads[-1].kind}). "
      "Expected a yolo, Gaussian_yolo or region layer; use a classifier's functions for a classifier."
    )
  if len({(head.classes, head.has_uncertainty) for head in heads}) > 1:
    kinds = ", ".join(f"'{head.name}' ({head.kind}, {head.classes} classes)" for head in heads)
    raise PrnError(f"network '{graph.name}' has heads that do not fit together: {kinds}.")
  for head in heads:
    head.check_boxes()
  return heads
