"""Objects followed through the frames of a video: trackers, their figures, and counts. NumPy; no JAX here."""
