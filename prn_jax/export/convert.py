"""Saves a model by file type, and proves the result by reading it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.export.onnx_boxes import HEADS_ALONE, OutputOptions
from prn_jax.export.verify import probe_input
from prn_jax.files.disk import is_folder, sha256, write_text
from prn_jax.files.places import to_path
from prn_jax.formats import darknet_cfg, darknet_weights, orbax, safetensors
from prn_jax.formats.darknet_training import Training
from prn_jax.formats.darknet_weights import Variables
from prn_jax.graph.graph import Graph, Layer, WeightArray
from prn_jax.loading import load, with_weights
from prn_jax.model import Model

DIRECTORY = "directory"
BACKBONE = ".conv.N"
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
  """ "directory", ".conv.N" (the first N layers), or the suffix of a file type that we write; PrnError for another."""
  path = to_path(dst)
  if darknet_weights.backbone_layers(path) and not is_folder(path):
    return BACKBONE
  if str(dst).endswith("/") or is_folder(path) or not path.suffix:
    return DIRECTORY
  if path.suffix.lower() not in WRITERS:
    raise PrnError(
      f"cannot write '{dst}': type '{path.suffix}' is unknown{did_you_mean(path.suffix, WRITERS)}. "
      f"Expected a directory (write it with a trailing /), or one of {', '.join(sorted(WRITERS))}."
    )
  return path.suffix.lower()


def save(model: Model, dst: str | Path, *, any_size: bool = False, options: OutputOptions = HEADS_ALONE) -> None:
  """Writes `model` to `dst`; see `file_type`. Nothing is half-written. The rest is for .onnx; see `onnx.save`."""
  kind = file_type(dst)
  check_any_size(any_size, dst)
  if kind != ".cfg" and not model.has_weights:
    raise PrnError(
      f"model '{model.graph.name}' has no weights to write. Give them with --weights FILE, or weights= in Python."
    )
  if kind not in (DIRECTORY, ".cfg", ".safetensors"):
    _check_not_random(model, kind, dst)
  if kind == ".onnx":
    from prn_jax.export import onnx

    onnx.save(to_path(dst), model, any_size=any_size, options=options)
  else:
    (_save_directory if kind == DIRECTORY else WRITERS[kind])(model, to_path(dst))


def check_any_size(any_size: bool, dst: str | Path) -> None:
  """Refuses the option for files that have no image size of their own."""
  if any_size and file_type(dst) != ".onnx":
    raise PrnError(
      f"'{dst}' cannot be written for any image size (--any-size, any_size=True): that is a choice for .onnx; the other "
      "types hold no fixed size, and what reads them takes any that the network allows."
    )


def _check_not_random(model: Model, kind: str, dst: str | Path) -> None:
  """A weights file or ONNX has no place to say that layers are random; whoever uses it would take them for trained."""
  layers = darknet_cfg.sequential(model.graph).layers
  written = layers[: darknet_weights.backbone_layers(dst)] if kind == BACKBONE else layers
  random = [layer.name for layer in written if layer.name in model.missing]
  if random:
    known = next(i for i, layer in enumerate(layers) if layer.name in model.missing)
    raise PrnError(
      f"cannot write '{dst}': {len(random)} layers are random, for the weights end before them "
      f"({', '.join(random[:3])}{', ...' if len(random) > 3 else ''}), and a {kind} file cannot say so. Write a directory "
      f"or .safetensors, which can, or the layers that are known: NAME.conv.{known}."
    )


@dataclasses.dataclass(frozen=True)
class Fingerprint:
  """What a converted model must give back; holds no weights.

  Attributes:
    graph, training: the graph and the training settings of the original.
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


def convert(model: Model, dst: str | Path, *, any_size: bool = False, options: OutputOptions = HEADS_ALONE) -> Proof:
  """Writes `model` to `dst`, reads it back, and compares."""
  kind = file_type(dst)
  if kind in WITHOUT_RUN:
    save(model, dst, any_size=any_size, options=options)
    return _prove_onnx(model, dst, any_size, options) if kind == ".onnx" else WITHOUT_RUN[kind](model, dst)
  save(model, dst)
  return prove(fingerprint(model), dst)


def _prove_cfg(model: Model, dst: str | Path) -> Proof:
  same = darknet_cfg.read(dst).graph == model.graph
  return Proof("graph", {}, same, f"the cfg reads back as {'the same' if same else 'ANOTHER'} network")


def _prove_backbone(model: Model, dst: str | Path) -> Proof:
  graph, count = darknet_cfg.sequential(model.graph), darknet_weights.backbone_layers(dst)
  back = darknet_weights.load(dst, graph, partial=True)
  stored = list(darknet_weights.stored_arrays(graph, [layer.name for layer in graph.layers[count:]]))
  same = all(_same_array(back.variables, model.variables, *one) for one in stored)
  text = f"read back: {len(stored)} arrays of the first {count} layers {'equal' if same else 'NOT equal'}"
  return Proof("variables", {}, same, text)


def _same_array(a: Variables, b: Variables, layer: Layer, array: WeightArray) -> bool:
  return darknet_weights.lookup(a, layer, array).tobytes() == darknet_weights.lookup(b, layer, array).tobytes()


def _prove_onnx(model: Model, dst: str | Path, any_size: bool = False, options: OutputOptions = HEADS_ALONE) -> Proof:
  """Compares with onnxruntime at the network's size; a file for any size also at a larger one that is no square."""
  from prn_jax.export import onnx

  graph = model.graph
  sizes, step = [(graph.width, graph.height)], ""
  if any_size:
    pixels = onnx.size_step(graph)
    sizes.append((graph.width + pixels, graph.height + 2 * pixels))
    step = f"; sides may differ by multiples of {pixels}"
  found = [onnx.differences(model, dst, size, options) for size in sizes]
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


def _save_backbone(model: Model, dst: Path) -> None:
  graph, count = darknet_cfg.sequential(model.graph), darknet_weights.backbone_layers(dst)
  if count is None or not 0 < count <= len(graph):
    raise PrnError(
      f"cannot write '{dst}': network '{graph.name}' has {len(graph)} layers; expected .conv.1 to .conv.{len(graph)}."
    )
  darknet_weights.save(dst, graph, model.variables, model.header, num_layers=count)


def _save_cfg(model: Model, dst: Path) -> None:
  write_text(dst, model.cfg())


def _save_safetensors(model: Model, dst: Path) -> None:
  from prn_jax.network import flatten_variables

  safetensors.save(dst, model.cfg(), flatten_variables(model.variables), metadata(model))


def _save_onnx(model: Model, dst: Path) -> None:
  from prn_jax.export import onnx

  onnx.save(dst, model)


WRITERS: dict[str, Callable[[Model, Path], None]] = {
  BACKBONE: _save_backbone,
  ".weights": _save_weights,
  ".cfg": _save_cfg,
  ".safetensors": _save_safetensors,
  ".onnx": _save_onnx,
}


WITHOUT_RUN: dict[str, Callable[[Model, str | Path], Proof]] = {
  ".cfg": _prove_cfg,
  ".onnx": _prove_onnx,
  BACKBONE: _prove_backbone,
}
"""Types whose proof needs no run of the network by us."""


def same_bytes(a: str | Path, b: str | Path) -> bool:
  """True if two files are equal (by sha256)."""
  return sha256(to_path(a)) == sha256(to_path(b))
