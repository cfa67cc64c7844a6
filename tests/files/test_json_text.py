"""JSON never holds NaN."""

from __future__ import annotations

import json
import math

import numpy as np

from prn_jax.files.json_text import finite, json_text


def test_what_is_not_finite_becomes_null() -> None:
  value = {"a": [1, math.nan, (math.inf, "NaN")], 2: {"b": -math.inf, "c": True, "d": None}, "e": np.float64("nan")}
  assert finite(value) == {"a": [1, None, [None, "NaN"]], "2": {"b": None, "c": True, "d": None}, "e": None}
  assert json.loads(json_text(value)) == finite(value)
  assert finite(np.float32("inf")) is None
  assert finite(0.1) == 0.1


def test_letters_and_lines() -> None:
  assert json_text({"ä": 1}) == '{"\\u00e4": 1}'
  assert json_text({"ä": 1}, indent=1, is_ascii=False) == '{\n "ä": 1\n}'
