"""Files of every kind, below everything else: places, writing without halves, structured text and its checks."""
