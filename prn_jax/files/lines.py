"""A text file that is written line by line, and appears whole when it is closed."""

from __future__ import annotations

from pathlib import Path

from prn_jax.files.disk import written_beside


class LineFile:
  """Lines go to disk as they come, so that a long run takes no more memory than a short one.

  Args:
    path: the file; until `close` it stands beside, under another name.

  Raises:
    PrnError: see `written_beside`.
  """

  def __init__(self, path: Path) -> None:
    self.path = path
    self._beside = written_beside(path)
    self._file = self._beside.__enter__()

  def add(self, line: str) -> None:
    """Writes a line, which has its end already."""
    self._file.write(line.encode("utf-8", errors="surrogateescape"))

  def close(self) -> None:
    """The file takes its place."""
    self._beside.__exit__(None, None, None)
