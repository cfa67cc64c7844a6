"""Time of one forward pass of several networks, measured in turn, so that a busy computer slows all alike."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from prn_jax.graph.graph import Graph
from prn_jax.run.machine import machine, machine_text

ROUNDS, IN_A_ROW = 12, 6


def latencies(graphs: Mapping[str, Graph]) -> dict[str, float]:
  """Name -> least milliseconds for one image: batch norm folded, without reading the image and without NMS.

  The weights are random; they do not change the time. The least of all passes, because whatever else the computer
  does only adds to it.
  """
  import jax

  from prn_jax.model import Model
  from prn_jax.network import init_variables
  from prn_jax.run.inference import Inference

  engines = {name: Inference(Model(graph, init_variables(graph))) for name, graph in graphs.items()}
  images = {
    name: np.full((1, graph.height, graph.width, graph.channels), 0.5, np.float32) for name, graph in graphs.items()
  }
  least = dict.fromkeys(graphs, float("inf"))
  for _ in range(ROUNDS):
    for name, engine in engines.items():
      for _ in range(IN_A_ROW):
        began = time.perf_counter()
        jax.block_until_ready(engine(images[name]))
        least[name] = min(least[name], 1e3 * (time.perf_counter() - began))
  return least


def measured_on() -> str:
  """The machine of `latencies`, in words, with the threads that its programs may use."""
  threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return f"{machine_text(machine())}, {threads} thread{'s' if threads > 1 else ''}"
