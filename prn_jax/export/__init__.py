"""Models out to other programs, each with its proof."""
