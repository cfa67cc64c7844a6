"""A thread that ends a run which no longer moves: a hung collective waits forever, and only from outside can it be seen.

Other processes that stop, stall or die are seen by `peers`; this one also catches a peer that lives and gives signs of
life but takes no more steps, a data source that does not answer, and a device that never returns.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from prn_jax.train.exit_codes import HOST_LOST, end_process
from prn_jax.train.hosts import Hosts


class Watchdog:
  """Ends the process with HOST_LOST, a message and all stacks when no step completes in time."""

  def __init__(self, hosts: Hosts, *, step_sec: float | None = None, first_step_sec: float | None = None) -> None:
    """Starts nothing yet; use it as a context.

    Args:
      hosts: the processes of the run; their settings give the limits that are None here.
      step_sec: longest time between two `feed`.
      first_step_sec: longest time to the first `feed`; it holds the compilation.
    """
    self._hosts = hosts
    self._step_sec = hosts.settings.step_timeout_sec if step_sec is None else step_sec
    first_sec = hosts.settings.first_step_timeout_sec if first_step_sec is None else first_step_sec
    self._lock = threading.Lock()
    self._step = -1
    self._phases: list[tuple[str, float, float]] = []  # (what, deadline, limit), innermost last
    self._waiting = ("the first step", time.monotonic() + first_sec, first_sec)
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._run, name="prn-watchdog", daemon=True)

  def __enter__(self) -> Watchdog:
    self._thread.start()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
    self._stop.set()

  def feed(self, step: int) -> None:
    """Notes a completed step. Completed means that a result of it was read: a step that is only queued may still hang."""
    with self._lock:
      self._step = step
      self._waiting = (f"a step after step {step}", time.monotonic() + self._step_sec, self._step_sec)
    self._hosts.report(step)

  @contextlib.contextmanager
  def phase(self, name: str, limit_sec: float) -> Iterator[None]:
    """A time in which no steps are expected, with a limit of its own; afterwards the step's limit starts anew."""
    with self._lock:
      self._phases.append((name, time.monotonic() + limit_sec, limit_sec))
    try:
      yield
    finally:
      with self._lock:
        self._phases.pop()
        what, _, sec = self._waiting
        self._waiting = (what, time.monotonic() + sec, sec)

  def _run(self) -> None:
    while not self._stop.wait(min(1.0, self._step_sec / 10)):
      with self._lock:
        what, deadline, limit_sec = self._phases[-1] if self._phases else self._waiting
      if time.monotonic() > deadline and not self._stop.is_set():
        self._bark(what, limit_sec)

  def _bark(self, what: str, limit_sec: float) -> None:
    hosts = self._hosts
    text = f"no progress for {limit_sec:g} s while waiting for {what}"
    last = f"last completed step {self._step}" if self._step >= 0 else "no step completed yet"
    who, others = "", ""
    if hosts.peers is not None:
      who = f"process {hosts.process_index} of {hosts.process_count}: "
      others = f" {hosts.peers.summary[:1].upper()}{hosts.peers.summary[1:]}." if hosts.peers.summary else ""
      hosts.peers.fail(HOST_LOST, text)
    end_process(
      HOST_LOST,
      f"{who}{text}; {last}.{others} The stacks below show where it waits. Run the same command again on all hosts: it "
      "goes on from the last checkpoint. If the step is only slow, raise the limit (hosts.step_timeout_sec, "
      "hosts.first_step_timeout_sec).",
      stacks=True,
    )
