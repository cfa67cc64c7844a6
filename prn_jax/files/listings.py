"""What the folders of a bucket hold, remembered for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
  """In this block and thread a folder of a bucket is listed once, and answers for all names in it: a data set asks for each
  of its 100,000 images whether it exists, which would be as many requests."""
  before, _listings.known = _listings.known, {} if _listings.known is None else _listings.known
  try:
    yield
  finally:
    _listings.known = before


class _Listings(threading.local):
  known: dict[str, dict[str, str]] | None = None


_listings = _Listings()


def known_listings() -> dict[str, dict[str, str]] | None:
  """Folder -> name -> "file" or "directory" in a block of `listed_once`, to be filled; None elsewhere."""
  return _listings.known
