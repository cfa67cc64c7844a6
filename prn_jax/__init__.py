"""Partial Residual Networks and the Darknet/YOLO family in JAX."""

import prn_jax.kinds  # noqa: F401  (registers every kind of layer)
from prn_jax.version import __version__ as __version__
