"""Model directories: a graph, its variables (Orbax), class names and resize mode, safe against kills and bit rot.

    DST/model.json            what is here; written last, in one step: the only point of commitment
    DST/payload-1f3a9c02/     graph.cfg and variables/ (an Orbax checkpoint)

A directory without model.json is an unfinished save. Saving again writes a second payload, swaps model.json,
then deletes the first: a kill at any moment leaves the old model or the new one. Orbax itself restores flipped
bits silently as wrong numbers, so model.json holds the sha256 of every file, verified on load.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import CheckpointError
from prn_jax.files.disk import aligned, check_space, check_utf8, is_folder, write_text
from prn_jax.files.places import explained, files_below, remove_tree, to_path
from prn_jax.files.sealed import check_files, hashes
from prn_jax.files.structured import read_json
from prn_jax.files.values import shown
from prn_jax.formats.description import cannot_restore, check_version, description, file_hashes

INDEX = "model.json"
FORMAT = "prn_jax model"
VERSION = 1
_ADVICE = "Restore it from a copy, or convert the model again."


def is_model_directory(path: Path) -> bool:
  """True for a finished model, and for the remains of an unfinished save."""
  return is_folder(path) and ((path / INDEX).is_file() or any(path.glob("payload-*")))


def save(path: str | Path, graph_cfg: str, variables: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
  """Writes a model directory.

  Args:
    path: the directory; an earlier model in it is replaced, anything else is refused.
    graph_cfg: the network as cfg text.
    variables: nested dicts of arrays.
    extra: JSON values to keep (name, class names, resize mode, weights header).
  """
  path = to_path(path)
  if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not is_model_directory(path))):
    raise CheckpointError(f"'{path}' exists and is not a saved model; it is left alone. Choose another place.")
  check_utf8(path, CheckpointError)
  check_space(path, _num_bytes(variables))
  payload = path / f"payload-{secrets.token_hex(4)}"
  payload.mkdir(parents=True)
  try:
    write_text(payload / "graph.cfg", graph_cfg)
    _save_variables(payload / "variables", variables)
    index = {
      "format": FORMAT,
      "version": VERSION,
      "payload": payload.name,
      **extra,
      "sha256": hashes(payload, files_below(payload)),
    }
    write_text(path / INDEX, json.dumps(index, indent=1))
  except BaseException:
    remove_tree(payload)
    raise
  for old in path.glob("payload-*"):
    if old != payload:
      remove_tree(old)


def _num_bytes(tree: Any) -> int:
  return sum(map(_num_bytes, tree.values())) if isinstance(tree, Mapping) else int(tree.nbytes)


def load_index(path: str | Path) -> dict[str, Any]:
  """Reads model.json and verifies every file it names.

  Raises:
    CheckpointError: an unfinished save, a foreign directory, a newer format, or files that are missing,
    added or changed.
  """
  path = to_path(path)
  check_utf8(path, CheckpointError)
  if not (path / INDEX).is_file():
    raise CheckpointError(
      f"'{path}' holds no finished model (there is no {INDEX}): the save was interrupted, or this is another "
      "directory. Save the model again."
    )
  index = read_json(path / INDEX, CheckpointError, advice="Convert the model again.")
  check_version(index, str(path), FORMAT, VERSION)
  payload = index["payload"].text()
  if not re.fullmatch(r"payload-\w{1,100}", payload):
    raise index["payload"].fault(f"is {shown(payload)}; expected the name of a folder, as payload-1f3a9c02")
  check_files(path / payload, file_hashes(index["sha256"]), advice=_ADVICE)
  return {"payload": payload} | description(index)


def load_graph_cfg(path: str | Path, index: Mapping[str, Any]) -> str:
  return (to_path(path) / index["payload"] / "graph.cfg").read_text(encoding="utf-8", errors="surrogateescape")


def load_variables(path: str | Path, index: Mapping[str, Any]) -> dict[str, Any]:
  """The variables as nested dicts of numpy arrays."""
  import orbax.checkpoint as ocp

  with _quiet(), contextlib.closing(ocp.PyTreeCheckpointer()) as checkpointer:
    folder = (to_path(path) / index["payload"] / "variables").resolve()
    try:
      restored = checkpointer.restore(str(folder))
    except Exception as error:
      raise cannot_restore(folder, error) from error
  return _map_arrays(aligned, restored)


def check_keys(found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
  """Compares flat variables with what a graph needs; CheckpointError lists missing, extra and misshapen keys."""
  missing = [key for key in expected if key not in found]
  extra = [key for key in found if key not in expected]
  wrong = [
    f"{key} {tuple(np.shape(found[key]))} instead of {shape}"
    for key, shape in expected.items()
    if key in found and tuple(np.shape(found[key])) != shape
  ]
  if missing or extra or wrong:
    parts = [
      f"{len(keys)} {what}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
      for what, keys in (("missing", missing), ("extra", extra), ("of another shape", wrong))
      if keys
    ]
    raise CheckpointError(f"{where} is of another network. Variables {'; '.join(parts)}.")


def _save_variables(folder: Path, variables: Mapping[str, Any]) -> None:
  import orbax.checkpoint as ocp

  # Compressing trained weights saves a tenth of the size, and costs as much memory again as the weights take.
  checkpointer = ocp.PyTreeCheckpointer(use_compression=False)
  with _quiet(), contextlib.closing(checkpointer), explained(folder):
    checkpointer.save(str(folder.resolve()), _numpy(variables))


def _numpy(tree: Any) -> Any:
  """A copy of the tree (not of the arrays) with numpy leaves."""
  if isinstance(tree, Mapping):
    return {key: _numpy(value) for key, value in tree.items()}
  return np.asarray(tree)


def _map_arrays(function: Callable[[Any], np.ndarray], tree: Any) -> Any:
  if isinstance(tree, dict):
    for key in list(tree):  # in place, so that each array is released as soon as it is replaced
      tree[key] = _map_arrays(function, tree[key])
    return tree
  return function(np.asarray(tree))


@contextlib.contextmanager
def _quiet() -> Any:
  """Orbax logs and warns about topology and async details that do not concern a single-host model file."""
  import logging
  import warnings

  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      yield
    finally:
      logger.setLevel(level)
