"""Compiled programs kept on disk, so that the next process starts at once: for the command line and for Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prn_jax.compiling import cache_folder

# Setting of JAX -> its default, ours. Programs of a tenth of a second are kept, too: a first picture needs dozens.
_LIMITS = {
  "jax_persistent_cache_min_compile_time_secs": (1.0, 0.1),
  "jax_persistent_cache_min_entry_size_bytes": (0, -1),
}


def folder() -> Path:
  """Where programs are kept unless the user says otherwise."""
  return cache_folder() / "xla"


def use() -> None:
  """Switches JAX's persistent compilation cache on, unless the user has decided about it.

  A folder that is set, by `jax_compilation_cache_dir` or JAX_COMPILATION_CACHE_DIR, stays (an empty one means no cache), and
  JAX_ENABLE_COMPILATION_CACHE=false switches it off; limits that differ from JAX's defaults stay as well. Where the
  folder cannot be written there is no cache.
  """
  import jax

  settings: Any = jax.config  # its attributes are made at run time
  is_decided = settings.jax_compilation_cache_dir is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ
  if is_decided or not settings.jax_enable_compilation_cache:
    return
  try:
    folder().mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if not os.access(folder(), os.W_OK):
    return
  for name, (default, ours) in _LIMITS.items():
    if getattr(settings, name) == default and name.upper() not in os.environ:
      settings.update(name, ours)
  settings.update("jax_compilation_cache_dir", str(folder()))
