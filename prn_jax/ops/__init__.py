"""Arithmetic with gradients of its own, where the automatic ones compile or run slowly. Imports JAX: the kinds import it
inside their lowering.
"""
