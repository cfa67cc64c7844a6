"""What saved models and checkpoints say of themselves besides graph and arrays, checked before anything relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from prn_jax.data_pipelines.images import DETECTOR_RESIZES
from prn_jax.errors import CheckpointError, PrnError, printable
from prn_jax.files.places import bucket_error, is_remote
from prn_jax.files.values import Misfit, Node, shown, text_of

_MAX_INT = 2**31 - 1
_MAX_SEEN = 2**63 - 1


def description(root: Node) -> dict[str, Any]:
  """The known keys that are there: "name", "names", "resize", "header" (fields of a weights file's header), "missing".

  Args:
    root: the mapping that holds them; other keys are not looked at.
  """
  found: dict[str, Any] = {}
  if "name" in root:
    found["name"] = root["name"].text()
  for key in ("names", "missing"):
    if key in root:
      found[key] = root[key].texts()
  if "resize" in root:
    found["resize"] = one_of(root["resize"], [str(each) for each in DETECTOR_RESIZES])
  if "header" in root:
    header = root["header"]
    found["header"] = {key: header[key].whole(0, _MAX_INT) for key in ("major", "minor", "revision") if key in header}
    if "seen" in header:
      found["header"]["seen"] = header["seen"].whole(0, _MAX_SEEN)
    if "seen_bytes" in header:
      found["header"]["seen_bytes"] = int(one_of(header["seen_bytes"], (4, 8)))
  return found


def check_version(root: Node, where: str, name: str, version: int) -> None:
  """Raises the error of `root` for a file of another format, or of a version that we do not know yet."""
  found, number = root["format"].text(), root["version"].whole()
  if found != name or number > version:
    raise root.error(
      f"'{where}' has format {shown(found)} version {number}; this prn_jax reads '{name}' up to {version}. "
      "Update prn_jax."
    )


def cannot_restore(folder: Path, error: Exception) -> PrnError:
  """The error that says why arrays could not be read; what Orbax and TensorStore raise is no closed list."""
  if is_remote(folder):  # its files were as they should be when they were hashed
    return bucket_error(folder, error)
  lines = printable(str(error)).strip().splitlines() or [type(error).__name__]
  return CheckpointError(f"'{folder}' cannot be restored: {lines[0][:300].rstrip('.')}. Restore it from a copy.")


def one_of(node: Node, choices: Sequence[Any]) -> Any:
  """The value, if it is one of the choices."""
  if not isinstance(node.raw, str | int) or node.raw not in choices:
    raise node.fault(f"is {shown(node.raw)}; expected {' or '.join(map(repr, choices))}")
  return node.raw


def file_hashes(node: Node) -> dict[str, str]:
  """sha256 by the path of a file below some folder."""
  hashes = {name: value.text() for name, value in node.mapping().items()}
  for name in hashes:
    try:
      path = PurePosixPath(text_of(name))
    except Misfit as error:
      raise node.fault(f"has a key that {error}") from None
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
      raise node.fault(f"has the key {shown(name)}; expected the path of a file below the folder")
  return hashes
