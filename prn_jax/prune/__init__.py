"""Structured pruning: which channels may go, which matter least, and the network without them."""
