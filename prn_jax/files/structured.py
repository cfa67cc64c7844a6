"""Reading structured text that somebody else, or a damaged disk, has written: JSON, YAML, XML, and lists of lines.

Three steps, and no reader of a file of this kind takes another way:

1. bytes -> text: `read_text`, `read_lines`. UTF-8 with or without mark; UTF-16 and UTF-32; what XML declares.
2. text -> tree: `read_json`, `read_yaml`, `read_xml`. Size, depth and number of values are bounded before they cost
   time or memory; whatever the parsers raise becomes one error that names the file and the line.
3. tree -> values (`prn_jax.files.values`): `Node` knows its file and key, and gives text, whole numbers, finite numbers, truth values, lists and
   mappings, or an error that says what stands there and what was expected. Other tools write 1 as "1" or 1.0, and
   false as 0, "0", "False" or "no": their meaning is plain, so they are read.

    data = read_yaml(Path("data.yaml"), DataError)
    count = data["nc"].whole(1, 100_000)    # data.yaml: nc is 'two'; expected a whole number from 1 to 100000.

Where a file holds millions of values, or bad ones are counted and left out, `whole_of(value)`, `load_xml(data)` and
their like do the same without a `Node`; they raise `Misfit`, whose text goes on after the name.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol
from xml.etree import ElementTree

from prn_jax.errors import PrnError
from prn_jax.files.values import Mark, Misfit, Node, shown

MAX_BYTES = 4 << 20
"""Of a file that is not data by the million: whatever is in it costs a second or two, and less than half a gigabyte."""
MAX_XML_BYTES = 2 << 20
MAX_DATA_BYTES = 4 << 30
"""Of annotations and lists, whose cost is that of their size."""
MAX_DEPTH = 100
_YAML_BYTES = {True: 1 << 20, False: 64 << 10}
"""With libyaml, and with PyYAML's own parser, which is slow."""
_MAX_YAML_VALUES = 100_000
_CHUNK_BYTES = 1 << 20
_YAML_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_YAML_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Encodings whose name is written where a wider one is meant."""
_NO_TEXT = frozenset(("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"))


class Readable(Protocol):
  """A place to read from: a `pathlib.Path`, or a path in a bucket."""

  def read_bytes(self) -> bytes: ...


# -- bytes and text --------------------------------------------------------------------------------
def load_bytes(path: Readable, max_bytes: int = MAX_BYTES) -> bytes:
  """The content of a file; Misfit where it cannot be read, or is longer, which is seen before it is in memory."""
  try:
    data = _load_local(path, max_bytes) if isinstance(path, Path) else path.read_bytes()
  except PrnError:  # of a bucket that did not answer: says nothing of the file
    raise
  except (OSError, ValueError) as error:  # ValueError: a name with a NUL, or with half a character
    raise Misfit(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
  if len(data) > max_bytes:
    raise Misfit(f"holds more than {max_bytes:,} bytes, the most that are read of such a file")
  return data


def _load_local(path: Path, max_bytes: int) -> bytes:
  with path.open("rb") as file:
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= max_bytes:
      return file.read()
    chunks, size = [], 0
    while size <= max_bytes and (chunk := file.read(_CHUNK_BYTES)):  # a device or a pipe need not end
      chunks.append(chunk)
      size += len(chunk)
  return b"".join(chunks)


def load_text(path: Readable, max_bytes: int = MAX_BYTES) -> str:
  """The text of a file; Misfit as for `load_bytes`, and where it is no text."""
  return decode(load_bytes(path, max_bytes))


def decode(data: bytes) -> str:
  """Text of UTF-8 with or without mark, of UTF-16 or UTF-32 with its mark, or of UTF-16 that can be nothing else;
  Misfit for all else."""
  if (text := decode_utf16(data)) is not None:
    return text
  try:
    return data.decode(_marked_encoding(data) or "utf-8")
  except UnicodeDecodeError as error:
    said = error.encoding.upper()
    raise Misfit(f"is no text: byte {error.start} is no {said}; expected UTF-8, or UTF-16 with its mark") from None


def decode_utf16(data: bytes) -> str | None:
  """The text of UTF-16, with its mark or without; None for all else.

  Without a mark it is recognised by the zeros that every line end and ASCII letter has: all at even or all at odd
  places, and nothing but printable text when they are read so.
  """
  marked = _marked_encoding(data) == "utf-16"
  is_high_zero, is_low_zero = b"\0" in data[1::2], b"\0" in data[0::2]
  if not marked and (len(data) % 2 or is_high_zero == is_low_zero):
    return None
  try:
    text = data.decode("utf-16" if marked else "utf-16-le" if is_high_zero else "utf-16-be")
  except UnicodeDecodeError:
    return None
  is_text = all(char in "\r\n\t" or unicodedata.category(char) not in ("Cc", "Cn", "Co", "Cs") for char in set(text))
  return text if marked or is_text else None


def _marked_encoding(data: bytes) -> str | None:
  for mark, encoding in (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
  ):
    if data.startswith(mark):
      return encoding
  return None


def read_bytes(path: Readable, error: type[PrnError] = PrnError, max_bytes: int = MAX_BYTES, advice: str = "") -> bytes:
  """The content of a file.

  Args:
    path: a `Path`, or anything that has `read_bytes`.
    error: raised for all that goes wrong, with the file's name.
    max_bytes: a longer file is refused before it is held in memory.
    advice: what every message ends in.
  """
  with _named(str(path), error, advice):
    return load_bytes(path, max_bytes)


def read_text(path: Readable, error: type[PrnError] = PrnError, max_bytes: int = MAX_BYTES, advice: str = "") -> str:
  """The text of a file; the arguments are those of `read_bytes`."""
  with _named(str(path), error, advice):
    return load_text(path, max_bytes)


def read_lines(
  path: Readable, error: type[PrnError] = PrnError, max_bytes: int = MAX_DATA_BYTES, advice: str = ""
) -> list[str]:
  """The lines of a list, without their ends; only line feed and carriage return end a line."""
  return split_lines(read_text(path, error, max_bytes, advice))


def split_lines(text: str) -> list[str]:
  """Lines as editors see them: `str.splitlines` also ends a line at marks that names may hold."""
  lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
  return lines[:-1] if not lines[-1] else lines


@contextlib.contextmanager
def _named(file: str, error: type[PrnError], advice: str) -> Iterator[None]:
  """Turns Misfit into `error`, with file and line."""
  try:
    yield
  except Misfit as misfit:
    place = file if misfit.line is None else f"{file}:{misfit.line}"
    raise Node(None, place, "", error, advice).fault(str(misfit)) from misfit


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
  """Parsers make containers by the million and no garbage: searching for it doubles the time of a large file, and in
  a process whose heap is large makes it ten times as long. Around a loop over files once, it need not begin anew."""
  was_on = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_on:
      gc.enable()


# -- JSON ------------------------------------------------------------------------------------------
def read_json(path: Readable, error: type[PrnError] = PrnError, max_bytes: int = MAX_BYTES, advice: str = "") -> Node:
  """The tree of a JSON file; the arguments are those of `read_bytes`."""
  return parse_json(read_text(path, error, max_bytes, advice), str(path), error, advice)


def parse_json(data: str | bytes, file: str, error: type[PrnError] = PrnError, advice: str = "") -> Node:
  """The tree of JSON; `file` is what messages call it."""
  with _named(file, error, advice):
    return Node(load_json(data), file, "", error, advice)


def load_json(data: str | bytes) -> Any:
  """The value of JSON; Misfit where it is none. The depth is looked at up to `MAX_BYTES`."""
  text = decode(data) if isinstance(data, bytes) else data
  try:
    with no_collections():
      raw = json.loads(text)
  except json.JSONDecodeError as error:
    raise Misfit(f"is no valid JSON: {error.msg} at column {error.colno}", error.lineno) from None
  except RecursionError:
    raise Misfit("is nested too deeply") from None
  except ValueError:
    raise Misfit("holds a number of thousands of digits") from None
  if len(text) <= MAX_BYTES and _is_deep(raw):
    raise Misfit(f"is nested more than {MAX_DEPTH} levels deep")
  return raw


def _is_deep(raw: Any) -> bool:
  level = [raw]
  for _ in range(MAX_DEPTH):
    inner = (value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list))
    level = [value for values in inner for value in values if isinstance(value, dict | list)]
    if not level:
      return False
  return True


# -- YAML ------------------------------------------------------------------------------------------
def read_yaml(path: Readable, error: type[PrnError] = PrnError, advice: str = "") -> Node:
  """The tree of a YAML file. Every scalar is text as it was written (yes stays yes, 007 stays 007), null is None; the
  typed access of `Node` reads numbers and truth values from it. Tags that make objects are refused."""
  import yaml

  limit = _YAML_BYTES[yaml.__with_libyaml__]
  return parse_yaml(read_text(path, error, limit, advice), str(path), error, advice)


def parse_yaml(text: str, file: str, error: type[PrnError] = PrnError, advice: str = "") -> Node:
  """The tree of YAML text; `file` is what messages call it."""
  with _named(file, error, advice):
    value, mark = _load_yaml(text)
    return Node(value, file, "", error, advice, mark)


def _load_yaml(text: str) -> tuple[Any, Mark | None]:
  import yaml

  try:
    return _YamlTree(text).root()
  except yaml.YAMLError as error:
    mark = getattr(error, "problem_mark", None)
    line = (
      None if mark is None else max(1, min(mark.line + 1, len(split_lines(text))))
    )  # the end may be called the line after it
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)  # the second: of one character
    raise Misfit(f"is no valid YAML: {problem}", line) from None
  except RecursionError:
    raise Misfit("is nested too deeply") from None


class _YamlTree:
  """Builds the tree from PyYAML's events, whose number and depth it bounds."""

  def __init__(self, text: str) -> None:
    import yaml

    self._yaml = yaml
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    self._events: Iterator[Any] = iter(yaml.parse(text, Loader=loader))
    self._anchors: dict[str, tuple[Any, int]] = {}
    self._count = 0

  def root(self) -> tuple[Any, Mark | None]:
    """The value of the document, and where its parts stand; that of a key stands where the key does."""
    events = self._yaml.events
    value: Any = None
    mark: Mark | None = None
    num_documents = 0
    for event in self._events:
      if isinstance(event, events.DocumentStartEvent):
        num_documents += 1
        if num_documents > 1:
          self._refuse(event, "more than one document")
        value, mark = self._value(next(self._events), 0)
    return value, mark

  def _value(self, event: Any, depth: int) -> tuple[Any, Mark]:
    mark = Mark(event.start_mark.line + 1, {})
    events, start = self._yaml.events, self._count
    self._count += 1
    if isinstance(event, events.AliasEvent):
      if event.anchor not in self._anchors:
        self._refuse(event, f"the alias {shown(event.anchor)} stands for nothing before it")
      value, size = self._anchors[event.anchor]
      self._count += size  # what the text would hold without aliases
    else:
      if event.tag is not None and event.tag not in _YAML_TAGS and event.tag != "!":
        self._refuse(event, f"the tag {shown(event.tag)} makes an object; expected plain values")
      if isinstance(event, events.ScalarEvent):
        value = None if event.implicit[0] and event.value in _YAML_NULL else event.value
      elif isinstance(event, events.SequenceStartEvent):
        value = []
        for index, one in enumerate(self._until(events.SequenceEndEvent, event, depth)):
          inner, mark.inner[index] = self._value(one, depth + 1)
          value.append(inner)
      else:
        value = self._mapping(event, depth, mark)
      if event.anchor is not None:
        self._anchors[event.anchor] = value, self._count - start
    if self._count > _MAX_YAML_VALUES:
      self._refuse(event, f"more than {_MAX_YAML_VALUES:,} values, aliases counted")
    return value, mark

  def _until(self, end: Any, start: Any, depth: int) -> Iterator[Any]:
    if depth >= MAX_DEPTH:
      self._refuse(start, f"nested more than {MAX_DEPTH} levels deep")
    for event in self._events:
      if isinstance(event, end):
        return
      yield event

  def _mapping(self, start: Any, depth: int, mark: Mark) -> dict[str, Any]:
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for event in self._until(self._yaml.events.MappingEndEvent, start, depth):
      key, at = self._value(event, depth + 1)
      value, below = self._value(next(self._events), depth + 1)
      if not isinstance(key, str):
        self._refuse(event, f"the key {shown(key)} is no text")
      if key == "<<":
        for one in value if isinstance(value, list) else [value]:
          if not isinstance(one, dict):
            self._refuse(event, f"'<<' merges {shown(one)}; expected keys with values")
          merged = one | merged
      elif key in found:
        self._refuse(event, f"the key {shown(key)} occurs twice")
      else:
        found[key] = value
        mark.inner[key] = Mark(at.line, below.inner)
    return merged | found

  def _refuse(self, event: Any, problem: str) -> NoReturn:
    raise self._yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


