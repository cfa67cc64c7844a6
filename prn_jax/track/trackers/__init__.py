"""Trackers: boxes of a frame after the other in, boxes with identities out. One file each."""
