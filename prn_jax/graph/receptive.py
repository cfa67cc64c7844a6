"""Receptive field: the region of the image that one output location can see."""

from __future__ import annotations

from typing import NamedTuple

from prn_jax.graph.graph import INPUT, Graph


class ReceptiveField(NamedTuple):
  """Height and width in pixels (infinite behind a global layer), and the stride between neighbours."""

  size: tuple[float, float]
  stride: tuple[float, float]


def receptive_fields(graph: Graph) -> dict[str, ReceptiveField]:
  """The receptive field of every layer: the largest over all paths from the image.

  Nearest-neighbour upsampling divides the stride; a window behind it is then counted in full input cells.
  """
  fields = {INPUT: ReceptiveField((1.0, 1.0), (1.0, 1.0))}
  for layer in graph:
    window = layer.window(graph.input_shapes(layer), graph.shapes[layer.name])
    sources = [fields[name] for name in layer.inputs]
    if window is None or not sources:
      infinite = (float("inf"),) * 2 if sources else (0.0, 0.0)
      fields[layer.name] = ReceptiveField(infinite, (float("inf"),) * 2)
      continue
    size, stride = [], []
    for axis in (0, 1):
      jump = max(source.stride[axis] for source in sources)
      extent = max(source.size[axis] for source in sources)
      size.append(extent + (window.kernel[axis] - 1) * jump if window.kernel[axis] > 1 else extent)
      stride.append(jump * window.stride[axis])
    fields[layer.name] = ReceptiveField((size[0], size[1]), (stride[0], stride[1]))
  return fields
