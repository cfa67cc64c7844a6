"""A folder of this machine whose files appear in a bucket, for what is written by appending, which a bucket cannot."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prn_jax.errors import BucketError
from prn_jax.files.places import bucket_path, files_below, is_remote

EVERY_SEC = 30.0


class Mirror:
  """Write below `local`; what has changed is uploaded every half minute, by `push`, and at the end.

  A kill costs what was written since the last push. So who must not lose anything pushes before the step that would make
  it matter.

  Attributes:
    local: the folder itself if it is on this machine; then nothing has to be done.
  """

  def __init__(self, folder: Path, every_sec: float = EVERY_SEC) -> None:
    self._folder, self._every_sec = folder, every_sec
    self._pushed: dict[str, tuple[int, int]] = {}
    self._lock, self._closed = threading.Lock(), threading.Event()
    self._temporary: tempfile.TemporaryDirectory[str] | None = None
    self.local = folder
    if is_remote(folder):
      self._temporary = tempfile.TemporaryDirectory(prefix="prn-jax-")
      self.local = Path(self._temporary.name)
      threading.Thread(target=self._keep_pushing, name="mirror", daemon=True).start()

  def push(self) -> None:
    """Uploads every file that has changed; returns when the bucket has them.

    Raises:
      BucketError: it does not.
    """
    if self._temporary is None:
      return
    with self._lock, ThreadPoolExecutor(4) as pool:
      list(pool.map(self._push, files_below(self.local)))

  def close(self) -> None:
    """The last push."""
    if self._temporary is not None and not self._closed.is_set():
      self._closed.set()
      self.push()
      self._temporary.cleanup()
      self._temporary = None

  def _push(self, name: str) -> None:
    file = self.local / name
    found = file.stat()
    version = found.st_size, found.st_mtime_ns
    if self._pushed.get(name) != version:
      # As it is at this instant: somebody may be appending.
      bucket_path(self._folder / name).write_bytes(file.read_bytes())
      self._pushed[name] = version

  def _keep_pushing(self) -> None:
    while not self._closed.wait(self._every_sec):
      with contextlib.suppress(BucketError, FileNotFoundError):  # the next push that matters tells
        self.push()
