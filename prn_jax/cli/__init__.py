"""The `prn` command: one file per command, which parses, calls the API and prints."""
