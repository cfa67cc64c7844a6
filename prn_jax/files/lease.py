"""One owner at a time of an object in a bucket, where the system has no locks.

The owner writes the object if there is none (a precondition, which the store checks in one step), writes it anew every
`BEAT_SEC` as long as it lives, and deletes it at the end. Another that wants it watches: a change is a sign of life, and it
is refused. An owner that gives none for `DEAD_SEC` is dead, and the object is taken over, again by a precondition, so
that of several that watch one has it. No clocks of two machines are compared: how old the last sign is, the store says.

A process of this machine that has ended need not be waited for. A machine that slept or was cut off for longer than
`DEAD_SEC` finds another owner at its next beat, and must end: until then, some seconds, both may write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prn_jax.errors import BucketError
from prn_jax.files.buckets import BucketPath, Seen
from prn_jax.files.structured import load_json
from prn_jax.files.values import Misfit

POLL_SEC = 1.0
BEAT_SEC = 15.0
DEAD_SEC = 90.0  # room for two beats, with the half minute for which gcsfs tries each again


@dataclasses.dataclass(frozen=True)
class Owner:
  """Who holds a lease, as its object says it.

  Attributes:
    id: a random name of this holding; a process may hold twice, one after the other.
    host, pid, since: for people; `since` in seconds since 1970.
    boot, space, began: what tells a process from all others, with its `pid`: this start of the machine, the container
      (namespace of process numbers), and when it began. Empty where the system does not tell.
  """

  id: str = ""
  host: str = ""
  pid: int = 0
  since: float = 0.0
  boot: str = ""
  space: str = ""
  began: str = ""

  @classmethod
  def this(cls) -> Owner:
    pid = os.getpid()
    return cls(secrets.token_hex(8), socket.gethostname(), pid, time.time(), _boot(), _space(), _began(pid))

  @classmethod
  def read(cls, data: bytes) -> Owner:
    """What an object says; nothing, if it is damaged or another program's."""
    try:
      found: Any = load_json(data)
    except Misfit:
      return cls()
    kinds = {field.name: type(field.default) for field in dataclasses.fields(cls)}
    is_sound = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    return cls(**{name: found[name] for name in kinds}) if is_sound else cls()

  @property
  def is_gone(self) -> bool:
    """Whether it was a process of this machine, or container, which has ended. False where nobody can know."""
    is_of_here = bool(self.boot and self.space) and (self.boot, self.space) == (_boot(), _space())
    return is_of_here and self.began != _began(self.pid)

  def __str__(self) -> str:
    return f"process {self.pid} on {self.host[:100]!r}" if self.id else "a process that cannot be told"


class HeldError(Exception):
  """Another holds the lease, and lives."""

  def __init__(self, owner: Owner) -> None:
    super().__init__(str(owner))
    self.owner = owner


class Lease:
  """Use `acquire`, then `release`; in between a thread gives signs of life.

  Args:
    file: the object.
    on_lost: called, by any thread, with who has taken the lease over.
    tell: called with a line for people, while `acquire` waits.
    beat_sec, dead_sec: see above.
  """

  def __init__(
    self,
    file: BucketPath,
    on_lost: Callable[[Owner], object],
    tell: Callable[[str], object],
    beat_sec: float = BEAT_SEC,
    dead_sec: float = DEAD_SEC,
  ) -> None:
    self._file, self._on_lost, self._tell = file, on_lost, tell
    self._beat_sec, self._dead_sec = beat_sec, dead_sec
    self._owner = Owner.this()
    self._generation = 0
    self._one, self._ended = threading.Lock(), threading.Event()

  def acquire(self) -> None:
    """Returns when this process has the lease, `dead_sec` after the last sign of life of a dead owner at the latest.

    Raises:
      HeldError: another has it. BucketError: the bucket cannot be used.
    """
    watched: Seen | None = None
    end = 0.0
    while not self._has(seen := self._file.seen()):
      if seen is not None:
        owner = Owner.read(seen.data)
        if watched is not None and seen.generation != watched.generation:
          raise HeldError(owner)
        if watched is None:
          watched, end = seen, time.monotonic() + self._dead_sec - seen.age_sec
          self._say_wait(owner, seen)
        if not owner.is_gone and time.monotonic() < end:
          time.sleep(min(POLL_SEC, self._beat_sec / 4))
          continue
        self._tell(f"{owner} has ended or is lost; taking over '{self._file.parent}'")
      self._write_over(seen.generation if seen else 0)
    threading.Thread(target=self._keep_beating, name="lease", daemon=True).start()

  def renew(self) -> None:
    """A sign of life; calls `on_lost` if another has the lease.

    Raises:
      BucketError: the bucket cannot be used.
    """
    lost_to = None
    with self._one:
      while not self._ended.is_set() and not self._write_over(self._generation):
        seen = self._file.seen()
        if seen is None:  # somebody has deleted it, and nobody has it
          self._generation = 0
        elif not self._has(seen):
          self._ended.set()
          lost_to = Owner.read(seen.data)
    if lost_to is not None:
      self._on_lost(lost_to)

  def release(self) -> None:
    """Gives the lease back, if the bucket lets it; does nothing the second time."""
    with self._one:
      if not self._ended.is_set():
        self._ended.set()
        with contextlib.suppress(BucketError):  # then the next waits until this one counts as dead
          self._file.unlink_if(self._generation)

  def _write_over(self, generation: int) -> bool:
    text = json.dumps(dataclasses.asdict(self._owner))
    written = self._file.write_over(generation, text.encode())
    self._generation = written or self._generation
    return written is not None

  def _has(self, seen: Seen | None) -> bool:
    """Whether the object is this process's own, which a write that was answered by an error may have made it."""
    is_own = seen is not None and Owner.read(seen.data).id == self._owner.id
    if seen is not None and is_own:
      self._generation = seen.generation
    return is_own

  def _say_wait(self, owner: Owner, seen: Seen) -> None:
    left = self._dead_sec - seen.age_sec
    if not owner.is_gone and left > 0:
      self._tell(
        f"'{self._file.parent}' is held by {owner}, last heard of {seen.age_sec:.0f} s ago; waiting for a sign of life, "
        f"for at most {left:.0f} s"
      )

  def _keep_beating(self) -> None:
    while not self._ended.wait(self._beat_sec):
      with contextlib.suppress(BucketError):  # out of reach; what is written there will tell
        self.renew()


def _boot() -> str:
  return _text("/proc/sys/kernel/random/boot_id").strip()


def _space() -> str:
  try:
    return os.readlink("/proc/self/ns/pid")
  except OSError:
    return ""


def _began(pid: int) -> str:
  """When a process began, in ticks since the start of the machine; "" if there is none, or it has ended (a zombie)."""
  fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name, before that, may hold anything
  return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _text(file: str) -> str:
  try:
    return Path(file).read_text()
  except OSError:
    return ""
