"""Configurations of training runs: one `get_config()` per experiment. `prn train --config=NAME` finds them by name."""
