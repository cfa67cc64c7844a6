"""Files in and out: Darknet cfg and weights, Orbax model directories."""
