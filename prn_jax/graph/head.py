"""What a detection head is, of any family: which boxes, scores and classes its outputs stand for.

A kind of head is one file in `prn_jax/kinds`: a `DetectionHead` that says how its values lie (`layout`), and which box
they stand for (`decode`). Decoding of whole networks, suppression, and the losses of its family only ask it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from prn_jax.errors import OutOfScopeError
from prn_jax.graph.graph import Layer
from prn_jax.lazy import jax, jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")


class Layout(NamedTuple):
  """Where the values of one box stand on the last axis. Slices, since a list of numbers would make XLA gather.

  Attributes:
    box: the four of its place and size, x first.
    objectness: whether there is an object.
    first_class: the first of the classes, which come last.
    sigma: the deviations of the four; empty where the head predicts none.
  """

  box: slice
  objectness: int
  first_class: int
  sigma: slice = slice(0, 0)


class Nms(NamedTuple):
  """The non-maximum suppression that a head asks for: one of `NMS_KINDS`, and the exponent of diounms."""

  kind: str = "default"
  beta: float = 0.6


class Scores(NamedTuple):
  """How sure a head is of its boxes.

  Attributes:
    objectness: (...) float32; a box takes part in a suppression only if this exceeds the threshold.
    scores: (..., classes) float32: probability that there is an object, and of this class.
    uncertainty: (..., 4) float32 in [0, 1]: the deviation of x, y, w, h; None where the head predicts none.
  """

  objectness: Array
  scores: Array
  uncertainty: Array | None = None


class Candidates(NamedTuple):
  """Every box that the heads predict, in Darknet's order: heads in cfg order, cells row by row, anchors.

  Attributes:
    boxes_cxcywh_rel: (n, boxes, 4) float32, relative to the network input; may reach beyond it.
    objectness: (n, boxes) float32.
    scores: (n, boxes, classes) float32: objectness times class probability; for Gaussian_yolo also times
      (1 - mean uncertainty). No threshold is applied.
    uncertainty: (n, boxes, 4) float32 in [0, 1]: the predicted deviation of x, y, w, h by Gaussian_yolo; else None.
  """

  boxes_cxcywh_rel: Array
  objectness: Array
  scores: Array
  uncertainty: Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
  """Places on the grid of a head.

  Attributes:
    xy: (..., 1, 2) float32 column and row of each place; the axis of length 1 is that of the boxes of a cell.
    grid: columns and rows of the whole grid.
    net_size: width and height of the network input in pixels.
  """

  xy: np.ndarray | Array
  grid: tuple[int, int]
  net_size: tuple[int, int]

  @classmethod
  def all(cls, grid: tuple[int, int], net_size: tuple[int, int]) -> Cells:
    """Every cell: `xy` is (rows, columns, 1, 2)."""
    xy = np.stack(np.meshgrid(np.arange(grid[0]), np.arange(grid[1])), -1).astype(np.float32)[:, :, None]
    return cls(xy, grid, net_size)

  def at(self, numbers: Array) -> Cells:
    """The cells with these numbers, counted row by row: (k,) int32 gives (k, 1, 2)."""
    return dataclasses.replace(self, xy=jnp.asarray(self.xy).reshape(-1, 1, 2)[numbers])

  def flat(self) -> Cells:
    """The same cells in one row: `xy` is (cells, 1, 2)."""
    return dataclasses.replace(self, xy=self.xy.reshape(-1, 1, 2))

  def pairs(self, *pairs: Sequence[float]) -> np.ndarray:
    """k pairs (x, y) as (1, ..., k, 2) float32, with as many axes as `xy`: rank promotion may be forbidden."""
    return np.asarray(pairs, np.float32).reshape(*(1,) * (self.xy.ndim - 2), -1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionHead(Layer):
  """A layer whose output stands for boxes: for each cell of its grid one or more, with `entries` values each.

  A kind has a `layout` and `decode`. One that has no objectness, or other values beside box and classes, has its own
  `entries` and `scores` in place of a layout. `encode` is for losses that compare values instead of boxes.

  Attributes:
    classes: number of classes.
  """

  is_head = True
  has_uncertainty: ClassVar[bool] = False  # whether `scores` gives one

  classes: int = 20

  @property
  def layout(self) -> Layout:
    """Where the values of a box stand."""
    raise AssertionError(f"kind '{self.kind}' has no layout")

  @property
  def entries(self) -> int:
    """Values per box."""
    return self.layout.first_class + self.classes

  @property
  def nms(self) -> Nms:
    """The suppression that the network asks for; the last head decides."""
    return Nms()

  def detail(self, places: Sequence[str]) -> str:
    return f"{self.classes} classes"

  def check_boxes(self) -> None:
    """Raises OutOfScopeError if the boxes of this head cannot be decoded."""

  def decode(self, x: Array, cells: Cells) -> Array:
    """The boxes that values stand for.

    Args:
      x: (..., a, entries) float32 outputs of the a boxes of each place.
      cells: the places, with as many axes as `x`.

    Returns:
      (..., a, 4) float32 cxcywh relative to the network input; may reach beyond it.
    """
    raise AssertionError(f"kind '{self.kind}' has no decoder")

  def encode(self, boxes: Array, cells: Cells) -> Array:
    """The values that stand for boxes: the inverse of `decode`.

    Args:
      boxes: (..., a or 1, 4) float32 cxcywh relative to the network input.
      cells: the places that shall predict them, with as many axes as `boxes`.

    Returns:
      (..., a, 4) float32, the values at `layout.box`; not finite for boxes that the head cannot predict.
    """
    raise AssertionError(f"kind '{self.kind}' has no encoder")

  def own_anchors_px(self, grid: tuple[int, int], net_size: tuple[int, int]) -> np.ndarray:
    """Its anchors.

    Args:
      grid: columns and rows of its grid.
      net_size: (width, height) of the network input in pixels.

    Returns:
      (a, 2) float64 width and height in pixels of the network input; (0, 2) of a head without anchors.
    """
    return np.zeros((0, 2))

  def scores(self, x: Array) -> Scores:
    """How sure the head is; `x` is (..., entries) outputs."""
    objectness = x[..., self.layout.objectness]
    return Scores(objectness, objectness[..., None] * x[..., self.layout.first_class :])

  def onnx_decode(self, x: str, cells: Cells, o: OnnxBuilder) -> str:
    """As `decode`, in ONNX: names of (n, boxes, entries) -> (n, boxes, 4); the cells are (1, boxes, 2)."""
    raise OutOfScopeError(f"layer '{self.name}': kind '{self.kind}' cannot write its boxes as ONNX; write heads.")

  def onnx_scores(self, x: str, o: OnnxBuilder) -> tuple[str, str]:
    """As `scores`, in ONNX: objectness (n, boxes, 1) and scores (n, boxes, classes)."""
    layout = self.layout
    objectness = o.slice(x, layout.objectness, layout.objectness + 1, axis=2)
    return objectness, o.op("Mul", [objectness, o.slice(x, layout.first_class, self.entries, axis=2)])

  def candidates(self, output: Array, net_size: tuple[int, int]) -> Candidates:
    """All boxes of the head.

    Args:
      output: (n, h, w, channels), as `Network` returns it, in any float dtype; the arithmetic is float32.
      net_size: width and height of the network input in pixels.
    """
    _, height, width, _ = output.shape
    cells = Cells.all((width, height), net_size)

    def one_image(output: Array) -> Candidates:
      x = output.astype(jnp.float32).reshape(height, width, -1, self.entries)
      found = Candidates(self.decode(x, cells), *self.scores(x))
      return jax.tree.map(lambda values: values.reshape(-1, *values.shape[3:]), found)

    return jax.vmap(one_image)(output)
