"""TFRecord files without TensorFlow: records by their number, each checked against its checksums.

A file is a row of records: length (uint64), masked CRC32C of the length, data, masked CRC32C of the data; all little
endian. There is no index, so the first read of a file goes from length to length through it, without the data.
"""

from __future__ import annotations

import bisect
import itertools
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prn_jax.data_pipelines.records import DataError

_HEAD, _TAIL = struct.Struct("<QI"), struct.Struct("<I")
_MASK = 0xA282EAD8


class FilePart(NamedTuple):
  """Records of one file: `take` of them after the first `skip`, of `total`."""

  path: Path
  skip: int
  take: int
  total: int


class TfRecords(Sequence[bytes]):
  """Records of several files by number; picklable, and safe to read from several threads.

  Args:
    parts: the files, in order. No file is opened before a record of it is read.
  """

  def __init__(self, parts: Sequence[FilePart]) -> None:
    self._parts = tuple(parts)
    self._ends = list(itertools.accumulate(part.take for part in self._parts))
    self._places: dict[Path, list[tuple[int, int]]] = {}  # start and length of every record of a file
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: Any) -> Any:
    """The data of one record.

    Raises:
      DataError: the file is missing, has another number of records, is cut off, or a checksum is wrong.
      IndexError: there is no such record.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    number = bisect.bisect_right(self._ends, index)
    part = self._parts[number]
    row = part.skip + index - (self._ends[number - 1] if number else 0)
    start, length = self._index(part)[row]
    with part.path.open("rb") as file:
      file.seek(start)
      data, tail = file.read(length), file.read(_TAIL.size)
    if len(tail) < _TAIL.size or masked_crc32c(data) != _TAIL.unpack(tail)[0]:
      raise DataError(
        f"{part.path}: record {row} is damaged (its checksum is another). Copy or prepare the file again."
      )
    return data

  def _index(self, part: FilePart) -> list[tuple[int, int]]:
    with self._lock:
      if part.path not in self._places:
        self._places[part.path] = _scan(part)
      return self._places[part.path]

  def __reduce__(self) -> tuple[Any, ...]:
    return TfRecords, (self._parts,)


def _scan(part: FilePart) -> list[tuple[int, int]]:
  """Start and length of the data of every record of a file."""
  try:
    size, file = part.path.stat().st_size, part.path.open("rb")
  except OSError as error:
    raise DataError(f"{part.path} cannot be read ({error.strerror}); it should hold {part.total} records") from None
  places: list[tuple[int, int]] = []
  place = 0
  with file:
    while place < size:
      file.seek(place)
      head = file.read(_HEAD.size)
      length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, -1)
      if masked_crc32c(head[:8]) != checksum or place + _HEAD.size + length + _TAIL.size > size:
        raise DataError(
          f"{part.path} is no TFRecord file, damaged or cut off after {len(places)} of {part.total} records (byte {place:,} "
          f"of {size:,}). Copy or prepare it again."
        )
      places.append((place + _HEAD.size, length))
      place += _HEAD.size + length + _TAIL.size
  if len(places) != part.total:
    raise DataError(f"{part.path} holds {len(places)} records; its dataset_info.json says {part.total}.")
  return places


def masked_crc32c(data: bytes) -> int:
  """The checksum of TFRecord: CRC32C, rotated right by 15 bits, plus a constant."""
  import google_crc32c

  crc = int(google_crc32c.value(data))
  return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
