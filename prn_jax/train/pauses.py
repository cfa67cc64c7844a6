"""Times of a run in which no step is made, each with a limit of its own, and left out of the speed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from prn_jax.hosts.group import Hosts
from prn_jax.hosts.watchdog import Watchdog
from prn_jax.train.log import Stopwatch

MEETING_SPARE_SEC = 15.0  # the roll call knows who is late, and must speak before the watchdog


class Pauses:
  """Opens a pause for the watchdog and the stopwatch together.

  Args:
    hosts: the processes of the run.
    watchdog: ends a pause that takes too long, and the run with it.
    watch: leaves pauses out of images per second.
    limit_sec: longest pause, where nothing else is said (`hosts.pause_timeout_sec`).
  """

  def __init__(self, hosts: Hosts, watchdog: Watchdog, watch: Stopwatch, limit_sec: float) -> None:
    self._hosts, self._watchdog, self._watch, self._limit_sec = hosts, watchdog, watch, limit_sec
    self._depth = self._meetings = 0

  @contextlib.contextmanager
  def pause(
    self, name: str, limit_sec: float | None = None, *, is_first_step: bool = False
  ) -> Iterator[Callable[[], None]]:
    """A time without steps. Pauses may lie in each other; the stopwatch counts the outermost.

    Args:
      name: what the watchdog says was waited for.
      limit_sec: longest time, from the start or from the last call of what this yields.
      is_first_step: it is a step with its compilation; see `Watchdog.phase`.

    Yields:
      A function that starts the limit anew: call it when a part of the work is done.
    """
    began = time.perf_counter()
    self._depth += 1
    try:
      limit_sec = self._limit_sec if limit_sec is None else limit_sec
      with self._watchdog.phase(name, limit_sec, is_first_step=is_first_step) as renew:
        yield renew
    finally:
      self._depth -= 1
      if not self._depth:
        self._watch.paused(time.perf_counter() - began)

  def meet(self, name: str, limit_sec: float | None = None) -> None:
    """Returns when all processes are here; one that does not come in time is named, and ends the run.

    Args:
      name: what comes after the meeting.
      limit_sec: longest wait for the last process.
    """
    self._meetings += 1
    limit_sec = self._limit_sec if limit_sec is None else limit_sec
    with self.pause(f"the other processes, before {name}", limit_sec + MEETING_SPARE_SEC):
      self._hosts.gather(f"meeting {self._meetings}, before {name}", None, limit_sec)
