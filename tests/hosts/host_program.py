"""A tiny program on many hosts, for test_hosts.py: sums over all devices, step by step, and says what happens.

Arguments: NUM_STEPS, then any of: stall=I:STEP (process I stops stepping), raise=I:STEP (process I fails),
bad=I:STEP (process I has bad input), steps=I:N (process I claims N steps in the start check), sleep=SEC a step.
"""

from __future__ import annotations

import sys
import time

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prn_jax.errors import PrnError
from prn_jax.hosts.exit_codes import PREEMPTED, before_exit
from prn_jax.hosts.group import HostSettings, Preemption, initialize
from prn_jax.hosts.watchdog import Watchdog


def option(name: str) -> tuple[int, int]:
  """(process, number) of an argument NAME=I:N; (-1, -1) if it is not given."""
  for word in sys.argv[2:]:
    key, _, value = word.partition("=")
    if key == name:
      process, _, number = value.partition(":")
      return int(process), int(number)
  return -1, -1


def main() -> int:
  hosts = initialize(HostSettings(join_timeout_sec=20, silence_timeout_sec=3, step_timeout_sec=4))
  num_steps, sleep_sec = int(sys.argv[1]), 0.02
  before_exit(lambda: print("flushed", flush=True))
  with hosts.guard(), Preemption(hosts) as preemption, Watchdog(hosts) as watchdog:
    claimed = option("steps")
    hosts.check_same({"steps": claimed[1] if claimed[0] == hosts.process_index else num_steps})
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    data, all_same = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    total = jax.jit(lambda x: x.sum(), out_shardings=all_same)
    code = 0
    for step in range(num_steps):
      own = np.full(jax.local_device_count(), hosts.process_index + 1.0 + step, np.float32)
      result = float(total(jax.make_array_from_process_local_data(data, own)))
      watchdog.feed(step)
      print(f"step {step} sum {result:g}", flush=True)
      here = (hosts.process_index, step)
      if here == option("stall"):
        time.sleep(1000)
      if here == option("raise"):
        raise RuntimeError("the disk is on fire")
      if here == option("bad"):
        raise PrnError("image 'cat.jpg' is no image")
      time.sleep(sleep_sec)
      if preemption.requested(step):
        print(f"preempted at step {step}", flush=True)
        code = PREEMPTED
        break
    hosts.close(code)
  return code


if __name__ == "__main__":
  sys.exit(main())
