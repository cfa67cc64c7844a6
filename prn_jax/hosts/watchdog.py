"""A thread that ends a run which no longer moves: a hung collective waits forever, and only from outside can it be seen.

Other processes that stop, stall or die are seen by `peers`; this one also catches a peer that lives and gives signs of
life but takes no more steps, a data source that does not answer, and a device that never returns.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

from prn_jax.hosts.exit_codes import HOST_LOST, end_process
from prn_jax.hosts.group import Hosts

SLOW_FACTOR = 20.0  # a step that takes so many times the usual one hangs, also where steps are slow
NUM_USUAL = 5  # steps that must have been seen to call something usual
STOPPED_SEC = 5.0  # a look that comes so late was held up by the system, not by Python's lock


class Watchdog:
  """Ends the process with HOST_LOST, a message and all stacks when no step completes in time."""

  def __init__(self, hosts: Hosts, *, step_sec: float | None = None, first_step_sec: float | None = None) -> None:
    """Starts nothing yet; use it as a context.

    Args:
      hosts: the processes of the run; their settings give the limits that are None here.
      step_sec: longest time between two `feed`, or `SLOW_FACTOR` times the usual one where that is longer.
      first_step_sec: longest time to the first `feed`; it holds the compilation.
    """
    self._hosts = hosts
    self._step_sec = hosts.settings.step_timeout_sec if step_sec is None else step_sec
    first_sec = hosts.settings.first_step_timeout_sec if first_step_sec is None else first_step_sec
    self._lock = threading.Lock()
    self._step = -1
    self._recent_sec: deque[float] = deque(maxlen=100)  # steps without a phase in between
    self._first_step_sec = 0.0  # the first step with its compilation; no later one takes longer
    self._since: float | None = None  # the last `feed`; None if a phase came after it
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
    now = time.monotonic()
    with self._lock:
      if self._since is not None:
        self._recent_sec.append(now - self._since)
      self._step, self._since = step, now
      limit_sec = self._limit_sec()
      self._waiting = (f"a step after step {step}", now + limit_sec, limit_sec)
    self._hosts.report(step)

  @contextlib.contextmanager
  def phase(self, name: str, limit_sec: float, *, is_first_step: bool = False) -> Iterator[Callable[[], None]]:
    """A time in which no steps are expected, with a limit of its own; afterwards the limit of what is around it, phase
    or step, starts anew.

    Args:
      name: what the message calls it.
      limit_sec: longest time, from the start or from the last call of what this gives.
      is_first_step: the phase is a step with its compilation; steps may then take as long.

    Yields:
      A function that starts the limit anew: call it when a part of the phase is done.
    """
    began = time.monotonic()
    with self._lock:
      self._since = None
      level = len(self._phases)
      self._phases.append((name, began + limit_sec, limit_sec))

    def renew() -> None:
      with self._lock:
        self._phases[level] = (name, time.monotonic() + limit_sec, limit_sec)

    try:
      yield renew
    finally:
      now = time.monotonic()
      with self._lock:
        self._phases.pop()
        if is_first_step:
          self._first_step_sec = max(self._first_step_sec, now - began)
        if self._phases:
          what, _, sec = self._phases[-1]
          self._phases[-1] = (what, now + sec, sec)
        what, _, sec = self._waiting
        sec = max(sec, self._limit_sec())
        self._waiting = (what, now + sec, sec)

  def _limit_sec(self) -> float:
    """Longest time to the next step. Until enough are known, twice the first one with its compilation."""
    is_known = len(self._recent_sec) >= NUM_USUAL
    slow_sec = SLOW_FACTOR * statistics.median(self._recent_sec) if is_known else 2 * self._first_step_sec
    return max(self._step_sec, slow_sec)

  def _run(self) -> None:
    interval_sec, last_look = min(1.0, self._step_sec / 10), time.monotonic()
    while not self._stop.wait(interval_sec):
      self._forgive(time.monotonic() - last_look - interval_sec)
      last_look = time.monotonic()
      with self._lock:
        what, deadline, limit_sec = self._phases[-1] if self._phases else self._waiting
      if last_look > deadline and not self._stop.is_set():
        self._bark(what, limit_sec)

  def _forgive(self, late_sec: float) -> None:
    """Moves all limits by the time in which not even this thread ran: the whole process was stopped (Ctrl-Z, a debugger,
    a machine that slept), which says nothing about its steps."""
    if late_sec < STOPPED_SEC:
      return
    with self._lock:
      self._phases = [(what, deadline + late_sec, limit) for what, deadline, limit in self._phases]
      what, deadline, limit = self._waiting
      self._waiting = (what, deadline + late_sec, limit)

  def _bark(self, what: str, limit_sec: float) -> None:
    hosts = self._hosts
    text = f"no progress for {round(limit_sec, 1):g} s while waiting for {what}"
    last = f"last completed step {self._step}" if self._step >= 0 else "no step completed yet"
    limits = "hosts.step_timeout_sec, hosts.first_step_timeout_sec, hosts.pause_timeout_sec"
    stacks = "The stacks below show where it waits."
    if hosts.peers is None:
      end_process(
        HOST_LOST,
        f"{text}; {last}. No other host takes part: data, disk or device of this one do not answer, or are very slow. "
        f"{stacks} Run the same command again: it goes on from the last checkpoint. If it is only slow, raise the limit "
        f"({limits}).",
        stacks=True,
      )
    assert hosts.peers is not None
    others = f" {hosts.peers.summary[:1].upper()}{hosts.peers.summary[1:]}." if hosts.peers.summary else ""
    hosts.peers.fail(HOST_LOST, text)
    end_process(
      HOST_LOST,
      f"process {hosts.process_index} of {hosts.process_count}: {text}; {last}.{others} {stacks} Run the same command "
      f"again on all hosts: it goes on from the last checkpoint. If it is only slow, raise the limit ({limits}).",
      stacks=True,
    )
