"""From activated head outputs to candidate boxes, with static shapes, inside jit (darknet.md c6, c7, a15, a16)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.graph.graph import Graph, Layer
from prn_jax.kinds.gaussian_yolo import GaussianYolo
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import Yolo


class Candidates(NamedTuple):
  """Every box that the heads predict, in Darknet's order: heads in cfg order, cells row by row, anchors.

  Attributes:
    boxes_cxcywh_rel: (n, boxes, 4) float32, relative to the network input; may reach beyond it.
    objectness: (n, boxes) float32.
    scores: (n, boxes, classes) float32: objectness times class probability; for Gaussian_yolo also times
      (1 - mean uncertainty). No threshold is applied.
    uncertainty: (n, boxes, 4) float32 in [0, 1]: the predicted deviation of x, y, w, h by Gaussian_yolo; else None.
  """

  boxes_cxcywh_rel: jax.Array
  objectness: jax.Array
  scores: jax.Array
  uncertainty: jax.Array | None = None


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
  heads = detection_heads(graph)
  parts = [_decode_head(head, outputs[head.name], graph) for head in heads]
  return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, 1), *parts)


def detection_heads(graph: Graph) -> tuple[Yolo | GaussianYolo | Region, ...]:
  """The heads in cfg order, checked: at least one, of one kind as far as uncertainty goes, with equal classes."""
  heads = tuple(layer for layer in graph.heads if isinstance(layer, Yolo | GaussianYolo | Region))
  if not heads:
    raise PrnError(
      f"network '{graph.name}' has no detection head; its result is '{graph.heads[-1].name}' ({graph.heads[-1].kind}). "
      "Expected a yolo, Gaussian_yolo or region layer; use a classifier's functions for a classifier."
    )
  if len({(head.classes, isinstance(head, GaussianYolo)) for head in heads}) > 1:
    kinds = ", ".join(f"'{head.name}' ({head.kind}, {head.classes} classes)" for head in heads)
    raise PrnError(f"network '{graph.name}' has heads that do not fit together: {kinds}.")
  for head in heads:
    if isinstance(head, Region) and head.tree:
      raise OutOfScopeError(
        f"layer '{head.name}' (region) has a class hierarchy (tree={head.tree}); decoding its boxes is not supported."
      )
  return heads


@functools.singledispatch
def _decode_head(head: Layer, output: jax.Array, graph: Graph) -> Candidates:
  raise AssertionError(f"kind '{head.kind}' has no decoder")


@_decode_head.register
def _yolo(head: Yolo, output: jax.Array, graph: Graph) -> Candidates:
  x, cells, grid = _per_anchor(output, head.entries)
  xy = (cells + x[..., 0:2]) / grid
  size = 4 * x[..., 2:4] ** 2 if head.new_coords else jnp.exp(x[..., 2:4])
  return _flat(xy, size * _anchors_px(head) / _pixels(graph), x[..., 4], x[..., 5:])


@_decode_head.register
def _gaussian_yolo(head: GaussianYolo, output: jax.Array, graph: Graph) -> Candidates:
  x, cells, grid = _per_anchor(output, head.entries)
  point = (cells + x[..., 0:4:2]) / grid
  wh = jnp.exp(x[..., 4:8:2]) * _anchors_px(head) / _pixels(graph)
  toward_center = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}[head.yolo_point]
  uncertainty = x[..., 1:8:2]
  certainty = 1 - jnp.mean(uncertainty, -1, keepdims=True)
  return _flat(point + toward_center * wh, wh, x[..., 8], x[..., 9:] * certainty, uncertainty)


@_decode_head.register
def _region(head: Region, output: jax.Array, graph: Graph) -> Candidates:
  x, cells, grid = _per_anchor(output, head.entries)
  xy = (cells + jax.nn.sigmoid(x[..., 0:2])) / grid
  anchors_cells = _on_last_axes(head.anchors)
  return _flat(xy, jnp.exp(x[..., 2:4]) * anchors_cells / grid, x[..., head.coords], x[..., head.coords + 1 :])


def _per_anchor(output: jax.Array, entries: int) -> tuple[jax.Array, np.ndarray, np.ndarray]:
  """(n, h, w, anchors, entries) float32; column and row of each cell (1, h, w, 1, 2); columns and rows of the grid."""
  n, height, width, _ = output.shape
  x = output.astype(jnp.float32).reshape(n, height, width, -1, entries)
  cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
  return x, cells[None, :, :, None], _on_last_axes([(width, height)])


def _anchors_px(head: Yolo | GaussianYolo) -> np.ndarray:
  return _on_last_axes([head.anchors[i] for i in head.anchor_indices])


def _pixels(graph: Graph) -> np.ndarray:
  return _on_last_axes([(graph.width, graph.height)])


def _on_last_axes(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
  """k pairs -> (1, 1, 1, k, 2)."""
  return np.asarray(pairs, np.float32)[None, None, None]


def _flat(
  xy: jax.Array, wh: jax.Array, objectness: jax.Array, class_scores: jax.Array, uncertainty: jax.Array | None = None
) -> Candidates:
  """Candidates from arrays (n, h, w, anchors, ...)."""

  def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1, *x.shape[4:])

  scores = objectness[..., None] * class_scores
  boxes = jnp.concatenate([xy, wh], -1)
  return Candidates(flat(boxes), flat(objectness), flat(scores), None if uncertainty is None else flat(uncertainty))
