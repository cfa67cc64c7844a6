"""Files inside .zip and .tar archives, read without unpacking.

Nothing is written to disk, so no member can land anywhere. Members of .zip and plain .tar are read where they lie; a
compressed .tar can only be read from its start, so what is wanted of it is kept in memory, up to `MAX_MEMORY_BYTES`.
"""

from __future__ import annotations

import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.records import DataError, ProblemLog

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
MAX_MEMBER_BYTES = 256 * 2**20
MAX_MEMORY_BYTES = 4 * 2**30

Wanted = Callable[[str], bool]


class Entry(NamedTuple):
  """One member as the archive lists it: `fault` says why it cannot be read, `start` is its place in a plain tar."""

  name: str
  size: int
  fault: str | None = None
  start: int = 0


class _Files(Protocol):
  """One kind of archive."""

  def entries(self) -> Iterator[Entry]: ...

  def read(self, entry: Entry) -> bytes: ...


def is_archive(path: Path) -> bool:
  """Whether the name is one of an archive."""
  return path.name.lower().endswith(ARCHIVE_SUFFIXES)


class Archive:
  """The wanted files of an archive by name; picklable, and safe to read from several threads.

  Args:
    path: the archive; its name says which kind it is.
    is_wanted: chooses members by name.
    log: follows the policy for members that cannot be used: names that lead out of the archive, repeated names,
      links, encrypted and oversized ones.

  Raises:
    DataError: the archive is missing, damaged, or too large to keep.
  """

  def __init__(self, path: Path, is_wanted: Wanted, log: ProblemLog) -> None:
    self.path = path
    lower = path.name.lower()
    self._files: _Files = (
      _Zip(path)
      if lower.endswith(".zip")
      else _PlainTar(path)
      if lower.endswith(".tar")
      else _PackedTar(path, is_wanted)
    )
    self._entries: dict[str, Entry] = {}
    try:
      for entry in self._files.entries():
        if is_wanted(entry.name):
          self._add(entry, log)
    except DataError:
      raise
    except FileNotFoundError:
      raise DataError(f"there is no archive {path}") from None
    except Exception as error:  # what the decompressors raise is not a closed list
      raise DataError(
        f"{path} is truncated, damaged or no such archive ({error}). Copy or download it again."
      ) from error

  def _add(self, entry: Entry, log: ProblemLog) -> None:
    parts = PurePosixPath(entry.name.replace("\\", "/")).parts
    fault, check = entry.fault, Check.MEMBER_REFUSED
    if ".." in parts or entry.name.startswith(("/", "\\")) or ":" in parts[0]:
      fault = "has a name that leads out of the archive"
    elif entry.size > MAX_MEMBER_BYTES:
      fault = f"has {entry.size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read"
    elif entry.name in self._entries:
      fault, check = "occurs twice", Check.MEMBER_DUPLICATE
    if fault is None:
      self._entries[entry.name] = entry
    else:
      log.report(self.path, None, f"member '{entry.name}' {fault}", check, "the member is left out")

  @property
  def names(self) -> tuple[str, ...]:
    """Wanted members, sorted."""
    return tuple(sorted(self._entries))

  def read(self, name: str) -> bytes:
    """The bytes of one member.

    Raises:
      DataError: the archive is damaged, or has changed since it was opened.
    """
    entry = self._entries[name]
    try:
      data = self._files.read(entry)
    except Exception as error:  # as above
      raise DataError(f"{self.path}: member '{name}' cannot be read ({error}). Copy the archive again.") from error
    if len(data) != entry.size:
      raise DataError(
        f"{self.path}: member '{name}' has {len(data):,} of its {entry.size:,} bytes. Copy the archive again."
      )
    return data


class _Zip:
  def __init__(self, path: Path) -> None:
    self._path = path
    self._open: zipfile.ZipFile | None = None
    self._lock = threading.Lock()

  def entries(self) -> Iterator[Entry]:
    with zipfile.ZipFile(self._path) as file:
      for info in file.infolist():
        if not info.is_dir():
          fault = "is encrypted; unpack the archive" if info.flag_bits & 1 else None
          yield Entry(info.filename, info.file_size, fault)

  def read(self, entry: Entry) -> bytes:
    with self._lock:
      if self._open is None:
        self._open = zipfile.ZipFile(self._path)
      return self._open.read(entry.name)

  def __reduce__(self) -> tuple[Any, ...]:
    return _Zip, (self._path,)


class _PlainTar:
  def __init__(self, path: Path) -> None:
    self._path = path

  def entries(self) -> Iterator[Entry]:
    with tarfile.open(self._path, "r:") as file:
      for info in file:
        if not info.isdir():
          yield Entry(info.name, info.size, _tar_fault(info), info.offset_data)

  def read(self, entry: Entry) -> bytes:
    with self._path.open("rb") as file:
      file.seek(entry.start)
      return file.read(entry.size)


class _PackedTar:
  def __init__(self, path: Path, is_wanted: Wanted) -> None:
    self._path, self._is_wanted = path, is_wanted
    self._kept: dict[str, bytes] | None = None
    self._lock = threading.Lock()

  def entries(self) -> Iterator[Entry]:
    kept: dict[str, bytes] = {}
    for entry, data in self._read_all():
      kept.setdefault(entry.name, data)
      yield entry
    self._kept = kept

  def read(self, entry: Entry) -> bytes:
    with self._lock:
      if self._kept is None:  # a copy in another process
        self._kept = {}
        for found, data in self._read_all():
          self._kept.setdefault(found.name, data)
    return self._kept[entry.name]

  def _read_all(self) -> Iterator[tuple[Entry, bytes]]:
    total = 0
    with tarfile.open(self._path, "r|*") as file:
      for info in file:
        if info.isdir() or not self._is_wanted(info.name):
          continue
        fault = _tar_fault(info)
        content = file.extractfile(info) if fault is None and info.size <= MAX_MEMBER_BYTES else None
        data = content.read() if content else b""
        total += len(data)
        if total > MAX_MEMORY_BYTES:
          raise DataError(
            f"{self._path} holds more than {MAX_MEMORY_BYTES / 2**30:g} GiB; a compressed tar is read into memory. "
            "Unpack it, or repack it as .tar or .zip."
          )
        yield Entry(info.name, info.size, fault), data

  def __reduce__(self) -> tuple[Any, ...]:
    return _PackedTar, (self._path, self._is_wanted)


def _tar_fault(info: tarfile.TarInfo) -> str | None:
  return None if info.isreg() else "is a link or device; only files are read"
