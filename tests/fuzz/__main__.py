"""Fuzzing by hand, without a bound: `python -m tests.fuzz --reader NAME --inputs N --seed S`."""

from __future__ import annotations

import argparse
import logging
import sys

from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz


def main() -> int:
  parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
  parser.add_argument("--reader", action="append", choices=sorted(READERS), help="one of them, or several; default all")
  parser.add_argument("--inputs", type=int, default=10_000, help="for each reader (default 10000)")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--seconds", type=float, default=float("inf"), help="at most so long for each reader")
  args = parser.parse_args()
  logging.disable(logging.WARNING)
  found = []
  for name in args.reader or READERS:
    found.append(fuzz(name, args.inputs, args.seed, args.seconds))
    print(found[-1], flush=True)
  total, foreign = sum(one.inputs for one in found), sum(one.foreign for one in found)
  print(f"{len(found)} readers, {total:,} inputs, {foreign:,} foreign")
  return int(foreign > 0)


if __name__ == "__main__":
  sys.exit(main())
