"""Published weights: what there is, and how it is fetched."""
