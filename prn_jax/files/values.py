"""Values that other programs have written: text, whole and finite numbers, truth values, lists and mappings.

The third step of `prn_jax.files.structured`: `Node` knows its file and key; `whole_of(value)` and its like do the same
where a file holds millions of values, or bad ones are counted and left out, and raise `Misfit`.
"""

from __future__ import annotations

import math
import re
import reprlib
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

from prn_jax.errors import PrnError, did_you_mean

MAX_DIGITS = 400
"""Of a number that is written as text. float64 ends at 309 digits."""
_TRUE = frozenset(("1", "true", "yes", "y", "t", "on"))
_FALSE = frozenset(("0", "false", "no", "n", "f", "off"))
_UNSAID = frozenset(("", "unspecified", "unknown", "none", "null", "n/a", "na", "~"))


class Misfit(ValueError):
  """A value or a file that is not as expected; its text goes on after the name, as "is 'x'; expected text".

  Attributes:
    line: the line of the file, counted from 1; None where it has none.
  """

  def __init__(self, text: str, line: int | None = None) -> None:
    super().__init__(text)
    self.line = line


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 4
_SHORT.maxlevel = 3


def shown(value: object) -> str:
  """A value as a message shows it: quoted, and short whatever it is."""
  return _SHORT.repr(value)


def text_of(value: object) -> str:
  """A text that can be written and printed. Numbers and truth values are none: how they were written is lost."""
  if not isinstance(value, str):
    raise Misfit(f"is {shown(value)}; expected text")
  if not value.isascii():
    try:
      value.encode()
    except UnicodeEncodeError:
      raise Misfit(f"is {shown(value)}, which holds half a character (an unpaired surrogate); expected text") from None
  return value


def whole_of(value: object, low: float = -math.inf, high: float = math.inf) -> int:
  """A whole number from `low` to `high`, also where it is written as "1" or 1.0."""
  number: int | None = None
  if isinstance(value, int) and not isinstance(value, bool):
    number = value
  elif isinstance(value, float) and value.is_integer():
    number = int(value)
  elif isinstance(value, str) and len(value) <= MAX_DIGITS:
    if re.fullmatch(r"\s*[+-]?[0-9]+\s*", value):
      number = int(value)
    elif re.fullmatch(r"\s*[+-]?[0-9]+\.0*\s*", value):
      number = int(value.partition(".")[0])
  if number is None or not low <= number <= high:
    raise Misfit(f"is {shown(value)}; expected a whole number{_range(low, high)}")
  return number


def number_of(value: object, low: float = -math.inf, high: float = math.inf) -> float:
  """A finite number from `low` to `high`, also where it is written as text."""
  number = math.nan
  if isinstance(value, int | float) and not isinstance(value, bool):
    try:
      number = float(value)
    except OverflowError:
      number = math.inf
  elif isinstance(value, str) and len(value) <= MAX_DIGITS and "_" not in value:
    try:
      number = float(value)
    except ValueError:
      number = math.nan
  if not (math.isfinite(number) and low <= number <= high):
    raise Misfit(f"is {shown(value)}; expected a finite number{_range(low, high)}")
  return number


def truth_of(value: object, unsaid: bool | None = None) -> bool:
  """A truth value, also where it is written as 0, 1.0, "0", "True" or "no".

  Args:
    value: what the file holds.
    unsaid: what null, "" and words such as "Unspecified" mean; None: nothing, they are an error.
  """
  word = value.strip().lower() if isinstance(value, str) else ""
  if isinstance(value, bool):
    return value
  if (isinstance(value, int | float) and value in (0, 1)) or word in _TRUE or word in _FALSE:
    return value == 1 or word in _TRUE
  if unsaid is not None and (value is None or (isinstance(value, str) and word in _UNSAID)):
    return unsaid
  raise Misfit(f"is {shown(value)}; expected true or false (also 1 or 0, yes or no)")


def _range(low: float, high: float) -> str:
  if math.isinf(low) and math.isinf(high):
    return ""
  if math.isinf(high):
    return f" of at least {low}"
  return f" of at most {high}" if math.isinf(low) else f" from {low} to {high}"


