"""The paper's experiments at a scale that one computer can run, each repeated by one command (docs/experiments.md)."""
