"""Collects ONNX nodes while the kinds write themselves; tensors are NCHW, as ONNX expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class OnnxBuilder:
  """Nodes and constants of an ONNX graph under construction.

  Args:
    variable: gives the array at "conv/kernel" and the like for the layer that is being written, in its Darknet
      file layout (OIHW for kernels), without batch norm (fold it first).
  """

  def __init__(self, variable: Callable[[str], np.ndarray]) -> None:
    from onnx import helper, numpy_helper

    self._helper, self._numpy = helper, numpy_helper
    self.variable = variable
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

  def const(self, value: Any) -> str:
    """Adds a float32 constant."""
    return self._constant(np.asarray(value, np.float32))

  def ints(self, value: Sequence[int]) -> str:
    """Adds an int64 constant, as shapes and axes need."""
    return self._constant(np.asarray(value, np.int64))

  def slice(self, x: str, start: int, stop: int, axis: int, step: int = 1) -> str:
    return self.op("Slice", [x, *map(self.ints, ([start], [stop], [axis], [step]))])

  def reshape(self, x: str, *shape: int) -> str:
    """Reshapes; the batch axis, which may vary, comes first and is written as 0 (keep)."""
    return self.op("Reshape", [x, self.ints([0, *shape])])

  def _constant(self, value: np.ndarray) -> str:
    name = f"{self.layer}/const_{len(self.constants)}"
    self.constants.append(self._numpy.from_array(np.ascontiguousarray(value), name))
    return name

  def identity(self, x: str, name: str) -> Any:
    """A node that gives `x` the final name `name`."""
    return self._helper.make_node("Identity", [x], [name], name=f"{name}/output")
