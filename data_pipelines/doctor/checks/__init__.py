"""The checks of `prn data doctor`: importing this registers them. A new file here may hold new ones."""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")
