"""The layer graph and everything that is computed from it alone, without JAX."""

from prn_jax.graph.graph import Context, Graph, Layer, Shape, WeightArray, Window

__all__ = ["Context", "Graph", "Layer", "Shape", "WeightArray", "Window"]
