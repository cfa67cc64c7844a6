"""Starting runs on clusters and pods, and imitating one on a single machine."""
