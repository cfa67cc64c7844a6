"""A count that is looked at while it runs: its log is read on from where the last look ended."""

from __future__ import annotations

import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any

from prn_jax.errors import printable
from prn_jax.files.structured import load_json
from prn_jax.files.values import Misfit
from prn_jax.track.event_log import COUNTED, VERSION, EventLogError
from prn_jax.track.event_log import totals as totals_of
from prn_jax.track.tables import class_name

LAST = 20
_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 8 << 20
_SHOWN = ("kind", "name", "direction", "track", "time_sec", "speed_kmh")


class Watch:
  """Totals of a log that another process writes. Looks from several threads take turns.

  Args:
    path: the log, which need not be there yet. One that is replaced by another (it is shorter, or another file) is read
      from its beginning.
  """

  def __init__(self, path: Path) -> None:
    self._path, self._lock = path, threading.Lock()
    self._begin(0)

  def look(self) -> dict[str, Any]:
    """What the log holds by now.

    Returns:
      "state" ("waiting": no log yet; "counting"; "ended"), "until_sec" (of the last row), "totals" (rows with kind, name,
      direction, class, class_name and count) and "last" (the latest events, newest first).

    Raises:
      EventLogError: the file cannot be read, or is no log of a count.
    """
    with self._lock:
      try:
        self._read_on()
      except FileNotFoundError:
        self._begin(0)
      except OSError as error:
        raise EventLogError(f"{printable(str(self._path))} cannot be read: {error.strerror}.") from None
      names = list((self._header or {}).get("class_names", []))
      rows = [
        dict(zip(("kind", "name", "direction", "class"), key, strict=True))
        | {"class_name": class_name(names, key[3]), "count": number}
        for key, number in sorted(self._totals.items())
      ]
      last = [
        {key: row[key] for key in _SHOWN if key in row} | {"class_name": class_name(names, row["class"])}
        for row in reversed(self._last)
      ]
      state = "waiting" if self._header is None else "ended" if self._is_whole else "counting"
      return {"state": state, "until_sec": self._until_sec, "totals": rows, "last": last}

  def _begin(self, inode: int) -> None:
    self._inode, self._at, self._number = inode, 0, 0
    self._header: dict[str, Any] | None = None
    self._totals: Counter[tuple[str, str, str, int]] = Counter()
    self._last: deque[dict[str, Any]] = deque(maxlen=LAST)
    self._until_sec, self._is_whole = 0.0, False

  def _read_on(self) -> None:
    status = self._path.stat()
    if status.st_ino != self._inode or status.st_size < self._at:
      self._begin(status.st_ino)
    with self._path.open("rb") as file:
      file.seek(self._at)
      rest = b""
      while chunk := file.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
          self._take(line)
          self._number, self._at = self._number + 1, self._at + len(line) + 1
        if len(rest) > _LINE_BYTES:  # half a line at the end waits for its other half
          raise self._damaged("is longer than any line of a log")

  def _take(self, line: bytes) -> None:
    try:
      row = load_json(line)
    except Misfit as error:
      raise self._damaged(str(error)) from None
    if self._header is None:
      if not isinstance(row, dict) or row.get("version") != VERSION:
        raise self._damaged(f"is not the first line of a log of `prn count`, version {VERSION}")
      self._header = row
      return
    try:
      self._add(row)
    except (KeyError, TypeError, ValueError):
      raise self._damaged("is no row of a log of `prn count`") from None

  def _add(self, row: dict[str, Any]) -> None:
    if "end" in row:
      self._until_sec, self._is_whole = float(row["until_sec"]), True
      return
    self._until_sec = max(self._until_sec, float(row["time_sec"]))
    self._totals.update(totals_of([row]))
    if row["kind"] in COUNTED:
      self._last.append({"class": int(row["class"])} | row)

  def _damaged(self, what: str) -> EventLogError:
    return EventLogError(f"{printable(str(self._path))}:{self._number + 1} {what}.")
