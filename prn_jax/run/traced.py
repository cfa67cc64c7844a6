"""Traced programs kept on disk beside the compiled ones, so that the next process need not trace them again.

XLA's cache knows a program by its text, which takes JAX a second or two of a hundred layers to write. What is kept here is
that text (`jax.export`), under a name that follows from all that it depends on: the network, the shapes, the versions and the
source files of this package. Only where the package itself chose the folder of compiled programs: who has chosen
another, or none, gets none of this either.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax

import prn_jax
from prn_jax import compilation_cache
from prn_jax.compiling import cache_folder
from prn_jax.files.disk import written_beside
from prn_jax.graph.graph import Graph

_FORMAT = 1  # of what goes into a name
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")


def folder() -> Path:
  """Where traced programs are kept."""
  return cache_folder() / "traced"


def kept(function: Any, args: Sequence[Any], graph: Graph, what: Sequence[object]) -> Callable[..., Any]:
  """The jitted function, or the same program read from disk; written there if it was not.

  Args:
    function: a jitted function of arrays in dicts, lists and tuples, which returns such.
    args: arguments, of which only structure, shapes and types matter.
    graph: the network that the function runs. One with layers of other packages is never kept.
    what: all else that the function depends on; `repr` must tell it from others.
  """
  if not _is_on() or not all(type(layer).__module__.startswith("prn_jax.") for layer in graph):
    return cast(Callable[..., Any], function)
  shapes = jax.tree.map(lambda x: (jax.numpy.shape(x), str(jax.numpy.result_type(x))), list(args))
  file = folder() / f"{_digest(graph, shapes, *what)}.stablehlo"
  with contextlib.suppress(Exception):  # missing, damaged, of another JAX: it is written anew
    return jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)
  try:
    exported = jax.export.export(function)(*args)
    data = exported.serialize()
  except Exception:  # not everything that can be run can be written down
    return cast(Callable[..., Any], function)
  with contextlib.suppress(OSError):
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(file) as beside:
      beside.write(data)
  return jax.jit(exported.call)


def _is_on() -> bool:
  settings: Any = jax.config  # its attributes are made at run time
  is_ours = settings.jax_compilation_cache_dir == str(compilation_cache.folder())
  return bool(is_ours and settings.jax_enable_compilation_cache)


def _digest(*parts: object) -> str:
  device = jax.devices()[0]
  settings = [str(getattr(jax.config, name, None)) for name in _SETTINGS]
  versions = (_FORMAT, jax.__version__, importlib.metadata.version("flax"), device.platform, device.device_kind)
  text = "\n".join(map(repr, (versions, settings, sources(), *parts)))
  return hashlib.sha256(text.encode()).hexdigest()[:40]


@functools.cache  # what runs is what was imported
def sources() -> list[tuple[str, int, int]]:
  """Name, time of the last change and size of every source file of the package."""
  root = os.path.dirname(prn_jax.__file__)
  found = []
  for place, folders, names in os.walk(root, followlinks=True):
    folders[:] = [name for name in folders if name != "__pycache__"]
    for name in names:
      if name.endswith(".py"):
        file = os.path.join(place, name)
        info = os.stat(file)
        found.append((file[len(root) + 1 :], info.st_mtime_ns, info.st_size))
  return sorted(found)
