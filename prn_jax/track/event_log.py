"""The log of events: JSON lines that are only ever added, from which every total can be computed again.

The first line says what was counted where (sha256 of the tracks and of the scene, frames a second, names of classes); the last one that
all was, and until when. After a kill the same command finds the events that are there, drops half a line at the end, and goes on.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from prn_jax.errors import PrnError
from prn_jax.files.structured import MAX_DATA_BYTES, load_json, read_bytes
from prn_jax.files.values import Misfit

NAME = "events.jsonl"
VERSION = 2
COUNTED = ("line", "movement", "zone")
"""Kinds of event that totals hold. The log also has a row for each track ("track") and for what zones are covered by ("cover")."""


class EventLogError(PrnError):
  """A log that belongs to another count, or is damaged."""


class Log(NamedTuple):
  """What a log holds.

  Attributes:
    header: its first line.
    events: in their order.
    until_sec: when the last frame was; of a count that has not ended, the time of its last event.
    is_whole: whether it has ended.
  """

  header: dict[str, Any]
  events: list[dict[str, Any]]
  until_sec: float
  is_whole: bool


class Writer:
  """Adds events to a log, each of which is in the file when `add` returns. Events that it holds already are compared.

  Args:
    path: the log; made if it is not there.
    header: what is counted.

  Attributes:
    found_before: events, of kinds that totals hold, that were there already.

  Raises:
    EventLogError: the log is of another count, or a whole line of it is not what it should be; also later.
  """

  def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
    self._path, self._number, self._events = path, 0, 0
    old = read_bytes(path, EventLogError, MAX_DATA_BYTES) if path.exists() else b""
    self._old = old[: old.rfind(b"\n") + 1].splitlines(keepends=True)
    self._size = sum(map(len, self._old))  # without half a line, which a kill left
    self.found_before = 0
    self._file: BinaryIO | None = None
    self._line({"version": VERSION, **header})

  def __enter__(self) -> Writer:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
  ) -> None:
    if self._file:
      self._file.close()

  def add(self, event: Mapping[str, Any]) -> None:
    """Takes the next event."""
    self._events += 1
    self.found_before += self._number < len(self._old) and event["kind"] in COUNTED
    self._line({"event": self._events, **event})

  def end(self, until_sec: float) -> None:
    """Takes the last line: all was counted, up to the frame at `until_sec`."""
    self._line({"end": self._events, "until_sec": round(until_sec, 4)})
    if self._number < len(self._old):
      self._refuse(self._number + 1)
    if self._file:
      os.fsync(self._file.fileno())

  def _line(self, row: Mapping[str, Any]) -> None:
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    self._number += 1
    if self._number <= len(self._old):
      if line != self._old[self._number - 1]:
        self._refuse(self._number)
      return
    if self._file is None:
      self._file = self._path.open("r+b" if self._path.exists() else "wb")
      self._file.truncate(self._size)
      self._file.seek(self._size)
    self._file.write(line)
    self._file.flush()

  def _refuse(self, number: int) -> None:
    raise EventLogError(
      f"{self._path}:{number} is not of this count: the log was made of other tracks, another scene or other settings, or "
      "was changed. Give another folder; a log is never written over."
    )


def read(path: Path) -> Log:
  """What a log holds.

  Raises:
    EventLogError: it cannot be read, a line is no JSON, or the first line is not that of a log.
  """
  rows = []
  for number, line in enumerate(read_bytes(path, EventLogError, MAX_DATA_BYTES).splitlines(), start=1):
    try:
      rows.append(load_json(line))
    except Misfit as error:
      raise EventLogError(f"{path}:{number} {error}.") from None
  header = rows[0] if rows and isinstance(rows[0], dict) else {}
  if header.get("version") != VERSION:
    raise EventLogError(f"{path}:1 is not the first line of a log of `prn count`, version {VERSION}.")
  events = [row for row in rows if isinstance(row, dict) and "event" in row]
  end = rows[-1] if isinstance(rows[-1], dict) and "end" in rows[-1] else None
  until = end["until_sec"] if end else max((row["time_sec"] for row in events), default=0.0)
  return Log(header, events, until, end is not None)


def totals(events: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str, str, int]]:
  """Events by kind, name, direction and class."""
  return Counter((row["kind"], row["name"], row["direction"], row["class"]) for row in events if row["kind"] in COUNTED)
