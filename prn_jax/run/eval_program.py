"""A network on the batches of an evaluation: compiled once, on all devices of a mesh, from images to results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prn_jax.compiling import compiling
from prn_jax.detect import nms
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, Variables
from prn_jax.run.detector import MOST_CANDIDATES, DetectOptions, Timing, class_mask, too_many
from prn_jax.run.inference import optimized
from prn_jax.run.mesh import compiled, jit, put_batch, put_state, replicated, split


class EvalProgram:
  """The network and what makes results of its heads, compiled for the batches of one evaluator.

  Args:
    network: computes the heads from variables and images instead, such as another runtime with a file of this network.
  """

  def __init__(
    self,
    graph: Graph,
    names: Sequence[str],
    mesh: Mesh,
    options: DetectOptions | None,
    network: Callable[[Variables, jax.Array], Mapping[str, Any]] | None = None,
  ) -> None:
    self.graph, self.mesh, self.options = graph, mesh, options
    self.timing = Timing()
    self._variables: Variables = {}
    self._rewritten = graph
    self._thresholds: dict[str, Any] = {}
    if options:
      mask = class_mask(graph, names, options.classes)
      self._thresholds = put_state(
        {"conf": np.float32(options.conf), "nms": np.float32(options.nms), "mask": mask}, mesh
      )
    self._network: Any = network
    self._is_foreign = network is not None
    self._finishes: dict[int, Any] = {}  # by the number of candidates that they have room for
    self._room = nms.MAX_CANDIDATES

  def load(self, variables: Variables) -> None:
    """Takes these variables from now on; another runtime has its own."""
    if self._is_foreign:
      return
    self._rewritten, folded = optimized(self.graph, variables)
    self._variables = put_state(folded, self.mesh)

  def unload(self) -> None:
    """Gives the memory of the variables back."""
    self._variables = {}

  def run(self, batch: Mapping[str, np.ndarray], on_compiled: Callable[[], None]) -> dict[str, Any]:
    """ "found" (`nms.Suppressed`, or probabilities), "index", "placement" and perhaps "label" of the rows of all
    processes."""
    placed = put_batch(dict(batch), self.mesh)
    image = placed.pop("image")
    while True:
      if self._room not in self._finishes:
        with self._compiling(image):
          self._compile(image, placed)
        on_compiled()
      began = time.perf_counter()
      heads = jax.block_until_ready(self._network(self._variables, image))
      after_network = time.perf_counter()
      rows: dict[str, Any] = jax.device_get(self._finishes[self._room](heads, placed, self._thresholds))
      self.timing.network += after_network - began
      self.timing.boxes += time.perf_counter() - after_network
      if not self.options or not rows["found"].overflow[rows["mask"]].any():
        return rows
      self._make_room(self.options)

  def _compile(self, image: jax.Array, rest: dict[str, jax.Array]) -> None:
    """Both programs; none of them runs before all processes have them."""
    each, shared = split(self.mesh), replicated(self.mesh)
    heads = {
      head.name: jax.ShapeDtypeStruct(self._shape(head.name, image), np.float32, sharding=each)
      for head in self.graph.heads
    }
    if self._network is None:
      network = jit(Network(self._rewritten).apply, self.mesh, in_shardings=(shared, each), out_shardings=each)
      self._network = compiled(network, self._variables, image)
    self._finishes[self._room] = compiled(self._finish(), heads, rest, self._thresholds)

  def _shape(self, head: str, image: jax.Array) -> tuple[int, int, int, int]:
    shape = self.graph.shapes[head]
    return (image.shape[0], shape.height, shape.width, shape.channels)

  def _finish(self) -> Any:
    """The program from the heads to results, of all devices on each."""
    graph, options, room = self.graph, self.options, self._room

    def finish(heads: dict[str, jax.Array], rest: dict[str, jax.Array], given: dict[str, jax.Array]) -> dict[str, Any]:
      if not options:
        scores = heads[graph.heads[-1].name]
        return rest | {"found": scores.reshape(scores.shape[0], -1)}
      found = nms.postprocess(
        heads,
        graph,
        conf=given["conf"],
        nms_threshold=given["nms"],
        max_detections=options.max_detections,
        class_agnostic=options.class_agnostic,
        nms_kind=options.nms_kind,
        box_scale=rest["box_scale"],
        class_mask=given["mask"],
        max_candidates=room,
      )
      return rest | {"found": found}

    shardings = split(self.mesh), split(self.mesh), replicated(self.mesh)
    return jit(finish, self.mesh, in_shardings=shardings, out_shardings=replicated(self.mesh))

  def _make_room(self, options: DetectOptions) -> None:
    """Rare: a low threshold on a crowded scene; nothing may be lost."""
    if self._room >= MOST_CANDIDATES:
      raise too_many(options.conf)
    self._room *= 2

  def _compiling(self, image: jax.Array) -> contextlib.AbstractContextManager[None]:
    if jax.process_index():
      return contextlib.nullcontext()
    g = self.graph
    return compiling(f"{g.name} {g.width}x{g.height}, batch {image.shape[0]}, {jax.default_backend()}")
