"""Input sizes that a network can have, and the nearest ones to a size that it cannot."""

from __future__ import annotations

from collections.abc import Callable

from prn_jax.errors import GraphError
from prn_jax.graph.graph import Graph

Size = tuple[int, int]
"""(width, height) in pixels."""


def resized(graph: Graph, size: Size, key: str) -> Graph:
  """The graph for input of another size.

  Args:
    graph: any.
    size: wanted.
    key: the option or setting that gave the size, for the message.

  Raises:
    GraphError: it cannot have that size; names `key`, the multiples that it takes and the nearest sizes that fit.
  """
  try:
    return graph.resized(*size)
  except GraphError as error:
    sides = (
      ("width", graph.width, size[0], lambda side: _fits(graph, side, graph.height)),
      ("height", graph.height, size[1], lambda side: _fits(graph, graph.width, side)),
    )
    near = [text for name, own, side, fits in sides if (text := _near(graph, name, own, side, fits))]
    if not near:
      raise GraphError(f"{key}: {size[0]}x{size[1]} does not fit: {error}") from None
    raise GraphError(
      f"{key}: network '{graph.name}' cannot have an input of {size[0]}x{size[1]}. The nearest that fits: "
      f"{', '.join(near)}."
    ) from None


def _near(graph: Graph, name: str, own: int, side: int, fits: Callable[[int], bool]) -> str:
  """ "width 320 or 352 (multiples of 32)"; "" if the side itself fits, or no multiple near it does."""
  if fits(side):
    return ""
  index = 1 if name == "width" else 0
  stride = max((own // shape[index] for shape in graph.shapes.values() if shape[index] > 1), default=1)
  below, above = side // stride * stride, max(side // stride + 1, 1) * stride
  found = [str(multiple) for multiple in (below, above) if multiple > 0 and fits(multiple)]
  return f"{name} {' or '.join(found)} (multiples of {stride})" if found else ""


def _fits(graph: Graph, width: int, height: int) -> bool:
  try:
    graph.resized(width, height)
  except GraphError:
    return False
  return True
