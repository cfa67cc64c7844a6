"""The state of a training as arrays by path, and whether a stored one fits it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from prn_jax.errors import CheckpointError
from prn_jax.formats.orbax import check_keys
from prn_jax.version import __version__


def arrays_of(state: Any) -> tuple[dict[str, Any], Any]:
  """Leaves by path, and the structure. Python numbers become arrays."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(state)
  arrays: dict[str, Any] = {}
  for keys, leaf in leaves:
    path = jax.tree_util.keystr(keys, simple=True, separator="/")
    if path in arrays:
      raise ValueError(f"two leaves of the state have the same path '{path}'")
    arrays[path] = leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)
  return arrays, structure


def described(step: int, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
  """What meta.json of a checkpoint says: `meta` is the caller's."""
  return {
    "step": step,
    "data_position": step,  # global batches read; the pipeline is a pure function of it
    "versions": {"prn_jax": __version__, "jax": jax.__version__, "orbax": ocp.__version__},
    "meta": dict(meta),
    "arrays": {path: [str(leaf.dtype), list(leaf.shape)] for path, leaf in arrays.items()},
  }


def target(leaf: Any) -> jax.ShapeDtypeStruct:
  """Shape, type and sharding of an array, as `checkpoints.restore_arrays` takes them."""
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def check_state(stored: Mapping[str, list[Any]], targets: Mapping[str, Any], checkpoint: Path) -> None:
  """Raises CheckpointError if the stored state is not of this structure, these shapes and types."""
  found = {path: jax.ShapeDtypeStruct(tuple(shape), dtype) for path, (dtype, shape) in stored.items()}
  try:
    check_keys(found, {path: target.shape for path, target in targets.items()}, f"checkpoint '{checkpoint}'")
  except CheckpointError as error:
    if any("opt_state/" in path for path in found.keys() ^ targets.keys()):
      raise CheckpointError(
        f"{error} Those below opt_state/ belong to the optimiser: it has changed as well."
      ) from None
    raise
  other = [
    f"{path} {found[path].dtype} instead of {target.dtype}"
    for path, target in targets.items()
    if found[path].dtype != target.dtype
  ]
  if other:
    raise CheckpointError(f"checkpoint '{checkpoint}' has arrays of another type: {', '.join(other[:5])}.")
