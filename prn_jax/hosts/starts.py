"""Starts that fail before their first step, one after another: after `MOST` that fail the same way a run ends for good.

A lost host asks for another start (HOST_LOST). Where the cause is not a host but the start itself, as a limit that is
always too short, another start meets it again, and a launcher would repeat it for ever. So process 0 keeps in the run
directory why the last starts ended, until a step is done.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from prn_jax.errors import PrnError
from prn_jax.files.disk import write_text
from prn_jax.files.structured import load_bytes, load_json
from prn_jax.files.values import Misfit
from prn_jax.hosts.exit_codes import HOST_LOST, NO_START, before_exit, on_end
from prn_jax.hosts.group import Hosts

FILE = "starts.json"
MOST = 3
_TIMED_OUT = ("no progress for", "did not come to '")  # of the watchdog, of the roll call
_REASON_CHARS = 600


class Starts:
  """Watches one start, from the run directory to the first step.

  Args:
    workdir: the run directory.
    hosts: the processes of the run; the file is process 0's, and all know what it says.
    step: updates done by the checkpoint that the run goes on from.
  """

  def __init__(self, workdir: Path, hosts: Hosts, step: int) -> None:
    self._file, self._is_main, self._step = workdir / FILE, hosts.is_main, step
    own = self._read() if self._is_main else []
    self._earlier: list[str] = hosts.gather("earlier starts", own)[0]
    self._reasons: list[str] | None = None  # what is to be written at the end
    self._remove = [on_end(self._judge), before_exit(self._write)]

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if error is None or isinstance(error, PrnError | SystemExit | KeyboardInterrupt):
      self.succeeded()  # or it ended with a code that asks for no other start; anything else `Hosts.guard` judges

  def succeeded(self) -> None:
    """A step is done, or there was none to do: earlier starts are forgotten."""
    for remove in self._remove:
      remove()
    if self._remove and self._is_main:
      self._file.unlink(missing_ok=True)
    self._remove = []

  def _judge(self, code: int, message: str) -> tuple[int, str]:
    """Exit code and message of a process that ends before its first step; the same code on all of them."""
    if code != HOST_LOST:
      self._reasons = []
      return code, message
    before = self._earlier[1 - MOST :]
    if len(before) < MOST - 1 or len({_kind(one) for one in before}) > 1:
      self._reasons = [*before, message[:_REASON_CHARS]]
      return code, message
    self._reasons = []  # whoever starts it again has done something about it
    where = f"after step {self._step:,}" if self._step else "of this run"
    return NO_START, (
      f"{message}\nprn: this was start number {MOST} in a row {where} that ended before its first step; the ones before it: "
      f"{before[-1].rstrip('.')}. Another one would end so too: none is asked for. If it is only slow, raise the limit that "
      "the message names (config.hosts.*); otherwise repair what it names. The next start counts from one."
    )

  def _read(self) -> list[str]:
    """Why the last starts from this checkpoint failed; nothing where another one was reached since, or at damage."""
    with contextlib.suppress(OSError, Misfit, AttributeError):
      found = load_json(load_bytes(self._file))
      reasons = found.get("reasons")
      if found.get("step") == self._step and isinstance(reasons, list):
        return [str(one) for one in reasons]
    return []

  def _write(self) -> None:
    if not self._is_main or self._reasons is None:
      return
    if not self._reasons:
      self._file.unlink(missing_ok=True)
      return
    write_text(self._file, json.dumps({"step": self._step, "reasons": self._reasons}, indent=1))


def _kind(message: str) -> str:
  """A message without what differs between two failures of one kind: numbers, addresses, names of hosts.

  Of processes that wait for each other, chance decides whose time-out speaks first, and of whom: all these are one kind.
  """
  if any(sign in message for sign in _TIMED_OUT):
    return "time-out"
  return re.sub(r"\([^)]*\)|[\d.,:]+", "", message)[:120]
