"""Partial Residual Networks and the Darknet/YOLO family in JAX.

    import prn_jax
    model = prn_jax.load("yolov3-tiny-prn", weights="yolov3-tiny-prn.weights")
    outputs = model.forward(images)  # (n, 416, 416, 3) in [0, 1] -> head name -> activated output

JAX is imported when something is computed, not here.
"""

from __future__ import annotations

import prn_jax.interrupts

# isort: split
import importlib
from typing import TYPE_CHECKING, Any

import prn_jax.kinds  # noqa: F401  (registers every kind of layer)
from prn_jax.errors import PrnError
from prn_jax.examples import example_image
from prn_jax.moved import install as _install_old_names
from prn_jax.version import __version__

if TYPE_CHECKING:
  from prn_jax.api import Model, build, load
  from prn_jax.classify.classification import Classification
  from prn_jax.detect.detections import Detections
  from prn_jax.graph.builder import Builder
  from prn_jax.models.registry import list_models

_install_old_names()
_LAZY = {
  "Builder": "prn_jax.graph.builder",
  "Classification": "prn_jax.classify.classification",
  "Detections": "prn_jax.detect.detections",
  "Model": "prn_jax.api",
  "build": "prn_jax.api",
  "list_models": "prn_jax.models.registry",
  "load": "prn_jax.api",
}
__all__ = [
  "Builder",
  "Classification",
  "Detections",
  "Model",
  "PrnError",
  "__version__",
  "build",
  "example_image",
  "list_models",
  "load",
]


def __dir__() -> list[str]:
  return sorted(__all__)


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"module 'prn_jax' has no attribute '{name}'")
  return getattr(importlib.import_module(_LAZY[name]), name)
