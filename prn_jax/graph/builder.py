"""Writes a graph layer by layer, as one would write a cfg, with names instead of indices."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from prn_jax.errors import GraphError, did_you_mean
from prn_jax.graph.graph import (
  INPUT,
  KINDS,
  Graph,
  Layer,
  Shape,
  Wiring,
  checked_shape,
  default_name,
  own_fields,
  wire,
)


class Builder:
  """Collects layers; a wrong link or shape fails on the caller's line, in words.

  Every kind is a method: `g.conv(64, 3, name="stem")`, `g.shortcut(c5, name="skip")`. It returns the
  layer's name, which later layers use as a source. Positional arguments are the fields of the kind in
  their order of definition; for kinds that name their sources (shortcut, route, ...) they are the sources.

  Args:
    width, height: size of the input in pixels.
    channels: channels of the input.
    name: name of the network.
    defaults: field values for all layers that have such a field, e.g. {"activation": "leaky"}.

  Example:
    >>> g = Builder(32, 32)
    >>> c1 = g.conv(8, 3, padding=1, name="c1")
    >>> c2 = g.conv(8, 3, padding=1, name="c2")
    >>> g.shortcut(c1, name="skip")
    'skip'
    >>> len(g.graph())
    3
  """

  def __init__(
    self, width: int, height: int, channels: int = 3, name: str = "network", defaults: dict[str, Any] | None = None
  ) -> None:
    self._size = (width, height, channels)
    self._name = name
    self._defaults = dict(defaults or {})
    self._of_kinds: dict[type[Layer], dict[str, Any]] = {}
    self._layers: dict[str, Layer] = {}
    self._shapes = {INPUT: Shape(height, width, channels)}
    self.last = INPUT

  def shape(self, name: str | None = None) -> Shape:
    """Output shape of a layer (of the last one by default)."""
    return self._shapes[name or self.last]

  @contextlib.contextmanager
  def defaults_of(self, kind: str, **fields: Any) -> Iterator[None]:
    """Field values for all layers of one kind that are added inside the `with`."""
    before, cls = self._of_kinds, KINDS[kind]
    self._of_kinds = {**before, cls: {**before.get(cls, {}), **fields}}
    try:
      yield
    finally:
      self._of_kinds = before

  def graph(self) -> Graph:
    width, height, channels = self._size
    return Graph(tuple(self._layers.values()), width, height, channels, self._name)

  def __getattr__(self, kind: str) -> Callable[..., str]:
    if kind.startswith("_"):
      raise AttributeError(kind)
    if kind not in KINDS:
      raise AttributeError(f"no layer kind is called '{kind}'{did_you_mean(kind, KINDS)}.")
    return functools.partial(self.add, KINDS[kind])

  def add(self, cls: type[Layer], *args: Any, name: str | None = None, **fields: Any) -> str:
    """Appends a layer of kind `cls` and returns its name."""
    name = name or default_name(cls, len(self._layers))
    known = [f.name for f in own_fields(cls)]
    sources: tuple[str, ...] = ()
    if cls.wiring in (Wiring.SOURCES, Wiring.PREVIOUS_AND_SOURCES):
      sources = args
    else:
      positional = dict(zip(known, args, strict=False))
      if len(args) > len(known) or positional.keys() & fields.keys():
        given = f"{len(args)} positional values and {', '.join(fields) or 'no names'}"
        raise GraphError(
          f"layer '{name}' ({cls.kind}{_caller()}) got {given}; its fields are {', '.join(known) or 'none'}."
        )
      fields |= positional
    for key in fields:
      if key not in known:
        raise GraphError(f"layer '{name}' ({cls.kind}{_caller()}) has no field '{key}'{did_you_mean(key, known)}.")
    for key, value in {**self._defaults, **self._of_kinds.get(cls, {})}.items():
      if key in known:
        fields.setdefault(key, value)
    layer = cls(name=name, inputs=wire(cls, self.last, sources), **fields)
    try:
      shape = checked_shape(layer, self._layers, self._shapes)
    except GraphError as error:
      raise GraphError(str(error).replace(f"({cls.kind})", f"({cls.kind}{_caller()})", 1)) from None
    self._layers[name] = layer
    self._shapes[name] = shape
    self.last = name
    return name


def _caller() -> str:
  """ ", file.py:line" of the first frame outside this file."""
  frame = sys._getframe(1)
  while frame.f_code.co_filename == __file__ and frame.f_back:
    frame = frame.f_back
  return f", {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
