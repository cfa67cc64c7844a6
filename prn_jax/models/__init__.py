"""Registered models: one family per file, each a function that writes the layer graph by name."""

from prn_jax.models.registry import ModelSpec, Published, build_graph, get_spec, list_models, register

__all__ = ["ModelSpec", "Published", "build_graph", "get_spec", "list_models", "register"]
