"""Saves a model by file type, and proves the result by reading it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats import darknet_cfg, darknet_weights, orbax, safetensors
from prn_jax.formats.darknet_training import Training
from prn_jax.formats.files import is_folder, sha256, write_text
from prn_jax.formats.verify import probe_input
from prn_jax.graph.graph import Graph
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
  if str(dst).endswith("/") or is_folder(path) or not path.suffix:
    return DIRECTORY
  if path.suffix not in WRITERS:
    raise PrnError(
      f"cannot write '{dst}': type '{path.suffix}' is unknown{did_you_mean(path.suffix, WRITERS)}. "
      f"Expected a directory (write it with a trailing /), or one of {', '.join(sorted(WRITERS))}."
    )
  return path.suffix


def save(model: Model, dst: str | Path, *, any_size: bool = False) -> None:
  """Writes `model` to `dst`; see `file_type`. Nothing is half-written. `any_size` is for .onnx; see `onnx.save`."""
  kind = file_type(dst)
  check_any_size(any_size, dst)
  if kind != ".cfg" and not model.has_weights:
    raise PrnError(
      f"model '{model.graph.name}' has no weights to write. Give them with --weights FILE, or weights= in Python."
    )
  if any_size:
    from prn_jax.formats import onnx

    onnx.save(Path(dst), model, any_size=True)
  else:
    (_save_directory if kind == DIRECTORY else WRITERS[kind])(model, Path(dst))


def check_any_size(any_size: bool, dst: str | Path) -> None:
  """Refuses the option for files that have no image size of their own."""
  if any_size and file_type(dst) != ".onnx":
    raise PrnError(
      f"'{dst}' cannot be written for any image size (--any-size, any_size=True): that is a choice for .onnx; the other "
      "types hold no fixed size, and what reads them takes any that the network allows."
    )


@dataclasses.dataclass(frozen=True)
class Fingerprint:
  """What a converted model must give back; holds no weights.

  Attributes:
    graph, training: of the original.
    digest: sha256 over all variables.
    outputs: head -> output for the probe input.
    num_arrays: number of variables.
  """

  graph: Graph
  training: Training | None
  digest: str
  outputs: dict[str, np.ndarray]
  num_arrays: int


def fingerprint(model: Model) -> Fingerprint:
  """Runs the model once and sums up its variables."""
  outputs = {name: np.asarray(y) for name, y in model.forward(probe_input(model, _proof_size(model))).items()}
  model.release()
  count = sum(len(model.graph.arrays(layer)) for layer in model.graph)
  return Fingerprint(model.graph, model.training, model.digest(), outputs, count)


def prove(before: Fingerprint, dst: str | Path) -> Proof:
  """Reads a directory, .weights or .safetensors back and compares every variable bit for bit, and the heads of one
  run. The original need not be in memory any more."""
  carries_graph = file_type(dst) != ".weights"
  back = load(dst) if carries_graph else with_weights(Model(before.graph, training=before.training), dst)
  identical = back.graph == before.graph and back.digest() == before.digest
  after = back.forward(probe_input(back, _proof_size(back)))
  outputs = {name: float(np.abs(y - np.asarray(after[name])).max()) for name, y in before.outputs.items()}
  what = f"{before.num_arrays} arrays {'equal to the last bit' if identical else 'NOT equal'}"
  text = f"read back: {what}; largest output difference {max(outputs.values()):g}"
  return Proof("variables", outputs, identical, text)


def convert(model: Model, dst: str | Path, *, any_size: bool = False) -> Proof:
  """Writes `model` to `dst`, reads it back, and compares."""
  kind = file_type(dst)
  if kind in (".cfg", ".onnx"):
    save(model, dst, any_size=any_size)
    return _prove_cfg(model, dst) if kind == ".cfg" else _prove_onnx(model, dst, any_size)
  save(model, dst)
  return prove(fingerprint(model), dst)


def _prove_cfg(model: Model, dst: str | Path) -> Proof:
  same = darknet_cfg.read(dst).graph == model.graph
  return Proof("graph", {}, same, f"the cfg reads back as {'the same' if same else 'ANOTHER'} network")


def _prove_onnx(model: Model, dst: str | Path, any_size: bool = False) -> Proof:
  """Compares with onnxruntime at the network's size; a file for any size also at a larger one that is no square."""
  from prn_jax.formats import onnx

  graph = model.graph
  sizes, step = [(graph.width, graph.height)], ""
  if any_size:
    pixels = onnx.size_step(graph)
    sizes.append((graph.width + pixels, graph.height + 2 * pixels))
    step = f"; sides may differ by multiples of {pixels}"
  found = [onnx.differences(model, dst, size) for size in sizes]
  outputs = {name: max(by_head[name] for by_head in found) for name in found[0]}
  where = f" at {' and '.join(f'{w}x{h}' for w, h in sizes)}" if any_size else ""
  return Proof("outputs", outputs, False, f"onnxruntime agrees within {max(outputs.values()):.2g}{where}{step}")


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
    "names": [] if model.names_are_assumed else list(model.names),
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
