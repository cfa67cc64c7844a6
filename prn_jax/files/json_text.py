"""JSON as every reader takes it: without NaN and infinity, which it cannot hold."""

from __future__ import annotations

import json
import math
from numbers import Integral, Real
from typing import Any


def finite(value: Any) -> Any:
  """The same with None for numbers that are NaN or infinite, at any depth; keys become text, and tuples lists."""
  if isinstance(value, Real) and not isinstance(value, Integral) and not math.isfinite(value):
    return None
  if isinstance(value, dict):
    return {str(key): finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [finite(item) for item in value]
  return value


def json_text(value: Any, *, indent: int | None = None, is_ascii: bool = True) -> str:
  """The JSON of a value, with null for what is not finite.

  Args:
    value: dicts, lists, tuples, texts, numbers, truth values and None.
    indent: blanks per level; None writes one line.
    is_ascii: other letters are written as \\uXXXX.
  """
  return json.dumps(finite(value), indent=indent, allow_nan=False, ensure_ascii=is_ascii)
