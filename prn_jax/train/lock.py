"""One run at a time in a run directory: two would delete each other's checkpoints and mix their metrics."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from prn_jax.files.places import is_remote
from prn_jax.train.config import ConfigError

FILE = ".run.lock"


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
  """Holds the directory for this process until the body ends, or the process does, however it ends.

  The lock is the system's (flock), so that a kill frees it at once, and no file that is left behind stands in the way. A
  file system without such locks (a bucket, some network file systems) is not locked.

  Raises:
    ConfigError: another process holds it; the text names it.
  """
  handle = None if is_remote(workdir) else _acquire(workdir / FILE)
  try:
    yield
  finally:
    if handle is not None:
      with contextlib.suppress(OSError):
        (workdir / FILE).unlink()  # while it is held: who waits for it looks whether it is still there
      os.close(handle)


def _acquire(file: Path) -> int | None:
  try:
    import fcntl
  except ImportError:  # Windows
    return None
  while True:
    try:
      file.parent.mkdir(parents=True, exist_ok=True)
      handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # it cannot be written, which is told where it matters
      return None
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      who = _holder(handle)
      os.close(handle)
      raise ConfigError(
        f"'{file.parent}' is being written by another run{who}. Wait until it ends, stop it, or give another --workdir."
      ) from None
    except OSError:  # no locks on this file system
      os.close(handle)
      return None
    if _is_same(handle, file):
      os.ftruncate(handle, 0)
      os.pwrite(
        handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode(), 0
      )
      return handle
    os.close(handle)  # its holder ended between the two, and took the file with it


def _is_same(handle: int, file: Path) -> bool:
  try:
    return os.path.samestat(os.fstat(handle), os.stat(file))
  except FileNotFoundError:
    return False


def _holder(handle: int) -> str:
  try:
    found = json.loads(os.pread(handle, 1000, 0))
    minutes = (time.time() - float(found["since"])) / 60
    return f" (process {int(found['pid'])} on {str(found['host'])[:100]!r}, for {minutes:.0f} min)"
  except (OSError, ValueError, KeyError, TypeError):
    return ""
