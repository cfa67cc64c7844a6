"""Registered models side by side: size, operations, memory, published accuracy, and the time of one image where asked."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence

import numpy as np

from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.graph.sizes import Size, resized
from prn_jax.models.registry import ModelSpec, Published, build_graph, get_spec

WARM_UP = 2  # passes before the first that counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
  """One row.

  Attributes:
    name, task: those of the registered model.
    width, height: size of its input in pixels.
    params: learnable values.
    bflops: billions of operations by Darknet's count, a multiply-add counting two.
    peak_activation_bytes: most bytes of feature maps alive at once, float32, batch 1.
    published: figures with an accuracy, at this size where there are such; None: nobody has published any.
    latency_ms: median of the passes in milliseconds; None: not measured.
    passes: how many.
  """

  name: str
  task: str
  width: int
  height: int
  params: int
  bflops: float
  peak_activation_bytes: int
  published: Published | None = None
  latency_ms: float | None = None
  passes: int = 0


def compare(names: Sequence[str], size: Size | None = None) -> list[Compared]:
  """A row for every name, in this order; nothing is run.

  Args:
    names: registered models.
    size: size of the input for all; each one's own by default.

  Raises:
    ModelNotFoundError: there is no such model. GraphError: a model cannot have this size.
  """
  return [_row(get_spec(name), graph_of(name, size)) for name in names]


def graph_of(name: str, size: Size | None) -> Graph:
  graph = build_graph(name)
  return graph if size is None else resized(graph, size, f"--size {size[0]}x{size[1]}")


def _row(spec: ModelSpec, graph: Graph) -> Compared:
  total = cost(graph)
  return Compared(
    name=spec.name,
    task=spec.task,
    width=graph.width,
    height=graph.height,
    params=total.params,
    bflops=total.bflops,
    peak_activation_bytes=total.peak_activation_bytes,
    published=published_accuracy(spec.published, graph),
  )


def published_accuracy(published: Sequence[Published], graph: Graph) -> Published | None:
  """The first figures with an accuracy at the graph's size, else the first at another size; they say at which."""
  known = [each for each in published if any(value is not None for value in (each.ap, each.ap50, each.top1))]
  own = [each for each in known if (each.size, each.size) == (graph.width, graph.height)]
  return next(iter(own or known), None)


def measured(rows: Sequence[Compared], passes: int, size: Size | None = None) -> list[Compared]:
  """The rows with the time of one image on this machine's first device: batch norm folded, random weights, without reading
  the image and without suppression. One model after the other, so that only one lies in memory."""
  return [
    dataclasses.replace(row, latency_ms=_latency(graph_of(row.name, size), passes), passes=passes) for row in rows
  ]


def _latency(graph: Graph, passes: int) -> float:
  import jax

  from prn_jax.model import Model
  from prn_jax.network import init_variables
  from prn_jax.run.inference import Inference

  engine = Inference(Model(graph, init_variables(graph)))
  image = np.full((1, graph.height, graph.width, graph.channels), 0.5, np.float32)
  seconds = []
  for _ in range(WARM_UP + passes):
    began = time.perf_counter()
    jax.block_until_ready(engine(image))
    seconds.append(time.perf_counter() - began)
  return 1e3 * statistics.median(seconds[WARM_UP:])
