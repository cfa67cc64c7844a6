"""Inputs from valid seeds: damaged bytes, damaged text, and parsed trees with other values in them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

HOSTILE_TEXT = (
  "", " ", "0", "-1", "1.0", "1e999", "nan", "inf", "-inf", "0x10", "1_000", "9" * 400, "9" * 5000, "true", "False",
  "no", "null", "~", "~/x", "~nobody_of_this_name/x", "/", ".", "..", "../../x", "a/b", "a\\b", "C:\\a.jpg", "gs://b/c",
  "x" * 300, "x" * 5000, "a\0b", "\0", "\x1b[2J", "\x07", "\r", "\n", "\t", "\ufeff", "\u2028", "\u202e", "\ud800",
  "\udcff", "ä", "猫", "\U0001f408", "٣", "'", '"', "`", "[", "]", "{", "}", "[" * 300, "{" * 300, "- " * 300, "&a [*a]",
  "*a", "&a", "!!python/object:os.x {}", "!!binary x", "<<", "? a", "|", ">", "%TAG", "---", "<!ENTITY a 'b'>", "&amp;",
  "&#0;", "&a;", "]]>", "<a", "</annotation>", "<?xml version='1.0' encoding='utf-7'?>", "GB2312", "%s%n", "{0}", "#", ";",
  "=", ",", ":", "::", "--", "$HOME", "1:59:59", "2020-13-45", "=1,2",
)  # fmt: skip
"""Texts that are hard for some parser, path or number."""

HOSTILE_VALUES: tuple[Any, ...] = (
  None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 10**4200, 0.5, -0.0, 1e308, float("inf"),
  float("nan"), [], {}, [[]], [None], {"": None}, [1, 2, 3, 4], ["a"], {"a": 1}, *HOSTILE_TEXT,
)  # fmt: skip
"""JSON values of all types."""

_TOKEN = re.compile(rb"[\w.+-]+|[^\w\s]")


def mutated_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
  """One to four faults as disks, networks and editors make them."""
  content = bytearray(data)
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    at = rng.randrange(len(content) + 1)
    how = rng.randrange(8)
    if how == 0 and content:
      content[at % len(content)] ^= 1 << rng.randrange(8)
    elif how == 1 and content:
      content[at % len(content)] = rng.choice((0, 9, 10, 32, 127, 128, 255, rng.randrange(256)))
    elif how == 2:
      del content[at:]
    elif how == 3:
      del content[at : at + rng.randrange(1, 40)]
    elif how == 4:
      content[at:at] = rng.randbytes(rng.randrange(1, 9))
    elif how == 5:
      content[at:at] = content[at : at + rng.randrange(1, 200)] * rng.choice((1, 1, 2, 30))
    elif how == 6:
      other = rng.choice(others)
      content[at:] = other[rng.randrange(len(other) + 1) :]
    else:
      content[at : at + 4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, rng.randrange(2**32))).to_bytes(4, "little")
  return bytes(content)


def mutated_text(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
  """Words and lines replaced, repeated and taken away."""
  content = data
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    how = rng.randrange(6)
    tokens = list(_TOKEN.finditer(content))
    if how < 3 and tokens:
      found = rng.choice(tokens)
      content = content[: found.start()] + encoded(rng.choice(HOSTILE_TEXT)) + content[found.end() :]
    elif how == 3:
      lines = content.split(b"\n")
      lines.insert(rng.randrange(len(lines) + 1), rng.choice(rng.choice(others).split(b"\n")))
      content = b"\n".join(lines)
    elif how == 4:
      lines = content.split(b"\n")
      del lines[rng.randrange(len(lines))]
      content = b"\n".join(lines)
    else:
      content = mutated_bytes(content, others, rng)
  return content.decode("utf-8", "replace").encode("utf-16") if rng.randrange(40) == 0 else content


def encoded(text: str) -> bytes:
  """The text as bytes; half characters become bytes that are no UTF-8."""
  return text.encode("utf-8", "surrogatepass")


def mutated_json(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
  """JSON with one to three values of another type, keys gone or doubled; now and then damaged bytes."""
  if rng.randrange(6) == 0:
    return mutated_text(data, others, rng)
  tree = json.loads(data)
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    tree = mutated_tree(tree, rng)
  try:
    return json.dumps(tree).encode()
  except RecursionError:  # nested twice
    return b"[" * 2000 + data


def mutated_tree(tree: Any, rng: random.Random) -> Any:
  """The tree with one change somewhere in it."""
  keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
  if not keys or rng.randrange(8) == 0:
    return hostile_value(tree, rng)
  key = rng.choice(keys)
  changed = dict(tree) if isinstance(tree, dict) else list(tree)
  how = rng.randrange(12)
  if how == 0:
    del changed[key]
  elif how == 1 and isinstance(changed, dict):
    changed[rng.choice(HOSTILE_TEXT)] = changed.pop(key)
  elif how == 1:
    changed.append(changed[key])
  elif how == 2:
    changed[key] = changed[rng.choice(keys)]
  else:
    changed[key] = mutated_tree(changed[key], rng)
  return changed


def hostile_value(value: Any, rng: random.Random) -> Any:
  """The value as another type, or something else."""
  how = rng.randrange(6)
  if how == 0:
    try:
      return str(value)[:1000]
    except RecursionError:  # nested twice
      return "["
  if how == 1:
    return [value]
  if how == 2 and isinstance(value, int | float) and abs(value) < 1e300:
    return float(value)
  if how == 3:
    deep: Any = value
    for _ in range(rng.choice((3, 99, 120, 900))):
      deep = [deep]
    return deep
  return rng.choice(HOSTILE_VALUES)
