"""JAX and Flax, imported at their first use: `prn summary` and `prn --help` must not pay for them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import jax as jax
  from flax import linen as nn
  from jax import lax as lax
  from jax import numpy as jnp
else:

  class _LazyModule:
    """Stands for a module until one of its attributes is asked for."""

    def __init__(self, name: str) -> None:
      self._name = name

    def __getattr__(self, attribute: str) -> Any:
      value = getattr(importlib.import_module(self._name), attribute)
      setattr(self, attribute, value)  # the next look-up costs nothing
      return value

  jax = _LazyModule("jax")
  jnp = _LazyModule("jax.numpy")
  lax = _LazyModule("jax.lax")
  nn = _LazyModule("flax.linen")

__all__ = ["jax", "jnp", "lax", "nn"]
