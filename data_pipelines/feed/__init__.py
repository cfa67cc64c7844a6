"""Batches: a function of (seed, step), made by threads or processes."""
