"""Extensions from other packages: kinds of layers, models, data sources, configurations (docs/extending.md).

An extension is a module that registers things when it is imported. An installed package names its module by an entry
point of the group `prn_jax.extensions`; any other module is named on the command line (`--import`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from prn_jax.errors import PrnError

GROUP = "prn_jax.extensions"
CONFIGS = "CONFIGS"  # in a module: the folder of its configurations, as text or path, beside the module if relative
_loaded: list[ModuleType] = []


@functools.cache
def load_installed() -> None:
  """Imports the extensions of all installed packages, once.

  Raises:
    PrnError: one of them fails; names package and module.
  """
  for point in importlib.metadata.entry_points(group=GROUP):
    package = point.dist.name if point.dist else "?"
    _import(point.module, f"the extension '{point.name}' of the installed package '{package}' ({point.module})")


def load(modules: Sequence[str]) -> None:
  """Imports modules, by name ("mine.layers", from the current folder too) or by file ("layers.py").

  Raises:
    PrnError: a module does not exist, or fails.
  """
  if modules and "" not in sys.path and str(Path.cwd()) not in sys.path:
    sys.path.append(str(Path.cwd()))  # last: it must hide nothing that is installed
  for name in modules:
    path = Path(name)
    if path.suffix != ".py":
      _import(name, f"--import {name}")
      continue
    if not path.is_file():
      raise PrnError(f"--import {name}: there is no such file.")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
      sys.path.append(folder)  # also where worker processes look for it
    _import(path.stem, f"--import {name}")


def config_folders() -> list[Path]:
  """Folders with configurations of the extensions."""
  folders = [(module, getattr(module, CONFIGS)) for module in _loaded if getattr(module, CONFIGS, None)]
  return [Path(module.__file__ or ".").parent / folder for module, folder in folders]


def _import(name: str, what: str) -> None:
  try:
    module = importlib.import_module(name)
  except PrnError as error:
    raise PrnError(f"{what}: {error}") from error
  except ModuleNotFoundError as error:
    if error.name != name.partition(".")[0] and error.name != name:
      raise PrnError(f"{what} fails: it needs the module '{error.name}', which is not installed.") from error
    raise PrnError(
      f"{what}: there is no module '{name}'. Run the command in the folder that holds it, install its package, or give "
      "the file, ending in .py."
    ) from None
  except Exception as error:  # whatever an extension does
    raise PrnError(f"{what} fails: {type(error).__name__}: {error}") from error
  if module not in _loaded:
    _loaded.append(module)
