"""Procedural road scenes: the drawing behind `prn_jax.data_pipelines.sources.synthetic`."""
