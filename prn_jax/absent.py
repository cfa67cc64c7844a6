"""Packages that others import for nothing of ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_module(name: str) -> Iterator[None]:
  """Imports of a module fail in here as where it is not installed, unless it has been imported before."""
  if name in sys.modules:
    yield
    return
  sys.modules[name] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[name]
