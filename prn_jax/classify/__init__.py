"""Classification: prediction, and the figures of a classifier."""
