"""Detection: boxes, decoding of heads, suppression, results and their pictures."""
