"""Data on its way to a network: sources, decoding, batching. Knows nothing of models."""
