"""Exit codes of `prn train`, and the way out that works when other hosts hang.

A Python exit is no exit on many hosts: `jax.distributed` waits at interpreter shutdown for every other process (100 s
and more, then SIGABRT), and a thread that sits in a collective never comes back. So a process that must end says why,
runs the callbacks of `before_exit` for at most `FLUSH_SEC`, and leaves through `os._exit`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable

DONE = 0  # trained to the last step
DIVERGED = 1  # the loss or a weight is not finite; running again would diverge again
BAD_INPUT = 2  # config, data or weights are wrong; the message says what
INTERNAL = 3  # a bug: please report it
PREEMPTED = 75  # stopped by SIGTERM after saving; run the same command again to go on (EX_TEMPFAIL of sysexits.h)
HOST_LOST = 76  # a host is missing, died or hangs; run the same command again to go on from the last checkpoint
NO_START = 78  # three starts in a row failed the same way before their first step; the message says how (EX_CONFIG)
INTERRUPTED = 130  # Ctrl-C

RUN_AGAIN = (PREEMPTED, HOST_LOST)
MEANING = {
  DONE: "done",
  DIVERGED: "training diverged",
  BAD_INPUT: "bad input",
  INTERNAL: "internal error",
  PREEMPTED: "preempted after saving, run again",
  HOST_LOST: "a host was lost or hangs, run again",
  NO_START: "the run does not start, another try would not help",
  INTERRUPTED: "interrupted",
}

FLUSH_SEC = 2.0
Judge = Callable[[int, str], tuple[int, str]]
_callbacks: list[Callable[[], object]] = []
_judges: list[Judge] = []
_leaving = threading.Lock()


def before_exit(callback: Callable[[], object]) -> Callable[[], None]:
  """Registers work for `end_process` (give back a lock); returns the function that unregisters it.

  The last registered comes first. The callback runs in a thread of its own and is cut off after FLUSH_SEC: no collectives, no waiting for other hosts.
  """
  _callbacks.append(callback)

  def remove() -> None:
    with contextlib.suppress(ValueError):
      _callbacks.remove(callback)

  return remove


def on_end(judge: Judge) -> Callable[[], None]:
  """Registers what may change code and message of `end_process`; returns the function that unregisters it."""
  _judges.append(judge)

  def remove() -> None:
    with contextlib.suppress(ValueError):
      _judges.remove(judge)

  return remove


def end_process(code: int, message: str, *, stacks: bool = False) -> None:
  """Says why, flushes, and ends this process now, whatever its other threads do. Does not return.

  Args:
    code: exit code, see the constants of this file.
    message: printed to stderr; what happened, and what to do.
    stacks: print the Python stack of every thread too.
  """
  if not _leaving.acquire(blocking=False):  # another thread is at it; its message is the first cause
    threading.Event().wait()
  for judge in list(_judges):
    code, message = judge(code, message)
  print(
    f"prn: {message}\nprn: ending with exit code {code} ({MEANING.get(code, 'error')})", file=sys.stderr, flush=True
  )
  if stacks:
    faulthandler.dump_traceback(file=2, all_threads=True)  # by number: sys.stderr may be replaced
  flush = threading.Thread(target=_flush, daemon=True)
  flush.start()
  flush.join(FLUSH_SEC)
  tell_supervisor("ended")
  os._exit(code)


def tell_supervisor(word: str) -> None:
  """Notes for `launch.supervise` how far this process came: "joined" a run on many hosts, "ended" by its own will.

  Older JAX leaves with code 1 when it loses its coordinator, which would look like DIVERGED.
  """
  path = os.environ.get("PRN_EXIT_NOTE")
  if path:
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
      file.write(word)


def exit_code_of(error: BaseException) -> int:
  """Exit code that an exception stands for: its `exit_code` attribute, or by its type."""
  from prn_jax.errors import PrnError

  code = getattr(error, "exit_code", None)
  if isinstance(code, int):
    return code
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else (INTERNAL if error.code else DONE)
  if isinstance(error, KeyboardInterrupt):
    return INTERRUPTED
  return BAD_INPUT if isinstance(error, PrnError) else INTERNAL


def _flush() -> None:
  for callback in reversed(_callbacks[:]):
    try:
      callback()
    except Exception as error:  # the next one must have its turn
      print(f"prn: while ending: {type(error).__name__}: {error}", file=sys.stderr)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):
      stream.flush()
