"""What a graph tells about learning and memory, as tables, figures and a report; without JAX."""

from prn_jax.analyze.analysis import Analysis, analyze
from prn_jax.analyze.memory import KeptMap, Memory, live_memory

__all__ = ["Analysis", "KeptMap", "Memory", "analyze", "live_memory"]
