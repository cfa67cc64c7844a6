"""Procedural road scenes: the drawing behind `data_pipelines.sources.synthetic`."""
