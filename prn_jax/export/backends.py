"""Engines that compute the heads of a network in JAX's place, and ONNX files of ours opened for them.

An engine is a function with `@register_backend`: an .onnx file and names of its outputs in, a function of batches out.
What follows the heads (boxes, suppression, figures) is the same for all, so that results differ by rounding alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.absent import without_module
from prn_jax.compiling import cache_folder
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.disk import is_file
from prn_jax.files.places import to_path
from prn_jax.formats import darknet_cfg
from prn_jax.graph.graph import INPUT
from prn_jax.model import Model
from prn_jax.run.traced import sources

JAX, AUTO, ONNXRUNTIME = "jax", "auto", "onnxruntime"
REQUIRED = ("graph_cfg", "names", "resize")  # of the metadata
Batches = Callable[[np.ndarray], Sequence[np.ndarray]]  # (n, c, h, w) float32 -> the outputs, NCHW


@dataclasses.dataclass(frozen=True)
class Backend:
  """An engine.

  Attributes:
    name: as --backend takes it.
    package: what must be installed, as pip calls it; its module has the same name.
    open: (bytes of an .onnx file, names of outputs) -> what runs a batch.
  """

  name: str
  package: str
  open: Callable[[bytes, Sequence[str]], Batches]

  @property
  def is_installed(self) -> bool:
    return importlib.util.find_spec(self.package) is not None


BACKENDS: dict[str, Backend] = {}  # in the order in which `auto` asks for them


def register_backend(name: str, package: str) -> Callable[[Any], Any]:
  """Registers the function below it as the `open` of a `Backend`."""

  def register(function: Callable[[bytes, Sequence[str]], Batches]) -> Any:
    BACKENDS[name] = Backend(name, package, function)
    return function

  return register


@register_backend("onnxruntime", "onnxruntime")
def _onnxruntime(data: bytes, outputs: Sequence[str]) -> Batches:
  import onnxruntime

  session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
  return lambda x: session.run(list(outputs), {INPUT: x})


@register_backend("openvino", "openvino")
def _openvino(data: bytes, outputs: Sequence[str]) -> Batches:
  """In float32: OpenVINO would take bfloat16 where the processor has it."""
  core = openvino_core()
  hints = {"INFERENCE_PRECISION_HINT": "f32"}
  model = core.compile_model(core.read_model(data, b""), "CPU", hints)

  def run(x: np.ndarray) -> Sequence[np.ndarray]:
    found = model({INPUT: x})
    return [np.array(found[name]) for name in outputs]

  return run


def openvino_core() -> Any:
  """OpenVINO, which reports every import of it to its makers, from a fork of the process, unless this part of it is missing."""
  with without_module("openvino_telemetry"):
    import openvino

  return openvino.Core()


class Heads:
  """A network in an engine, as `run.inference.Inference`, whose place it takes.

  Args:
    names: the heads.
    run: see `Backend.open`.
  """

  def __init__(self, names: Sequence[str], run: Batches) -> None:
    self._names, self._run = tuple(names), run
    self._made: dict[Any, Any] = {}

  def __call__(self, images: Any) -> dict[str, np.ndarray]:
    """(n, h, w, c) float32 in [0, 1], or uint8 -> head name -> (n, h, w, c) float32."""
    x = np.asarray(images)
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
    found = self._run(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return {name: np.ascontiguousarray(y.transpose(0, 2, 3, 1)) for name, y in zip(self._names, found, strict=True)}

  def of_variables(self, variables: Any, images: Any) -> dict[str, np.ndarray]:
    """As a call; the file holds the variables."""
    return self(images)

  def with_heads(self, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """What works on the heads, made once for a key."""
    if key not in self._made:
      self._made[key] = make()
    return self._made[key]


def is_onnx(path: str | Path) -> bool:
  return to_path(path).suffix.lower() == ".onnx" and is_file(to_path(path))


def chosen(name: str, default_device: str = "cpu") -> Backend | None:
  """The engine of a name; None is JAX. `auto` is JAX on an accelerator, and on the CPU the first of `BACKENDS` that is
  installed: onnxruntime takes 0.6 to 0.8 of JAX's time there (docs/speed.md).

  Raises:
    PrnError: there is none of that name, or its package is not installed.
  """
  if name == JAX:
    return None
  if name == AUTO:
    installed = [one for one in BACKENDS.values() if one.is_installed]
    return installed[0] if installed and default_device == "cpu" else None
  if name not in BACKENDS:
    known = [JAX, *BACKENDS, AUTO]
    raise PrnError(f"--backend {name}: expected one of {', '.join(known)}{did_you_mean(name, known)}.")
  backend = BACKENDS[name]
  if not backend.is_installed:
    raise PrnError(f"--backend {name} needs the package '{backend.package}': pip install 'prn-jax[{name}]'.")
  return backend


def open_onnx(path: str | Path, backend: Backend | None = None) -> tuple[Model, Heads]:
  """An .onnx file of ours: its network, without weights, and what computes its heads.

  Args:
    path: the file.
    backend: what runs it; None is onnxruntime.

  Raises:
    PrnError: another program wrote the file, or it puts out boxes; or the package is not installed.
  """
  backend = backend or chosen(ONNXRUNTIME)
  assert backend is not None
  data = to_path(path).read_bytes()
  facts = _metadata(data, path)
  missing = [key for key in REQUIRED if key not in facts]
  if missing:
    raise PrnError(
      f"'{path}' was not written by prn: its metadata has no {', '.join(missing)}, so that what its outputs stand for is not "
      "known. Convert the network from its own files: prn convert NET.cfg --weights FILE x.onnx."
    )
  output = facts.get("output", "heads")
  if output != "heads":
    raise PrnError(
      f"'{path}' puts out {output}, for other programs (docs/runtimes.md). Here the heads are run: write the file with "
      "prn convert MODEL x.onnx."
    )
  graph = darknet_cfg.parse(facts["graph_cfg"], f"{to_path(path).name}/graph.cfg", strict=False).graph
  graph = dataclasses.replace(graph, name=facts.get("name", graph.name))
  model = Model(graph, names=json.loads(facts["names"]), resize=facts["resize"])
  return model, _heads(model, data, backend)


def exported(model: Model, backend: Backend) -> Heads:
  """What computes the heads of a model in an engine. Its .onnx file is kept beside compiled programs, under a name that follows from its
  contents and from our sources."""
  from prn_jax.export import onnx

  text = "\n".join((repr(sources()), model.cfg(), model.digest(), *model.names, str(model.resize)))
  file = cache_folder() / "onnx" / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.onnx"
  if not file.is_file():
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(file, model)
  return _heads(model, file.read_bytes(), backend)


def _heads(model: Model, data: bytes, backend: Backend) -> Heads:
  names = [head.name for head in model.graph.heads]
  return Heads(names, backend.open(data, names))


def _metadata(data: bytes, path: str | Path) -> Mapping[str, str]:
  needed = chosen(ONNXRUNTIME)
  assert needed is not None
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
  try:
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
  except Exception as error:  # its errors have no common type
    raise PrnError(f"'{path}' is no readable ONNX file: {str(error).splitlines()[0]}") from None
  return session.get_modelmeta().custom_metadata_map
