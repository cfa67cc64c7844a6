"""Variables as nested dicts, and the same by path: {"params": {"conv1": {"kernel": x}}} and {"params/conv1/kernel": x}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prn_jax.errors import CheckpointError


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Nested dicts from values by path.

  Raises:
    CheckpointError: a path leads through a value.
  """
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    put(tree, path, value)
  return tree


def put(tree: dict[str, Any], path: str, value: Any) -> None:
  """Sets the value of a path, and makes the dicts on the way.

  Raises:
    CheckpointError: the path leads through a value.
  """
  *folders, name = path.split("/")
  for folder in folders:
    tree = tree.setdefault(folder, {})
    if not isinstance(tree, dict):
      raise CheckpointError(f"the array '{path}' lies inside another array")
  tree[name] = value


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Values by path from nested dicts, in their order; empty dicts leave no trace."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat.update(flattened(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
  return flat
