"""`python -m prn_jax` is `prn`."""

import sys

from prn_jax.cli.main import main

if __name__ == "__main__":
  sys.exit(main())
