"""onnxruntime with a network of ours: its heads, how long it takes, and which nodes it computes in integers."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.export.backends import openvino_core
from prn_jax.graph.graph import INPUT, Graph

ROUNDS, IN_A_ROW = 15, 4
IN_INTEGERS = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "NhwcMaxPool")  # beginnings of names of operations
HEAVY = ("Conv", "FusedConv", "Gemm", "MatMul")  # that a quantised network should not compute in floats


class Session:
  """An .onnx file of a graph in onnxruntime, on CPU.

  Args:
    graph: the network of the file.
    path: the file.
    threads: the threads of the computation; 0: as many as onnxruntime likes.
    optimized: where to write the network as onnxruntime has rewritten it.
  """

  def __init__(self, graph: Graph, path: Path, threads: int = 0, optimized: Path | None = None) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if optimized:
      options.optimized_model_filepath = str(optimized)
    self.names = [head.name for head in graph.heads]
    self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

  def __call__(self, variables: Any, images: Any) -> dict[str, np.ndarray]:
    """Images (n, h, w, c) -> head name -> (n, h, w, c), as `Network.apply`, whose place it takes."""
    x = np.ascontiguousarray(np.asarray(images, np.float32).transpose(0, 3, 1, 2))
    found = self.session.run(self.names, {INPUT: x})
    return {name: np.ascontiguousarray(y.transpose(0, 2, 3, 1)) for name, y in zip(self.names, found, strict=True)}


@dataclasses.dataclass(frozen=True)
class Fusion:
  """What onnxruntime made of a quantised network.

  Attributes:
    operations: operation -> number of nodes, after its rewriting.
    in_integers: nodes that compute in integers.
    in_floats: names of the convolutions and matrix products that do not.
  """

  operations: Mapping[str, int]
  in_integers: int
  in_floats: tuple[str, ...]


def fusion(graph: Graph, path: Path) -> Fusion:
  """Looks at the network as onnxruntime runs it on this computer."""
  import onnx

  with tempfile.TemporaryDirectory() as folder:
    written = Path(folder) / "optimized.onnx"
    Session(graph, path, threads=1, optimized=written)
    nodes = list(onnx.load(str(written)).graph.node)
  operations = {kind: sum(node.op_type == kind for node in nodes) for kind in sorted({node.op_type for node in nodes})}
  floats = tuple(node.name for node in nodes if node.op_type in HEAVY)
  return Fusion(operations, sum(node.op_type.startswith(IN_INTEGERS) for node in nodes), floats)


def latencies(graph: Graph, paths: Mapping[str, Path], threads: int = 0) -> dict[str, float]:
  """Name -> least milliseconds of one image, of several files measured in turn; whatever else the computer does only adds."""
  sessions = {name: Session(graph, path, threads) for name, path in paths.items()}
  image = {INPUT: np.random.default_rng(0).random((1, graph.channels, graph.height, graph.width), np.float32)}
  least = dict.fromkeys(sessions, float("inf"))
  for turn in range(ROUNDS):
    for name, session in sessions.items():
      for _ in range(IN_A_ROW):
        began = time.perf_counter()
        session.session.run(None, image)
        if turn:
          least[name] = min(least[name], 1e3 * (time.perf_counter() - began))
  return least


def openvino_latencies(graph: Graph, paths: Mapping[str, Path]) -> dict[str, float]:
  """The same in OpenVINO, in float32 where the file does not say otherwise; empty where it is not installed."""
  import importlib.util

  if importlib.util.find_spec("openvino") is None:
    return {}
  core = openvino_core()
  hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
  models = {name: core.compile_model(str(path), "CPU", hints) for name, path in paths.items()}
  image = np.random.default_rng(0).random((1, graph.channels, graph.height, graph.width), np.float32)
  least = dict.fromkeys(models, float("inf"))
  for turn in range(ROUNDS):
    for name, model in models.items():
      for _ in range(IN_A_ROW):
        began = time.perf_counter()
        model([image])
        if turn:
          least[name] = min(least[name], 1e3 * (time.perf_counter() - began))
  return least


def installed_engines() -> Sequence[str]:
  """The runtimes whose times are measured, with their versions."""
  import importlib.metadata

  found = []
  for package in ("onnxruntime", "openvino"):
    try:
      found.append(f"{package} {importlib.metadata.version(package)}")
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
