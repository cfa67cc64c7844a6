"""Tests of `prn_jax.distill`."""