# -- XML -------------------------------------------------------------------------------------------
def load_xml(data: bytes) -> ElementTree.Element:
  """The root of XML, whose text has the encoding that it declares; Misfit where it is none or declares entities."""
  text = decode_xml(data)
  if "<!ENTITY" in text:
    raise Misfit("declares entities of its own; expected plain XML")
  try:
    with no_collections():
      root: ElementTree.Element = ElementTree.fromstring(text)
  except ElementTree.ParseError as error:
    raise Misfit(f"is no valid XML: {error}", error.position[0]) from None
  level = [root]
  for _ in range(MAX_DEPTH):
    level = [child for parent in level for child in parent]
    if not level:
      return root
  raise Misfit(f"is nested more than {MAX_DEPTH} levels deep")


def read_xml(
  path: Readable, error: type[PrnError] = PrnError, max_bytes: int = MAX_XML_BYTES, advice: str = ""
) -> ElementTree.Element:
  """The root of an XML file; see `load_xml` and `read_bytes`."""
  with _named(str(path), error, advice):
    return load_xml(load_bytes(path, max_bytes))


def decode_xml(data: bytes) -> str:
  """The text of an XML file.

  Raises:
    Misfit: the encoding that it declares is unknown, or not the one that it has.
  """
  encoding = _marked_encoding(data)
  if encoding is None:
    encoding = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(data[:2])
  declared = re.match(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([^"'>]{1,60})["']""", data[:400])
  if encoding is None and declared:
    encoding = _text_encoding(declared[1].decode("ascii", "replace"))
  encoding = encoding or "utf-8"
  # A declaration may be wrong, and then it is UTF-8, or one for the other (GB2312 for GB18030), as browsers know.
  for option in dict.fromkeys((encoding, "utf-8", _WIDER.get(encoding, encoding))):
    with contextlib.suppress(UnicodeDecodeError):
      return data.decode(option)
  said = f"it declares the encoding {encoding}, but is not of it" if declared else "it declares no encoding"
  raise Misfit(f"is no text: {said}, and it is no UTF-8")


def _text_encoding(name: str) -> str:
  try:
    found = codecs.lookup(name)
  except (LookupError, ValueError):
    found = None
  if found is None or found.name in _NO_TEXT or not getattr(found, "_is_text_encoding", True):
    raise Misfit(f"declares the encoding {shown(name)}, which is not known; save it as UTF-8")
  # A declaration that can be read byte by byte is in no wide encoding: the text was written as UTF-8.
  return "utf-8" if found.name.startswith(("utf-16", "utf-32")) else found.name
