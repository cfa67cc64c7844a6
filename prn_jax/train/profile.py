"""A profiler trace over some steps of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from prn_jax.files.mirror import Mirror


def _options() -> dict[str, Any]:
  """No frames of Python: collecting them while the threads of a checkpoint come and go has crashed the process, and what a
  step spends its time on is in the traces of XLA."""
  if not hasattr(jax.profiler, "ProfileOptions"):
    return {}
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0
  return {"profiler_options": options}


class Tracer:
  """Traces the steps of a window that a run comes through, also if it starts or ends within; use it as a context."""

  def __init__(self, folder: Path, window: Sequence[int]) -> None:
    """Starts nothing yet.

    Args:
      folder: the folder for the trace.
      window: (first, last) step; empty: never.
    """
    self._folder, self._window = folder, window
    self._is_on = False
    self._mirror: Mirror | None = None

  def __enter__(self) -> Tracer:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
    with contextlib.suppress(RuntimeError):  # what ends the run is the error to tell
      self.stop()

  def before(self, step: int) -> None:
    """Call it before a step is started."""
    if self._window and not self._is_on and self._window[0] <= step <= self._window[-1]:
      self._mirror = Mirror(self._folder)
      jax.profiler.start_trace(str(self._mirror.local), **_options())
      self._is_on = True

  def after(self, step: int, result: Any) -> None:
    """Call it when a step is started; `result` is ready when it is done."""
    if self._is_on and step >= self._window[-1]:
      self.stop(result)

  def stop(self, result: Any = None) -> None:
    """Ends a trace that is on, when `result` is ready."""
    if self._is_on:
      self._is_on = False
      jax.block_until_ready(result)
      jax.profiler.stop_trace()
      if self._mirror is not None:
        self._mirror.close()

  def problem(self) -> str:
    """Why there is no trace although one was asked for, at the end of a run, or ""."""
    if not self._window or self._folder.is_dir():
      return ""
    return (
      f"no profile was written: config.profile_steps={tuple(self._window)}, and no such step was done "
      "(the first step is 0)"
    )
