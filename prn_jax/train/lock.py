"""One run at a time in a run directory: two would delete each other's checkpoints and mix their metrics."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prn_jax.files.places import bucket_path, is_remote
from prn_jax.hosts.exit_codes import BAD_INPUT, before_exit, end_process
from prn_jax.hosts.group import Hosts
from prn_jax.train.config import ConfigError
from prn_jax.train.log import say

FILE = ".run.lock"
WHAT_TO_DO = "Wait until it ends, stop it, or give another --workdir."


def nothing() -> None:
  """The lock of a process that does not write the run directory."""


@contextlib.contextmanager
def locked(workdir: Path, hosts: Hosts | None = None) -> Iterator[Callable[[], None]]:
  """Holds the directory for this process, and the run that it is part of, until the body ends or the process does.

  On a disk the lock is the system's (flock), so that a kill frees it at once, and no file that is left behind stands in
  the way; other file systems without such locks are not locked. In a bucket it is an object (`prn_jax.files.lease`).

  Args:
    workdir: the run directory.
    hosts: the processes of the run. One of them locks for all.

  Yields:
    What ends this process if another run has taken over the directory. Call it before what must not be written twice.

  Raises:
    ConfigError: another process holds it; the text names it.
  """
  if is_remote(workdir):
    with _leased(workdir, hosts or Hosts()) as confirm:
      yield confirm
    return
  handle = _acquire(workdir / FILE)
  try:
    yield nothing
  finally:
    if handle is not None:
      with contextlib.suppress(OSError):
        (workdir / FILE).unlink()  # while it is held: who waits for it looks whether it is still there
      os.close(handle)


@contextlib.contextmanager
def _leased(workdir: Path, hosts: Hosts) -> Iterator[Callable[[], None]]:
  from prn_jax.files.lease import HeldError, Lease, Owner

  def lost(owner: Owner) -> None:
    text = (
      f"'{workdir}' has been taken over by another run ({owner}) while this one gave no sign of life. What this one did "
      "since its last checkpoint is lost; the other goes on from there."
    )
    if hosts.peers is not None:
      hosts.peers.fail(BAD_INPUT, text)
    end_process(BAD_INPUT, text)

  lease = Lease(bucket_path(workdir / FILE), lost, say)
  try:
    lease.acquire()
  except HeldError as error:
    owner = error.owner
    raise ConfigError(_refusal(workdir, f" ({owner}, for {_minutes(owner.since)} min)" if owner.id else "")) from None
  remove = before_exit(lease.release)
  try:
    yield lease.renew
  finally:
    remove()
    lease.release()


def _refusal(workdir: Path, who: str) -> str:
  return f"'{workdir}' is being written by another run{who}. {WHAT_TO_DO}"


def _minutes(since: float) -> str:
  return f"{max(0.0, time.time() - since) / 60:.0f}"


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
      raise ConfigError(_refusal(file.parent, who)) from None
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
    return f" (process {int(found['pid'])} on {str(found['host'])[:100]!r}, for {_minutes(float(found['since']))} min)"
  except (OSError, ValueError, KeyError, TypeError):
    return ""
