"""A pod on one machine: N processes with M virtual CPU devices each, for tests and for trying things out.

  python -m launch.fake_pod --processes 2 --devices 2 -- prn train --config=demo --workdir=/tmp/run

Every process gets the environment that a real launcher would set (PRN_COORDINATOR, PRN_NUM_PROCESSES, PRN_PROCESS_ID)
and its output a prefix. When one ends with an error, the others have `--grace-sec` to notice and to say so; what is left
then is killed. Returns the worst exit code; a SIGABRT counts as 76, see `launch.supervise`. "{process}" in the command
becomes the number of the process. SIGTERM and Ctrl-C are passed on to all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from launch.supervise import HOST_LOST, NO_START, PREEMPTED, map_code

# Worst last: what needs a person before what a restart mends. Other codes (a signal, a crash) are worse still.
SEVERITY = (0, PREEMPTED, HOST_LOST, NO_START, 130, 1, 2, 3)


class Pod:
  """The processes of a run. `with Pod(...) as pod` kills what is left at the end."""

  def __init__(
    self, command: Sequence[str], *, processes: int, devices: int, environ: Mapping[str, str] = os.environ,
    skip: Sequence[int] = (), out: IO[str] | None = None,
  ) -> None:  # fmt: skip
    """Starts all processes.

    Args:
      command: argument list; "{process}" in it becomes the number of the process.
      processes: how many.
      devices: virtual CPU devices of each.
      environ: environment to start from.
      skip: processes that are not started, as if their host were missing.
      out: where the prefixed output goes; None is stdout.
    """
    self.processes: dict[int, subprocess.Popen[str]] = {}
    self.lines: list[str] = []
    self._readers: list[threading.Thread] = []
    self._lock, self._out = threading.Lock(), out
    port = free_port()
    self._notes = tempfile.TemporaryDirectory(prefix="prn-pod-")
    for index in set(range(processes)) - set(skip):
      child = subprocess.Popen(
        [word.replace("{process}", str(index)) for word in command],
        env=pod_environ(environ, index, processes, devices, port) | {"PRN_EXIT_NOTE": str(self._note(index))},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,  # so that the end of the pod reaches grandchildren too
      )  # fmt: skip
      self.processes[index] = child
      reader = threading.Thread(target=self._copy, args=(index, child), daemon=True)
      reader.start()
      self._readers.append(reader)

  def __enter__(self) -> Pod:
    return self

  def __exit__(self, *_: object) -> None:
    self.kill()
    self._notes.cleanup()

  def wait(self, grace_sec: float = 60.0, timeout_sec: float | None = None) -> dict[int, int]:
    """Waits for the end of all; returns their codes as `map_code` gives them.

    Args:
      grace_sec: how long the others may live on after the first error.
      timeout_sec: the longest time for everything; then all are killed.
    """
    deadline = time.monotonic() + timeout_sec if timeout_sec is not None else float("inf")
    while any(child.poll() is None for child in self.processes.values()) and time.monotonic() < deadline:
      if any(child.poll() not in (None, 0, PREEMPTED) for child in self.processes.values()):
        deadline = min(deadline, time.monotonic() + grace_sec)
        grace_sec = float("inf")  # counted once, from the first error
      time.sleep(0.02)
    self.kill()
    for reader in self._readers:
      reader.join(5.0)
    return {index: map_code(child.wait(), self._read_note(index))[0] for index, child in self.processes.items()}

  def kill(self) -> None:
    """Ends all processes that are left, stopped ones and children of theirs too."""
    for index, child in self.processes.items():
      if child.poll() is None:
        self._say(f"[pod] process {index} is still there: killing it")
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
      child.wait()

  def signal(self, number: int) -> None:
    """Sends a signal to all that live."""
    for child in self.processes.values():
      if child.poll() is None:
        child.send_signal(number)

  def wait_for_line(self, text: str, timeout_sec: float) -> bool:
    """Whether a line with `text` comes before all processes have ended or the time is over."""
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
      if any(text in line for line in list(self.lines)):
        return True
      if not any(reader.is_alive() for reader in self._readers):
        break
      time.sleep(0.02)
    return any(text in line for line in list(self.lines))

  def _note(self, index: int) -> Path:
    return Path(self._notes.name) / str(index)

  def _read_note(self, index: int) -> str:
    return self._note(index).read_text() if self._note(index).exists() else ""

  def _copy(self, index: int, child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    with child.stdout:
      for line in child.stdout:
        self._say(f"[{index}] {line.rstrip()}")

  def _say(self, line: str) -> None:
    with self._lock:
      self.lines.append(line)
      print(line, file=self._out or sys.stdout, flush=True)


def pod_environ(environ: Mapping[str, str], index: int, processes: int, devices: int, port: int) -> dict[str, str]:
  """The environment of one process: `environ` without other clusters' variables, with those of this pod."""
  foreign = ("SLURM_", "OMPI_", "JAX_COORDINATOR", "JAX_NUM_PROCESSES", "JAX_PROCESS_", "JAX_LOCAL_DEVICE_IDS", "PRN_")
  keep = {"PRN_SHARED", "PRN_JOIN_TIMEOUT_SEC"}
  env = {name: value for name, value in environ.items() if name in keep or not name.startswith(foreign)}
  flags = [f for f in env.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
  return env | {
    "PRN_COORDINATOR": f"127.0.0.1:{port}",
    "PRN_NUM_PROCESSES": str(processes),
    "PRN_PROCESS_ID": str(index),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": str(devices),
    "XLA_FLAGS": " ".join(flags),
    "PYTHONUNBUFFERED": "1",
  }


def worst(codes: Sequence[int]) -> int:
  """The code that says most: what needs a person before what a restart mends."""
  return max(codes, key=lambda code: SEVERITY.index(code) if code in SEVERITY else len(SEVERITY) + code, default=0)


def free_port() -> int:
  """A port of this machine that nothing listens on."""
  with socket.create_server(("", 0)) as server:
    return int(server.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="launch.fake_pod", description=__doc__.splitlines()[0] if __doc__ else None)
  parser.add_argument("--processes", type=int, default=2, metavar="N")
  parser.add_argument("--devices", type=int, default=1, metavar="M", help="virtual CPU devices of each process")
  parser.add_argument("--grace-sec", type=float, default=60.0, metavar="S", help="time for the others after an error")
  parser.add_argument("--skip", type=int, action="append", default=[], metavar="I", help="do not start process I")
  parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND...")
  args = parser.parse_args(argv)
  command = args.command[1:] if args.command[:1] == ["--"] else args.command
  if not command:
    parser.error("no command: python -m launch.fake_pod --processes 2 -- prn train ...")
  if args.processes < 1 or args.devices < 1:
    parser.error(f"--processes {args.processes} --devices {args.devices}: both must be at least 1")
  with Pod(command, processes=args.processes, devices=args.devices, skip=args.skip) as pod:

    def pass_on(number: int, frame: FrameType | None) -> None:
      pod.signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, pass_on)
    codes = pod.wait(args.grace_sec)
  ends = ", ".join(f"process {index}: {code}" for index, code in sorted(codes.items()))
  print(f"[pod] {ends}", file=sys.stderr)
  return worst(list(codes.values()))


if __name__ == "__main__":
  sys.exit(main())
