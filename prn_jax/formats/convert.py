"""Saves a model by file type, and proves the result by reading it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats import darknet_cfg, darknet_weights, orbax, safetensors
from prn_jax.formats.files import sha256, write_text
from prn_jax.formats.verify import probe_input
from prn_jax.model import Model, load, with_weights

DIRECTORY = "directory"
PROOF_SIZE = 128  # pixels; weights are compared bit for bit, so the run need not be at full size


@dataclasses.dataclass(frozen=True)
class Proof:
  """What reading a converted model back has shown.

  Attributes:
    kind: "variables", "graph" or "outputs": what was compared.
    outputs: head -> largest absolute difference between the original and the converted model.
    identical: the variables (or the graph) are equal to the last bit.
    text: one line for people.
  """

  kind: str
  outputs: dict[str, float]
  identical: bool
  text: str

  @property
  def holds(self) -> bool:
    return self.identical or (bool(self.outputs) and max(self.outputs.values()) < 1e-3)


def file_type(dst: str | Path) -> str:
  """ "directory", or the suffix of a file type that we write; PrnError for another one."""
  path = Path(dst)
  if str(dst).endswith("/") or path.is_dir() or not path.suffix:
    return DIRECTORY
  if path.suffix not in WRITERS:
    raise PrnError(
      f"cannot write '{dst}': type '{path.suffix}' is unknown{did_you_mean(path.suffix, WRITERS)}. "
      f"Expected a directory (write it with a trailing /), or one of {', '.join(sorted(WRITERS))}."
    )
  return path.suffix


def save(model: Model, dst: str | Path) -> None:
  """Writes `model` to `dst`; see `file_type`. Nothing is half-written."""
  kind = file_type(dst)
  if kind != ".cfg" and not model.has_weights:
    raise PrnError(
      f"model '{model.graph.name}' has no weights to write. Give them with --weights FILE, or weights= in Python."
    )
  (_save_directory if kind == DIRECTORY else WRITERS[kind])(model, Path(dst))


def convert(model: Model, dst: str | Path) -> Proof:
  """Writes `model` to `dst`, reads it back, and compares."""
  kind = file_type(dst)
  save(model, dst)
  if kind == ".cfg":
    same = darknet_cfg.read(dst).graph == model.graph
    return Proof("graph", {}, same, f"the cfg reads back as {'the same' if same else 'ANOTHER'} network")
  if kind == ".onnx":
    from prn_jax.formats import onnx

    outputs = onnx.differences(model, dst)
    return Proof("outputs", outputs, False, f"onnxruntime agrees within {max(outputs.values()):.2g}")
  return _prove_variables(model, Path(dst), kind)


def _prove_variables(model: Model, dst: Path, kind: str) -> Proof:
  """Compares every variable bit for bit, and the heads of one run.

  The original's outputs are computed first and the models are compared by digest, so that no more than two
  copies of the weights are in memory at once.
  """
  x = probe_input(model, _proof_size(model))
  before = {name: np.asarray(y) for name, y in model.forward(x).items()}
  model.release()
  back = with_weights(Model(model.graph, training=model.training), dst) if kind == ".weights" else load(dst)
  identical = back.graph == model.graph and back.digest() == model.digest()
  after = back.forward(x)
  outputs = {name: float(np.abs(before[name] - np.asarray(after[name])).max()) for name in before}
  count = sum(len(model.graph.arrays(layer)) for layer in model.graph)
  what = f"{count} arrays {'equal to the last bit' if identical else 'NOT equal'}"
  return Proof(
    "variables", outputs, identical, f"read back: {what}; largest output difference {max(outputs.values()):g}"
  )


def _proof_size(model: Model) -> int | None:
  """A small square input if the network takes one, else None (its own size)."""
  graph = model.graph
  if max(graph.width, graph.height) <= PROOF_SIZE:
    return None
  try:
    small = graph.resized(PROOF_SIZE, PROOF_SIZE)
  except PrnError:
    return None
  same = all(small.arrays(a) == graph.arrays(b) for a, b in zip(small, graph, strict=True))
  return PROOF_SIZE if same else None


def metadata(model: Model) -> dict[str, object]:
  """What a saved model keeps besides graph and variables."""
  return {
    "name": model.graph.name,
    "names": list(model.names),
    "resize": model.resize,
    "header": dataclasses.asdict(model.header) if model.header else None,
    "missing": list(model.missing),
  }


def _save_directory(model: Model, dst: Path) -> None:
  orbax.save(dst, model.cfg(), model.variables, metadata(model))


def _save_weights(model: Model, dst: Path) -> None:
  darknet_weights.save(dst, model.graph, model.variables, model.header)


def _save_cfg(model: Model, dst: Path) -> None:
  write_text(dst, model.cfg())


def _save_safetensors(model: Model, dst: Path) -> None:
  safetensors.save(dst, model.cfg(), model.variables, metadata(model))


def _save_onnx(model: Model, dst: Path) -> None:
  from prn_jax.formats import onnx

  onnx.save(dst, model)


WRITERS: dict[str, Callable[[Model, Path], None]] = {
  ".weights": _save_weights,
  ".cfg": _save_cfg,
  ".safetensors": _save_safetensors,
  ".onnx": _save_onnx,
}


def same_bytes(a: str | Path, b: str | Path) -> bool:
  """True if two files are equal (by sha256)."""
  return sha256(Path(a)) == sha256(Path(b))
