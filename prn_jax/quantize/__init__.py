"""Networks in few bits: the rewrite, the ranges, integers for other hardware, and what it all cost (docs/compression.md)."""
