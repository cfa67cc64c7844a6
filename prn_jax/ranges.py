"""Where the number of a setting may lie: said once, beside its field, and checked in one place.

```python
@dataclass(frozen=True)
class Settings:
  batch_size: int = field(default=64, metadata=at_least(1, "images per update"))

  def __post_init__(self) -> None:
    check(self, PrnError, "settings.{}")     # settings.batch_size is 0; expected at least 1: images per update.
```
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from prn_jax.errors import PrnError

_KEY = "range"


@dataclasses.dataclass(frozen=True)
class Range:
  """Where a number may lie.

  Attributes:
    low, high: limits, both included.
    means: what the number is for, as the end of a message.
    is_below: `high` itself is excluded.
    is_finite: infinity is excluded.
  """

  low: float
  high: float = math.inf
  means: str = ""
  is_below: bool = False
  is_finite: bool = True

  def problem(self, value: object, *, is_whole: bool = False) -> str:
    """What is expected instead of this value, as "expected at least 1: images per update"; "" where it is right.

    Args:
      value: anything; NaN, truth values and texts are no numbers.
      is_whole: whether it must be a whole number.
    """
    means = f": {self.means}" if self.means else ""
    kind = "a whole number" if is_whole else "a number"
    if isinstance(value, bool) or not isinstance(value, Integral if is_whole else Real):
      return f"expected {kind} {self._limits('of at least', 'from')}{means}"
    number = float(value)
    if self.low <= number <= self.high and not (self.is_below and number == self.high):
      return "" if math.isfinite(number) or not self.is_finite else f"expected a finite number{means}"
    return f"expected {self._limits('at least', f'{kind} from')}{means}"

  def _limits(self, at_least: str, between: str) -> str:
    if math.isinf(self.high):
      return f"{at_least} {self.low:g}"
    return (
      f"{at_least} {self.low:g} and below {self.high:g}"
      if self.is_below
      else f"{between} {self.low:g} to {self.high:g}"
    )


def at_least(low: float, means: str = "", *, is_finite: bool = True) -> dict[str, Range]:
  """Metadata of a field whose number has a lower limit only."""
  return {_KEY: Range(low, means=means, is_finite=is_finite)}


def between(low: float, high: float, means: str = "") -> dict[str, Range]:
  """Metadata of a field whose number lies between two limits, both included."""
  return {_KEY: Range(low, high, means)}


def below(low: float, high: float, means: str = "") -> dict[str, Range]:
  """Metadata of a field whose number is at least `low` and stays below `high`."""
  return {_KEY: Range(low, high, means, is_below=True)}


def range_of(field: dataclasses.Field[Any]) -> Range | None:
  """The range that a field states, or None."""
  return field.metadata.get(_KEY)


def check(settings: Any, error: type[PrnError], where: str = "{}") -> None:
  """Compares all numbers of a dataclass, and of those that are its fields, with their ranges. None is not looked at.

  Args:
    settings: a dataclass.
    error: what is raised.
    where: what messages call a field, with {} for its name: "optim.{}".

  Raises:
    PrnError: of the type `error`, with the name of the first field that is out of its range, and its value.
  """
  for name, value, wanted, is_whole in _numbers(settings):
    if value is not None:
      check_value(where.format(name), value, wanted, error, is_whole=is_whole)


def check_value(name: str, value: object, wanted: Range, error: type[PrnError], *, is_whole: bool = False) -> None:
  """As `check`, for one number whose range depends on others."""
  if problem := wanted.problem(value, is_whole=is_whole):
    raise error(f"{name} is {value!r}; {problem}.")


def _numbers(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Range, bool]]:
  whole = whole_fields(type(settings))
  for field in dataclasses.fields(settings):
    value, wanted = getattr(settings, field.name), range_of(field)
    if dataclasses.is_dataclass(value):
      yield from _numbers(value, f"{prefix}{field.name}.")
    elif wanted is not None:
      yield f"{prefix}{field.name}", value, wanted, field.name in whole


def whole_fields(cls: type[Any]) -> frozenset[str]:
  """Names of the fields of a dataclass that hold whole numbers."""
  hints: Mapping[str, Any] = typing.get_type_hints(cls)
  return frozenset(name for name, hint in hints.items() if hint is int or int in typing.get_args(hint))
