"""Writing files, here or in a bucket, so that a kill leaves either the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from prn_jax.errors import BucketError, PrnError
from prn_jax.files.places import bucket_path, is_remote

_ALIGNMENT_BYTES = 64


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
  """Opens a temporary file in the folder of `path`; at the end it takes the place of `path` in one step.

  Raises:
    PrnError: the place cannot be written: no permission, no space, a folder of that name, ...
  """
  if is_remote(path):  # an upload is one step
    with tempfile.NamedTemporaryFile(prefix="prn-jax-") as temporary:
      yield cast(BinaryIO, temporary)
      temporary.flush()
      bucket_path(path).upload(temporary.name)
    return
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
  except OSError as error:
    raise _cannot_write(path, error) from error
  try:
    with os.fdopen(handle, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)  # mkstemp gives 0600
    os.replace(name, path)
  except BaseException as error:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(name)
    if isinstance(error, OSError) and error.filename in (None, name):  # ours, not of a file that the caller reads
      raise _cannot_write(path, error) from error
    raise


def _cannot_write(path: Path, error: OSError) -> PrnError:
  return PrnError(f"cannot write '{path}': {error.strerror or error}. Nothing was changed there.")


def check_utf8(path: Path, error: type[PrnError] = PrnError) -> None:
  """Raises `error` for a name that is no text: the libraries that store arrays take only UTF-8."""
  try:
    str(path).encode()
  except UnicodeEncodeError:
    raise error(f"the name '{path}' is no UTF-8 text, which arrays are stored under. Choose another place.") from None


def is_file(path: Path) -> bool:
  """`Path.is_file`; False, not an error, for a name that no file can have: too long, or with a NUL."""
  return _asked(path.is_file)


def is_folder(path: Path) -> bool:
  """`Path.is_dir`; False, not an error, for a name that no folder can have: too long, or with a NUL."""
  return _asked(path.is_dir)


def is_there(path: Path) -> bool:
  """`Path.exists`; False, not an error, for a name that nothing can have: too long, or with a NUL."""
  return _asked(path.exists)


def _asked(question: Callable[[], bool]) -> bool:
  try:
    return question()
  except BucketError:  # nobody knows
    raise
  except ValueError:
    return False
  except OSError as error:
    if error.errno == errno.ENAMETOOLONG:
      return False
    raise


def check_space(folder: Any, num_bytes: int) -> None:
  """Raises PrnError where a disk has no room for so many bytes. What writes them in many threads and files would leave
  hundreds of lines, and a part of them, before it says so. Of a `folder` in a store elsewhere nothing is asked."""
  if not isinstance(folder, Path):
    return
  place = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
  try:
    free = shutil.disk_usage(place or ".").free
  except OSError:  # a system that does not tell
    return
  if free < num_bytes:
    raise PrnError(
      f"cannot write '{folder}': {os.strerror(errno.ENOSPC)}. It takes {num_bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB "
      "are free. Nothing was changed there; free some space, or write elsewhere."
    )


def write_text(path: Path, text: str) -> None:
  """Writes a text file in one step. Undecodable bytes of a cfg come back as they were."""
  with written_beside(path) as file:
    file.write(text.encode("utf-8", errors="surrogateescape"))


def set_aside(path: Path) -> Path:
  """Renames a damaged file to FILE.damaged, or FILE.damaged-2, ...; returns where it now is."""
  for number in itertools.count(1):
    place = path.with_name(f"{path.name}.damaged{'' if number == 1 else f'-{number}'}")
    if not place.exists():
      path.rename(place)
      break
  return place


def sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
  """An uninitialised float32 array that JAX's CPU backend can use in place: it copies what is not aligned so."""
  size = 4 * math.prod(shape)
  buffer = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
  start = -buffer.ctypes.data % _ALIGNMENT_BYTES
  return buffer[start : start + size].view(np.float32).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
  """The array itself if it is contiguous and aligned, else a float32 copy that is."""
  if array.dtype == np.float32 and array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT_BYTES == 0:
    return array
  copy = aligned_empty(array.shape)
  copy[...] = array
  return copy
