"""How fast: one file per thing that `prn bench` measures."""
