"""Collects ONNX nodes while the kinds write themselves; tensors are NCHW, as ONNX expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Grid(NamedTuple):
  """What a quantised tensor was rounded to.

  Attributes:
    scale: float32.
    zero: its zero point, of the type of its integers (int8 or uint8).
  """

  scale: float
  zero: np.ndarray


Extent = int | str  # a side of a map: a number, or the name of an int64 tensor of shape (1,)


class OnnxBuilder:
  """Nodes and constants of an ONNX graph under construction.

  Args:
    variable: gives the array at "conv/kernel" and the like for the layer that is being written, in its Darknet
      file layout (OIHW for kernels), without batch norm (fold it first).

  Attributes:
    grids: name of a tensor that has just been quantised -> its grid.
    any_size: height and width of the layer's input are left open: no node may hold a number that follows from them.
  """

  def __init__(self, variable: Callable[[str], np.ndarray]) -> None:
    from onnx import helper, numpy_helper

    self._helper, self._numpy = helper, numpy_helper
    self.variable = variable
    self.grids: dict[str, Grid] = {}
    self.any_size = False
    self.layer = ""
    self.nodes: list[Any] = []
    self.constants: list[Any] = []
    self.input_shapes: list[tuple[int, int, int]] = []  # (c, h, w) of the inputs of the layer

  @property
  def shape(self) -> tuple[int, int, int]:
    """(c, h, w) of the layer's first input."""
    return self.input_shapes[0]

  def op(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
    """Adds a node and returns the name of its output."""
    name = f"{self.layer}/{kind.lower()}_{len(self.nodes)}"
    self.nodes.append(self._helper.make_node(kind, list(inputs), [name], name=name, **attributes))
    return name

  def split(self, x: str, parts: Sequence[int], axis: int) -> list[str]:
    """Cuts a tensor into pieces of the given sizes."""
    names = [f"{self.layer}/split_{len(self.nodes)}_{i}" for i in range(len(parts))]
    node = self._helper.make_node("Split", [x, self.ints(parts)], names, name=names[0], axis=axis)
    self.nodes.append(node)
    return names

  def top(self, x: str, count: int) -> tuple[str, str]:
    """The largest `count` values of (n, k), largest first, and their places."""
    name = f"{self.layer}/topk_{len(self.nodes)}"
    inputs, outputs = [x, self.ints([count])], [f"{name}/values", f"{name}/places"]
    self.nodes.append(self._helper.make_node("TopK", inputs, outputs, name=name, axis=1, largest=1, sorted=1))
    return outputs[0], outputs[1]

  def const(self, value: Any) -> str:
    """Adds a float32 constant."""
    return self._constant(np.asarray(value, np.float32))

  def ints(self, value: Sequence[int]) -> str:
    """Adds an int64 constant, as shapes and axes need."""
    return self._constant(np.asarray(value, np.int64))

  def integers(self, value: np.ndarray) -> str:
    """Adds a constant of its own type: int8, uint8 or int32."""
    return self._constant(value)

  def quantized(self, x: str, grid: Grid) -> str:
    """Rounds a tensor to a grid and gives it back as floats: the pair of nodes that runtimes turn into integers."""
    arrays = [self._scalar(np.float32(grid.scale)), self._scalar(grid.zero)]
    y = self.op("DequantizeLinear", [self.op("QuantizeLinear", [x, *arrays]), *arrays])
    self.grids[y] = grid
    return y

  def as_before(self, y: str, x: str) -> str:
    """`y`, which holds values of `x` and zeros in other places: on the grid of `x` if it has one, so that what follows
    stays in integers. No value changes."""
    return self.quantized(y, self.grids[x]) if x in self.grids else y

  def slice(self, x: str, start: int, stop: int, axis: int, step: int = 1) -> str:
    return self.op("Slice", [x, *map(self.ints, ([start], [stop], [axis], [step]))])

  def reshape(self, x: str, *shape: Extent) -> str:
    """Reshapes; the batch axis, which may vary, comes first and is written as 0 (keep)."""
    if all(isinstance(extent, int) for extent in shape):
      return self.op("Reshape", [x, self.ints([0, *shape])])  # type: ignore[list-item]
    parts = [extent if isinstance(extent, str) else self.ints([extent]) for extent in (0, *shape)]
    return self.op("Reshape", [x, self.op("Concat", parts, axis=0)])

  def extents(self, x: str) -> tuple[Extent, Extent]:
    """Height and width of the layer's first input `x`: numbers, or where they are left open what computes them."""
    if not self.any_size:
      return self.shape[1:]
    shape = self.op("Shape", [x])
    return self.slice(shape, 2, 3, axis=0), self.slice(shape, 3, 4, axis=0)

  def times(self, extent: Extent, factor: int) -> Extent:
    return extent * factor if isinstance(extent, int) else self.op("Mul", [extent, self.ints([factor])])

  def over(self, extent: Extent, divisor: int) -> Extent:
    return extent // divisor if isinstance(extent, int) else self.op("Div", [extent, self.ints([divisor])])

  def _scalar(self, value: Any) -> str:
    """A constant without axes; with one of length 1 onnxruntime leaves additions in floats."""
    name = f"{self.layer}/const_{len(self.constants)}"
    self.constants.append(self._numpy.from_array(np.asarray(value), name))
    return name

  def _constant(self, value: np.ndarray) -> str:
    name = f"{self.layer}/const_{len(self.constants)}"
    self.constants.append(self._numpy.from_array(np.ascontiguousarray(value), name))
    return name

  def identity(self, x: str, name: str) -> Any:
    """A node that gives `x` the final name `name`."""
    return self._helper.make_node("Identity", [x], [name], name=f"{name}/output")
