"""One section of a cfg file, read with Darknet's rules and checked with ours.

A layer kind asks a `Section` for the keys it understands. What nobody asked for is an unknown key.
Darknet's rules (`src/parser.c:read_cfg`, `src/option_list.c`): all blanks are removed, also inside
values; the first of repeated keys wins; numbers are read by atoi/atof, so a trailing `#...` is harmless.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from prn_jax.errors import CfgError, GraphError, did_you_mean

Value = int | float | str | bool | Sequence[int] | Sequence[float]
T = TypeVar("T")
MAX_INT = 2**31 - 1  # Darknet reads into a C int

_INT = re.compile(r"[+-]?[0-9]+")  # not \d, which matches the digits of every script
_FLOAT = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?|nan)", re.IGNORECASE | re.ASCII)
_TWO_NUMBERS = re.compile(r"([0-9.]+)[ \t]+([-+]?[0-9.]+)")
_INT_DIGITS = len(str(MAX_INT))


def shortened(text: str, limit: int = 60) -> str:
  """`text` for a message: of bounded length, unprintable characters escaped."""
  safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
  return safe if len(text) <= limit else f"{safe[:limit]}..."


def _int(text: str) -> int:
  digits = text.lstrip("+-").lstrip("0") or "0"
  if len(digits) > _INT_DIGITS or int(digits) > MAX_INT:
    raise ValueError(f"expected a whole number between -{MAX_INT} and {MAX_INT}")
  return -int(digits) if text[0] == "-" else int(digits)


def _float(text: str) -> float:
  value = float(text)
  if math.isnan(value):
    raise ValueError("expected a number")
  return value


def _finite(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError("expected a finite number")
  return value


@dataclasses.dataclass
class Section:
  """The keys of one `[section]`.

  Attributes:
    type: section name without brackets.
    options: key -> (value text, line number).
    file: file name for messages.
    line: line of the header.
    written: key -> value text with its blanks, which Darknet takes out.
    repeated: (key, value text, line number) of keys that were given before.
    strict: garbage in a number is an error; otherwise the C prefix rule applies (atoi("3x") is 3).
  """

  type: str
  options: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
  file: str = "<cfg>"
  line: int = 0
  strict: bool = True
  asked: set[str] = dataclasses.field(default_factory=set)
  written: dict[str, str] = dataclasses.field(default_factory=dict)
  repeated: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)

  def where(self, key: str | None = None) -> str:
    """Place of a key (or of the header) in the form `cfg FILE:LINE [section]`."""
    line = self.options[key][1] if key in self.options else self.line
    return f"cfg {self.file}:{line} [{shortened(self.type)}]"

  def error(self, problem: str, key: str | None = None) -> CfgError:
    return CfgError(f"{self.where(key)} {problem}")

  def has(self, key: str) -> bool:
    self.asked.add(key)
    return key in self.options

  def text(self, key: str, default: str = "") -> str:
    self.asked.add(key)
    return self.options[key][0] if key in self.options else default

  def integer(self, key: str, default: int = 0) -> int:
    return self._number(key, default, _int, _INT, "a whole number")

  def number(self, key: str, default: float = 0.0) -> float:
    return self._number(key, default, _float if math.isinf(default) else _finite, _FLOAT, "a number")

  def integers(self, key: str) -> tuple[int, ...]:
    return self._list(key, _int, _INT, "whole numbers")

  def numbers(self, key: str) -> tuple[float, ...]:
    return self._list(key, _finite, _FLOAT, "numbers")

  def read(self, key: str, default: Value) -> Value:
    """Reads `key` as the type of `default` (an empty tuple reads floats)."""
    if isinstance(default, bool):
      return bool(self.integer(key, int(default)))
    if isinstance(default, int):
      return self.integer(key, default)
    if isinstance(default, float):
      return self.number(key, default)
    if isinstance(default, str):
      return self.text(key, default)
    return self.numbers(key) if self.has(key) else default

  def at_least(self, key: str, minimum: int, default: int) -> int:
    """An integer of at least `minimum`."""
    value = self.integer(key, default)
    if value < minimum:
      raise self.error(f"has {key}={value}; expected at least {minimum}.", key)
    return value

  def unknown(self) -> list[str]:
    """Keys that nobody asked for."""
    return [key for key in self.options if key not in self.asked]

  def unknown_key_error(self, key: str) -> CfgError:
    hint = did_you_mean(key, self.asked)
    return self.error(f"has unknown key '{shortened(key)}'{hint}. Use strict=False to keep unknown keys.", key)

  def _check_commas(self, key: str) -> None:
    """Two numbers with a blank between them are one number to Darknet, which takes blanks out: surely not meant."""
    found = _TWO_NUMBERS.search(self.written.get(key, "").split("#")[0])
    if not found:
      return
    where = f"has {key}={shortened(self.written[key])}: no comma between {found[1]} and {found[2]}"
    if self.strict:
      raise self.error(f"{where}. Darknet reads {found[1]}{found[2]} there; put the comma in.", key)
    logging.getLogger(__name__).warning("%s %s; as in Darknet, that is %s%s.", self.where(key), where, *found.groups())

  def _number(self, key: str, default: T, convert: Callable[[str], T], pattern: re.Pattern[str], what: str) -> T:
    self.asked.add(key)
    if key not in self.options:
      return default
    text = self.options[key][0]
    match = pattern.match(text)
    rest = text[match.end() :] if match else text
    if self.strict and (not match or (rest and not rest.startswith("#"))):
      raise self.error(f"has {key}={shortened(text)}; expected {what}.", key)
    try:
      return convert(match.group() if match else "0")
    except ValueError as error:
      raise self.error(f"has {key}={shortened(text)}; {error}.", key) from None

  def _list(self, key: str, convert: Callable[[str], T], pattern: re.Pattern[str], what: str) -> tuple[T, ...]:
    self.asked.add(key)
    self._check_commas(key)
    text = self.options.get(key, ("", 0))[0].split("#")[0]
    values: list[T] = []
    for item in text.split(",") if text else ():
      match = pattern.match(item)
      if self.strict and (not match or match.end() != len(item)):
        found = f"found '{shortened(item)}'" if item else "but a value is missing beside a comma"
        raise self.error(f"has {key}={shortened(text)}; expected {what} separated by commas, {found}.", key)
      try:
        values.append(convert(match.group() if match else "0"))
      except ValueError as error:
        raise self.error(f"has '{shortened(item)}' in {key}={shortened(text)}; {error}.", key) from None
    return tuple(values)


@dataclasses.dataclass(frozen=True)
class Wires:
  """The place of one layer in a cfg file: turns Darknet's layer indices into names, and back."""

  index: int
  names: Sequence[str]
  section: Section | None = None

  @property
  def name(self) -> str:
    return self.names[self.index]

  @property
  def previous(self) -> str:
    return self.names[self.index - 1] if self.index else "input"

  def source(self, reference: int, key: str) -> str:
    """Name of the layer that `reference`, a value of `key`, points to (negative: relative to this layer)."""
    target = reference if reference >= 0 else self.index + reference
    if 0 <= target < self.index:
      return self.names[target]
    section = self.section or Section("?")
    if not self.index:
      raise section.error(f"has {key}={reference}, but there is no layer before it.", key)
    what = "the layer itself" if target == self.index else "a later layer" if target > 0 else "before the first layer"
    raise section.error(
      f"has {key}={reference}, which is {what} (this is layer {self.index}); expected 0 to {self.index - 1}, or "
      f"-{self.index} to -1.",
      key,
    )

  def reference(self, name: str) -> int:
    """Relative index of the layer `name`, as `from=` and `layers=` take it; GraphError for the image."""
    if name not in self.names:
      raise GraphError(f"layer '{self.name}' reads the image as a source; a cfg cannot say that.")
    return self.names.index(name) - self.index
