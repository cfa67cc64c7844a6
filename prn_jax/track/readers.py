"""Readers of number plates and other writing in small pictures. None is built in: extensions register theirs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prn_jax.errors import PrnError, did_you_mean

Reader = Callable[[np.ndarray], str]
"""(h, w, 3) uint8 RGB -> the text in it, "" for none."""

_READERS: dict[str, Reader] = {}


def register_reader(name: str) -> Callable[[Reader], Reader]:
  """Makes a function known to `prn track --read NAME`.

  Raises:
    PrnError: another function has the name.
  """

  def add(reader: Reader) -> Reader:
    if _READERS.setdefault(name, reader) is not reader:
      raise PrnError(f"reader '{name}' is registered already; choose another name.")
    return reader

  return add


def reader(name: str) -> Reader:
  """The function of a name.

  Raises:
    PrnError: there is none.
  """
  if name not in _READERS:
    known = f"expected one of {', '.join(_READERS)}" if _READERS else "none is registered"
    raise PrnError(
      f"--read {name}: no reader has this name{did_you_mean(name, _READERS)}; {known}. An extension brings one "
      "(docs/extending.md): name its module with --import."
    )
  return _READERS[name]
