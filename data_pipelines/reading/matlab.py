"""MATLAB's files of version 5 to 7: numbers, text, cells and structs. SciPy reads more of them, but damaged ones can end its
process; this reader bounds what it takes and raises `Misfit`.

Source: MathWorks, "MAT-File Format", version 5.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from prn_jax.files.values import Misfit

MAX_BYTES = 16 << 20
"""Of what a compressed variable unpacks to."""
_HEADER_BYTES = 128
_HEAD_BYTES = 40  # of a matrix of two dimensions without a name
_TAG_BYTES = 8
_MAX_DEPTH = 8
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _TEXT, _NUMBERS = 1, 2, 4, range(6, 16)
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_LETTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


def load_mat(data: bytes) -> dict[str, Any]:
  """The variables of a file by their names.

  Returns:
    Numbers as arrays of MATLAB's shape, a row of text as str and several as a list of them, cells as lists, structs as
    lists of dicts (one each), column by column; None for all else.

  Raises:
    Misfit: it is no such file, or damaged; the text goes on after the name.
  """
  if data.startswith(b"\x89HDF") or data[:19] == b"MATLAB 7.3 MAT-file":
    raise Misfit("is a MATLAB file of version 7.3; save it with -v7")
  order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER_BYTES])
  if order is None:
    raise Misfit("is no MATLAB file of version 5 to 7")
  try:
    return dict(_variables(data, order))
  except (struct.error, ValueError, IndexError, zlib.error, OverflowError) as error:
    if isinstance(error, Misfit):
      raise
    raise Misfit("is a damaged MATLAB file") from None


def _variables(data: bytes, order: str) -> list[tuple[str, Any]]:
  found = []
  position = _HEADER_BYTES
  while position < len(data):
    kind, content, position = _element(data, position, order)
    if kind == _COMPRESSED:
      unpacker = zlib.decompressobj()
      unpacked = unpacker.decompress(content, MAX_BYTES)
      if unpacker.unconsumed_tail:
        raise Misfit(f"unpacks to more than {MAX_BYTES:,} bytes")
      kind, content, _ = _element(unpacked, 0, order)
    if kind == _MATRIX:
      found.append(_matrix(content, order, 0))
  return found


def _element(data: bytes, position: int, order: str) -> tuple[int, bytes, int]:
  """The type and content of the element at `position`, and where the next one begins."""
  kind, size = struct.unpack_from(f"{order}II", data, position)
  start = position + 8
  if kind >> 16:  # both in four bytes, before up to four of content
    kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
  if start + size > len(data) or (start == position + 4 and size > 4):
    raise Misfit("is a damaged MATLAB file: it ends too early")
  end = start + size
  following = position + 8 if start == position + 4 else end if kind == _COMPRESSED else end + -size % 8
  return kind, data[start:end], following


def _matrix(data: bytes, order: str, depth: int) -> tuple[str, Any]:
  """The name and the value of a matrix."""
  if depth > _MAX_DEPTH:
    raise Misfit("is nested too deeply")
  if not data:
    return "", None
  try:  # of most matrices this is all, and nearly all have the same
    kind, shape, count, name, position = _head(data[:_HEAD_BYTES], order)
  except (Misfit, struct.error):
    kind, shape, count, name, position = _head.__wrapped__(data, order)
  value: Any = None
  if not 0 <= count <= len(data):
    raise Misfit(f"holds a matrix of {'x'.join(map(str, shape))}, more than its bytes")
  if kind in _NUMBERS:
    stored, content, _ = _element(data, position, order)
    value = np.frombuffer(content, f"{order}{_TYPES.get(stored, 'V0')}", count).reshape(shape, order="F")
  elif kind == _TEXT:
    stored, content, _ = _element(data, position, order)
    value = _rows(content.decode(_letters(stored, order)), shape)
  elif kind == _CELL:
    value, _ = _matrices(data, position, order, depth, count)
  elif kind == _STRUCT:
    _, width, position = _element(data, position, order)
    _, text, position = _element(data, position, order)
    names = _field_names(text, struct.unpack(f"{order}i", width)[0])
    values, _ = _matrices(data, position, order, depth, count * len(names))
    value = [dict(zip(names, values[i * len(names) :], strict=False)) for i in range(count)]
  return name, value


def _letters(stored: int, order: str) -> str:
  """Python's name of an encoding; that of wide letters says their order."""
  name = _LETTERS.get(stored)
  if name is None:
    raise Misfit(f"is a damaged MATLAB file: type {stored} is none of text")
  return name + {"<": "-le", ">": "-be"}[order] if name in ("utf-16", "utf-32") else name


