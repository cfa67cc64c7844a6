"""The log of events: JSON lines that are only ever added, from which every total can be computed again.

The first line says what was counted where (sha256 of the tracks and of the scene, frames a second); the last one that
all was. After a kill the same command finds the events that are there, drops half a line at the end, and goes on.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.files.structured import MAX_DATA_BYTES, load_json, read_bytes
from prn_jax.files.values import Misfit

NAME = "events.jsonl"
VERSION = 1


class EventLogError(PrnError):
  """A log that belongs to another count, or is damaged."""


def complete(path: Path, header: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> int:
  """Brings the log to hold exactly these events.

  Args:
    path: the log; made if it is not there.
    header: what was counted.
    events: all of them, in their order.

  Returns:
    how many of the lines were there already.

  Raises:
    EventLogError: the log is of another count, or a whole line of it is not what it should be.
  """
  rows: list[Mapping[str, Any]] = [{"version": VERSION, **header}]
  rows += [{"event": number, **event} for number, event in enumerate(events, start=1)]
  rows.append({"end": len(events)})
  lines = [(json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows]
  old = read_bytes(path, EventLogError, MAX_DATA_BYTES) if path.exists() else b""
  there = old[: old.rfind(b"\n") + 1].splitlines(keepends=True)
  for number, line in enumerate(there):
    if number >= len(lines) or line != lines[number]:
      raise EventLogError(
        f"{path}:{number + 1} is not of this count: the log was made of other tracks, another scene or other settings, or "
        "was changed. Give another folder; a log is never written over."
      )
  with path.open("r+b" if path.exists() else "w+b") as file:
    file.truncate(sum(map(len, there)))  # half a line, which a kill left
    file.seek(0, os.SEEK_END)
    for line in lines[len(there) :]:
      file.write(line)
    file.flush()
    os.fsync(file.fileno())
  return len(there)


def read(path: Path) -> list[dict[str, Any]]:
  """The events of a log.

  Raises:
    EventLogError: it cannot be read, or a line is no JSON.
  """
  found = []
  for number, line in enumerate(read_bytes(path, EventLogError, MAX_DATA_BYTES).splitlines(), start=1):
    try:
      row = load_json(line)
    except Misfit as error:
      raise EventLogError(f"{path}:{number} {error}.") from None
    if isinstance(row, dict) and "event" in row:
      found.append(row)
  return found


def totals(events: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str, str, int]]:
  """Events by kind, name, direction and class."""
  return Counter((row["kind"], row["name"], row["direction"], row["class"]) for row in events)
