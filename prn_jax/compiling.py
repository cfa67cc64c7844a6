"""Says that something is compiled, and how long that took last time: minutes of silence look like a program that hangs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PATIENCE_SEC = 1.5  # what is sooner ready needs no word
MOST_RECORDS = 500
RECORD = "compile_seconds.json"


def cache_folder() -> Path:
  """Where this user's compiled programs, and what is known about them, are kept."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prn_jax"


@contextlib.contextmanager
def compiling(what: str) -> Iterator[None]:
  """Says on stderr that `what` is compiled if the body takes longer than `PATIENCE_SEC`, and afterwards how long it took.

  Args:
    what: the program for people, with all that makes it another one ("yolov4 608x608, batch 1, cpu"); the time of the
      next run is foretold by it.
  """
  last = _records().get(what)
  before = f" (it took {_duration(last)} last time)" if last else ""
  timer = threading.Timer(PATIENCE_SEC, lambda: _say(f"compiling {what}{before} ..."))
  timer.daemon = True
  timer.start()
  began = time.perf_counter()
  try:
    yield
  finally:
    timer.cancel()
  seconds = time.perf_counter() - began
  if seconds > PATIENCE_SEC:
    _say(f"compiled in {_duration(seconds)}")
    _record(what, seconds)


def first_is_compiled(items: Iterable[T], what: str) -> Iterator[T]:
  """Passes `items` on; making the first one compiles `what`."""
  iterator = iter(items)
  with compiling(what):
    first = list(itertools.islice(iterator, 1))
  yield from first
  yield from iterator


def _say(text: str) -> None:
  print(f"prn: {text}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
  return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _records() -> dict[str, float]:
  """What -> seconds; empty where there is no record, or none that can be read."""
  try:
    found = json.loads((cache_folder() / RECORD).read_bytes())
    return {str(key): float(value) for key, value in found.items()}
  except (OSError, ValueError, TypeError, AttributeError, RecursionError):
    return {}


def _record(what: str, seconds: float) -> None:
  """Notes how long it took; a far shorter time than the last is that of reading the program from the cache."""
  from prn_jax.errors import PrnError
  from prn_jax.files.disk import write_text

  records = _records()
  last = records.pop(what, 0.0)
  records[what] = round(seconds if seconds > last / 4 else last, 1)
  recent = dict(list(records.items())[-MOST_RECORDS:])
  with contextlib.suppress(OSError, PrnError):  # a cache that cannot be written is none of the user's concern
    write_text(cache_folder() / RECORD, json.dumps(recent))
