"""Prepared data: records and images in shards that are read without their sources."""
