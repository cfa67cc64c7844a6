"""Model <-> one .safetensors file that carries its graph, class names and sha256 (no pickle anywhere)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import BucketError, CheckpointError, PrnError
from prn_jax.files.disk import written_beside
from prn_jax.files.places import local_copy
from prn_jax.files.structured import parse_json
from prn_jax.formats.description import description

FORMAT = "prn_jax model"
ADVICE = "Convert the model again."


def save(path: Path, graph_cfg: str, variables: Mapping[str, np.ndarray], extra: Mapping[str, Any]) -> None:
  """Writes variables, "collection/layer/path" -> array, with the graph as cfg text in the metadata."""
  flat = {key: np.ascontiguousarray(value) for key, value in sorted(variables.items())}
  metadata = {
    "format": FORMAT,
    "graph_cfg": graph_cfg,
    "extra": json.dumps(dict(extra)),
    "sha256": digest(flat),
  }
  with written_beside(path) as file:
    file.write(library().save(flat, metadata))


def load(path: Path) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
  """(graph cfg text, extra, flat variables) of a file that we wrote; CheckpointError if it is damaged."""
  library()
  import safetensors

  try:
    with local_copy(path) as copy, safetensors.safe_open(copy, framework="np") as file:
      metadata = file.metadata() or {}
      flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
  except BucketError:
    raise
  except Exception as error:  # the library raises its own type for every kind of damage
    raise CheckpointError(f"'{path}' is not a readable safetensors file: {error}.") from None
  if metadata.get("format") != FORMAT:
    raise CheckpointError(
      f"'{path}' holds {len(flat)} arrays but no prn_jax network. Only files written by prn_jax carry their graph. "
      "Of weights from timm say what they are: prn convert FILE OUT/ --as timm/NAME."
    )
  if metadata.get("sha256") != digest(flat):
    raise CheckpointError(f"'{path}' has changed since it was saved: damaged or edited. {ADVICE}")
  extra = parse_json(metadata.get("extra", ""), f"'{path}', metadata 'extra'", CheckpointError, ADVICE)
  if "graph_cfg" not in metadata:
    raise CheckpointError(f"'{path}' holds no graph. {ADVICE}")
  return metadata["graph_cfg"], description(extra), flat


def digest(flat: Mapping[str, np.ndarray]) -> str:
  """sha256 over names, shapes and bytes of arrays."""
  total = hashlib.sha256()
  for key in sorted(flat):
    array = np.ascontiguousarray(flat[key])
    total.update(f"{key}{array.shape}{array.dtype}".encode())
    total.update(array.data)
  return total.hexdigest()


def library() -> Any:
  """`safetensors.numpy`; PrnError that says how to install it."""
  try:
    import safetensors.numpy
  except ImportError:
    raise PrnError(
      "reading and writing .safetensors needs the package 'safetensors': pip install safetensors."
    ) from None
  return safetensors.numpy