def _rows(text: str, shape: tuple[int, ...]) -> str | list[str]:
  """A matrix of letters, which lie column by column. A letter outside of 16 bits counts as two for MATLAB."""
  if len(shape) != 2 or shape[0] == 1 or not text:
    return text
  if len(text) != math.prod(shape):
    raise Misfit(f"is a damaged MATLAB file: {len(text)} letters of {shape[0]}x{shape[1]}")
  return [text[row :: shape[0]] for row in range(shape[0])]


@functools.lru_cache(256)
def _head(data: bytes, order: str) -> tuple[int, tuple[int, ...], int, str, int]:
  """The class, shape, number of elements (-1 where a side is negative) and name of a matrix, and where its content begins."""
  _, flags, position = _element(data, 0, order)
  kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
  _, sides, position = _element(data, position, order)
  shape = tuple(int(side) for side in np.frombuffer(sides, f"{order}i4"))
  _, name, position = _element(data, position, order)
  count = -1 if min(shape, default=0) < 0 else math.prod(shape)
  return kind, shape, count, name.decode("ascii", "replace"), position


@functools.lru_cache(256)
def _field_names(text: bytes, width: int) -> list[str]:
  """The names of a struct's fields, each of `width` bytes with a zero behind it."""
  step = max(1, width)
  return [text[i : i + step].split(b"\0")[0].decode("ascii", "replace") for i in range(0, len(text), step)]


class _Plain(NamedTuple):
  """A whole element that is a matrix of numbers: their type, number and shape, and its bytes."""

  dtype: np.dtype[Any]
  length: int
  shape: tuple[int, ...]
  num_bytes: int


@functools.lru_cache(1024)
def _plain(start: bytes, order: str) -> _Plain | None:
  """What begins with tag, head and tag of the numbers of a matrix without a name, which nearly all in a struct are and
  many alike; None of all else, of which `_element` and `_matrix` look at every part."""
  try:
    kind, size = struct.unpack_from(f"{order}II", start)
    number_class, shape, count, name, end = _head.__wrapped__(start[_TAG_BYTES:-_TAG_BYTES], order)
    stored, num_bytes = struct.unpack_from(f"{order}II", start, _TAG_BYTES + _HEAD_BYTES)
  except (Misfit, struct.error, ValueError, OverflowError):
    return None
  if kind != _MATRIX or number_class not in _NUMBERS or name or end != _HEAD_BYTES or stored not in _TYPES:
    return None
  dtype = np.dtype(f"{order}{_TYPES[stored]}")
  is_whole = num_bytes == count * dtype.itemsize and size == _HEAD_BYTES + _TAG_BYTES + num_bytes + -num_bytes % 8
  return _Plain(dtype, count, shape, _TAG_BYTES + size) if is_whole else None


def _matrices(data: bytes, position: int, order: str, depth: int, count: int) -> tuple[list[Any], int]:
  values: list[Any] = []
  for _ in range(count):
    numbers_at = position + 2 * _TAG_BYTES + _HEAD_BYTES
    plain = _plain(data[position:numbers_at], order)
    if plain is not None and depth < _MAX_DEPTH and position + plain.num_bytes <= len(data):
      values.append(np.frombuffer(data, plain.dtype, plain.length, numbers_at).reshape(plain.shape, order="F"))
      position += plain.num_bytes
      continue
    kind, content, position = _element(data, position, order)
    if kind != _MATRIX:
      raise Misfit("is a damaged MATLAB file: a cell or field holds no matrix")
    values.append(_matrix(content, order, depth + 1)[1])
  return values, position
