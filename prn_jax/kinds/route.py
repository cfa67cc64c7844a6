"""[route]: concatenation along channels, or a group of each source's channels (docs/darknet.md a9)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prn_jax.graph.channels import Reads, cut
from prn_jax.graph.graph import Context, Layer, Shape, Wiring, non_default_fields, register_kind
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.lazy import jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Route(Layer):
  """Concatenates its sources.

  Attributes:
    groups: each source contributes only one of `groups` equal blocks of its channels,
    group_id: this one.
  """

  kind = "route"
  sections = ("route",)
  wiring = Wiring.SOURCES
  same_size = True
  copies = True

  groups: int = 1
  group_id: int = 0

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if not inputs:
      raise ValueError("needs at least one source (cfg key 'layers').")
    if not 0 <= self.group_id < self.groups:
      raise ValueError(f"group_id={self.group_id}; expected 0 to groups-1 = {self.groups - 1}.")
    for name, x in zip(self.inputs, inputs, strict=True):
      if x[:2] != inputs[0][:2]:
        raise ValueError(f"'{name}' is {x} but '{self.inputs[0]}' is {inputs[0]}. Width and height must match.")
      if x.channels % self.groups:
        raise ValueError(f"groups={self.groups} does not divide the {x.channels} channels of '{name}'.")
    return inputs[0]._replace(channels=sum(x.channels // self.groups for x in inputs))

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    counts = [x.channels // self.groups for x in inputs]
    places = itertools.accumulate(counts, initial=0)
    first = self.group_id
    return tuple(cut(first * n, (first + 1) * n, at, self.groups) for n, at in zip(counts, places, strict=False))

  def detail(self, places: Sequence[str]) -> str:
    return ", ".join(places) + (f" {self.group_id + 1}/{self.groups}" if self.groups > 1 else "")

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    sources = section.integers("layers")
    if not sources:
      raise section.error("has no key 'layers'; expected the indices of the layers to concatenate.")
    return cls.wired(
      wires,
      tuple(wires.source(i, "layers") for i in sources),
      groups=section.at_least("groups", 1, 1),
      group_id=section.integer("group_id"),
    )

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    return {"layers": [wires.reference(name) for name in self.inputs]} | non_default_fields(self)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    parts = []
    for x in xs:
      count = x.shape[-1] // self.groups
      parts.append(x[..., self.group_id * count : (self.group_id + 1) * count] if self.groups > 1 else x)
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    parts = list(xs)
    if self.groups > 1:
      counts = [channels // self.groups for channels, _, _ in o.input_shapes]
      ends = zip(xs, counts, strict=True)
      parts = [o.as_before(o.slice(x, self.group_id * n, (self.group_id + 1) * n, axis=1), x) for x, n in ends]
    return o.op("Concat", parts, axis=1) if len(parts) > 1 else parts[0]