class Mark(NamedTuple):
  """Where a value stands in its file.

  Attributes:
    line: counted from 1.
    inner: those of the values in it, by key or index.
  """

  line: int
  inner: dict[str | int, Mark]


@dataclass(frozen=True, slots=True)
class Node:
  """A value in a file. Every access that does not fit raises `error`, with the file, the key, what stands there and
  what was expected.

  Attributes:
    raw: the value as the parser gave it.
    file: what messages call the file.
    key: the way to the value, as "splits.train.shards[2]"; "" is the whole file.
    error: raised for all that does not fit.
    advice: what every message ends in, as "Convert the model again."
    mark: where the value stands; None where nobody noted it.
  """

  raw: Any
  file: str
  key: str = ""
  error: type[PrnError] = PrnError
  advice: str = ""
  mark: Mark | None = field(default=None, repr=False, compare=False)

  def __getitem__(self, key: str) -> Node:
    """The value of a key that must be there."""
    found = self.mapping()
    if key not in found:
      near = did_you_mean(key, [name for name in list(found)[:100] if isinstance(name, str) and len(name) < 100])
      listed = ", ".join(shown(name) for name in list(found)[:8]) or "nothing"
      self._refuse(f"has no {shown(key)}{near}; it has {listed}{', ...' if len(found) > 8 else ''}")
    return found[key]

  def get(self, key: str, default: Any = None) -> Node:
    """The value of a key, or `default` where it is missing or null."""
    raw = self._dict().get(key)
    return self._child(key, default if raw is None else raw)

  def __contains__(self, key: str) -> bool:
    """Whether a key is there and not null."""
    return self._dict().get(key) is not None

  def mapping(self) -> dict[str, Node]:
    """Values by key."""
    return {key: self._child(key, value) for key, value in self._dict().items()}

  def items(self) -> list[Node]:
    """The values of a list."""
    if not isinstance(self.raw, list):
      self._refuse(f"is {shown(self.raw)}; expected a list")
    return [self._child(index, value) for index, value in enumerate(self.raw)]

  def text(self) -> str:
    """See `text_of`."""
    return str(self._checked(text_of))

  def texts(self) -> list[str]:
    """A list of texts."""
    return [item.text() for item in self.items()]

  def whole(self, low: float = -math.inf, high: float = math.inf) -> int:
    """See `whole_of`."""
    return int(self._checked(whole_of, low, high))

  def number(self, low: float = -math.inf, high: float = math.inf) -> float:
    """See `number_of`."""
    return float(self._checked(number_of, low, high))

  def truth(self, unsaid: bool | None = None) -> bool:
    """See `truth_of`."""
    return bool(self._checked(truth_of, unsaid))

  def fault(self, reason: str) -> PrnError:
    """The error that says `reason` of this value, as "is 3, but there are 2 names; they must agree"."""
    key = shown(self.key)[1:-1].removeprefix(".")
    place = f"{self.file}:{self.mark.line}" if self.mark and key else self.file
    said = f"{place}: {key} {reason}" if key else f"{place} {reason}"
    return self.error(f"{said}.{' ' if self.advice else ''}{self.advice}")

  def _checked(self, check: Any, *limits: Any) -> Any:
    try:
      return check(self.raw, *limits)
    except Misfit as error:
      raise self.fault(str(error)) from None

  def _dict(self) -> dict[str, Any]:
    if not isinstance(self.raw, dict):
      self._refuse(f"is {shown(self.raw)}; expected keys with values")
    return self.raw

  def _child(self, step: str | int, raw: Any) -> Node:
    key = f"{self.key}[{step}]" if isinstance(step, int) else f"{self.key}.{step}"
    mark = self.mark and self.mark.inner.get(
      step, Mark(self.mark.line, {})
    )  # the second: what is not there, or an alias
    return replace(self, raw=raw, key=key, mark=mark)

  def _refuse(self, reason: str) -> NoReturn:
    raise self.fault(reason)
