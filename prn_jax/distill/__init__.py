"""Knowledge distillation: what a trained network teaches another one, as losses by name."""

from prn_jax.distill import compat, features, response
from prn_jax.distill.lesson import register_distillation

__all__ = ["compat", "features", "register_distillation", "response"]
