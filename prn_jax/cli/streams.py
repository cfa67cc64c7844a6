"""Standard streams of the command: a reader that goes away, or a full disk, is no internal error."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from typing import Any

from prn_jax import interrupts

_GONE = (errno.EPIPE, errno.ECONNRESET)


class _Stream(io.FileIO):
  """A file descriptor that takes everything. After the first failure it drops what comes, and keeps the `error`."""

  error: OSError | None = None

  def write(self, data: Any, /) -> int:
    if self.error is None:
      try:
        return super().write(data) or 0
      except BlockingIOError:
        raise
      except OSError as error:
        self.error = error
    return len(memoryview(data).cast("B"))


_stdout: _Stream | None = None


def install() -> None:
  """Puts streams that cannot fail in the place of stdout and stderr."""
  global _stdout
  interrupts.open_closed_descriptors()
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):
      stream.flush()
  _stdout = _Stream(1, "w", closefd=False)
  sys.stdout = _text(_stdout, sys.stdout)
  sys.stderr = _text(_Stream(2, "w", closefd=False), sys.stderr, every_line=True)


def _text(stream: _Stream, old: Any, *, every_line: bool = False) -> io.TextIOWrapper:
  return io.TextIOWrapper(
    io.BufferedWriter(stream),
    encoding=getattr(old, "encoding", None) or "utf-8",
    errors="backslashreplace",  # a file name that is no text must not end a command
    line_buffering=every_line or stream.isatty(),
  )


def reader_is_gone() -> bool:
  """Whether nobody reads stdout any more, as behind `| head -1`."""
  if _stdout is None:
    return False
  with contextlib.suppress(ValueError):
    sys.stdout.flush()
  return _stdout.error is not None and _stdout.error.errno in _GONE


def problem() -> str:
  """Why stdout did not take everything: "" if it did, or if its reader has gone."""
  if _stdout is None:
    return ""
  sys.stdout.flush()
  error = _stdout.error
  return "" if error is None or error.errno in _GONE else error.strerror or str(error)
