"""Runs a command as a child, turns JAX's aborts into exit codes, and starts it again when that helps.

  python -m launch.supervise [--max-restarts N] [--backoff-sec S] -- prn train --config=... --workdir=...

JAX's coordination service ends a process with SIGABRT (134 in a shell; older JAX: with code 1) when the coordinator dies,
before any code of ours can act. Only a parent can turn that into 76, "a host was lost, run again". The parent needs nothing but Python, so
it survives what kills its child; it imports neither JAX nor prn_jax. SIGTERM and SIGINT are passed on to the child.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

HOST_LOST, PREEMPTED, NO_START = 76, 75, 78  # prn_jax.hosts.exit_codes, which a test compares


def map_code(returncode: int, note: str = "") -> tuple[int, str]:
  """Exit code that `subprocess` reported (negative: a signal) -> exit code to return, and what to say about it.

  Args:
    returncode: as `subprocess` gives it.
    note: what the process wrote to $PRN_EXIT_NOTE; "joined": it was in a run on many hosts and did not end by itself.
  """
  if returncode in (-signal.SIGABRT, 128 + signal.SIGABRT) or (returncode == 1 and note == "joined"):
    return HOST_LOST, (
      f"aborted: JAX lost its coordinator or another host; the lines above say which. Counted as {HOST_LOST}: run again"
    )
  if returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
    return 128 + signal.SIGKILL, "killed (SIGKILL): out of memory, or ended from outside; 'dmesg' may tell"
  if returncode < 0:
    return 128 - returncode, f"ended by {signal.Signals(-returncode).name}"
  return returncode, f"ended with exit code {returncode}"


class Supervisor:
  """One child at a time, and whether it has been asked to stop."""

  def __init__(self, command: Sequence[str]) -> None:
    self._command = list(command)
    self._child: subprocess.Popen[bytes] | None = None
    self.stopping = False

  def run(self) -> tuple[int, str]:
    """Runs the command once; returns exit code and words of `map_code`."""
    with tempfile.TemporaryDirectory(prefix="prn-") as folder:
      note = Path(folder) / "note"
      self._child = subprocess.Popen(
        self._command, env={**os.environ, "PRN_EXIT_NOTE": str(note)},
        preexec_fn=_follow_parent,  # safe: there are no threads
      )  # fmt: skip
      if self.stopping:  # the signal came between two lives
        self._child.send_signal(signal.SIGTERM)
      code = self._child.wait()
      return map_code(code, note.read_text() if note.exists() else "")

  def handle(self, number: int, frame: FrameType | None) -> None:
    """Passes a signal on. A Ctrl-C reaches the child by itself: the terminal sends it to the whole group."""
    self.stopping = True
    from_terminal = number == signal.SIGINT and os.isatty(0)
    if self._child is not None and self._child.poll() is None and not from_terminal:
      self._child.send_signal(number)


def _follow_parent() -> None:
  """In the child: SIGTERM when the supervisor dies, so that no run goes on unseen beside its successor (Linux only)."""
  with contextlib.suppress(OSError, AttributeError):
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="launch.supervise", description=__doc__.splitlines()[0] if __doc__ else None)
  parser.add_argument("--max-restarts", type=int, default=0, metavar="N", help="start again after a lost host, N times")
  parser.add_argument("--backoff-sec", type=float, default=5.0, metavar="S", help="pause before the first restart; "
                      "doubles with each, up to 5 minutes")  # fmt: skip
  parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND...")
  args = parser.parse_args(argv)
  command = args.command[1:] if args.command[:1] == ["--"] else args.command
  if not command:
    parser.error("no command: python -m launch.supervise -- prn train ...")
  supervisor = Supervisor(command)
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, supervisor.handle)
  return _restarting(supervisor, args.max_restarts, args.backoff_sec)


def _restarting(supervisor: Supervisor, max_restarts: int, backoff_sec: float) -> int:
  """Runs until the end, or until a restart would not help or is not allowed."""
  restarts = 0
  while True:
    try:
      code, text = supervisor.run()
    except OSError as error:
      print(f"supervise: cannot start the command: {error}", file=sys.stderr)
      return 127
    if code:
      print(f"supervise: {text}", file=sys.stderr, flush=True)
    # 75 means that someone wants this machine back: whoever sent the SIGTERM decides about another start.
    again = code in (HOST_LOST, 128 + signal.SIGKILL) and not supervisor.stopping and restarts < max_restarts
    if not again:
      return code
    pause_sec = min(backoff_sec * 2**restarts, 300.0)
    restarts += 1
    print(f"supervise: restart {restarts} of {max_restarts} in {pause_sec:g} s", file=sys.stderr, flush=True)
    end = time.monotonic() + pause_sec
    while time.monotonic() < end and not supervisor.stopping:
      time.sleep(0.1)
    if supervisor.stopping:
      return PREEMPTED


if __name__ == "__main__":
  sys.exit(main())
