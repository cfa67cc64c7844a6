"""The lines of files that parsers have lost: those of XML and JSON are wanted only once something is wrong with an entry."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

from prn_jax.data_pipelines.records import Place
from prn_jax.files.structured import MAX_DATA_BYTES, MAX_XML_BYTES, decode_xml, load_bytes, load_text

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def text_of_place(place: Place) -> str:
  """FILE:LINE, or the file and what messages call the entry where the format has no lines or keeps all in one."""
  line = place.line or (_line(place.file, place.way) if place.way else None)
  said = place.prefix.rstrip(": ")
  if line is None:
    return f"{place.file}: {said}"
  return f"{place.file}:{line}"


def _line(file: Path, way: Sequence[str | int]) -> int | None:
  if file.suffix.lower() == ".xml":
    tag, number = way
    return line_of(file, str(tag), int(number), MAX_DATA_BYTES)
  line = json_line(load_text(file, MAX_DATA_BYTES), way)
  return None if line == 1 else line


def line_of(path: Path, tag: str, number: int, max_bytes: int = MAX_XML_BYTES) -> int | None:
  """The line in which the element `tag` of an XML file begins for the `number`th time."""
  lines: list[int] = []
  parser = expat.ParserCreate()

  def start(name: str, attributes: dict[str, str]) -> None:
    if name == tag:
      lines.append(parser.CurrentLineNumber)

  parser.StartElementHandler = start
  parser.Parse(decode_xml(load_bytes(path, max_bytes)), True)
  return lines[number - 1] if number <= len(lines) else None


def json_line(text: str, way: Sequence[str | int]) -> int:
  """The line in which a value of valid JSON begins.

  Args:
    text: the whole file.
    way: keys, and positions from 0, from the outermost value to the one that is wanted.

  Raises:
    LookupError: there is no such value.
  """
  position = _after_space(text, 0)
  for step in way:
    position = _inside(text, position, step)
  return text.count("\n", 0, position) + 1


def _inside(text: str, position: int, step: str | int) -> int:
  """Where the value of a key, or at a position, of the object or list at `position` begins. Of repeated keys the last
  counts, as for every reader."""
  is_object, found, number = text[position] == "{", None, 0
  position = _after_space(text, position + 1)
  while text[position] not in "]}":
    key: str | int = number
    if is_object:
      key, position = _DECODER.raw_decode(text, position)
      position = _after_space(text, _after_space(text, position) + 1)
    if key == step:
      found = position
      if not is_object:
        break
    _, position = _DECODER.raw_decode(text, position)
    position = _after_space(text, position)
    if text[position] == ",":
      position = _after_space(text, position + 1)
    number += 1
  if found is None:
    raise LookupError(f"there is no {step!r}")
  return found


def _after_space(text: str, position: int) -> int:
  match = _SPACE.match(text, position)
  assert match is not None
  return match.end()
