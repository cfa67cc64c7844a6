"""Graph (and variables) -> Graph (and variables): other numerics without flags in the lowering."""
