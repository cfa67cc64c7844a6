"""Processes that work as one: who takes part, meeting, waiting, leaving. Knows nothing of training."""
