"""Work that a thread does in order, while others go on: drawing and writing of videos."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

MOST_WAITING = 8


class Behind:
  """A thread that does pieces of work one after the other.

  Args:
    name: the name of the thread.
  """

  def __init__(self, name: str) -> None:
    self._pieces: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
    self._error: BaseException | None = None
    self._thread = threading.Thread(target=self._work, name=name, daemon=True)
    self._thread.start()

  def do(self, piece: Callable[[], None]) -> None:
    """Takes a piece of work; waits where `MOST_WAITING` are undone. Raises what an earlier piece has raised."""
    self._raise()
    self._pieces.put(piece)

  def finish(self) -> None:
    """Waits until all is done; raises what a piece has raised. Again does nothing."""
    if self._thread.is_alive():
      self._pieces.put(None)
      self._thread.join()
    self._raise()

  def _raise(self) -> None:
    if self._error is not None:
      error, self._error = self._error, None
      raise error

  def _work(self) -> None:
    is_broken = False
    while (piece := self._pieces.get()) is not None:
      if is_broken:  # whoever puts pieces must not wait for ever
        continue
      try:
        piece()
      except BaseException as error:  # raised where the next piece is given
        self._error, is_broken = error, True
