"""The typed layer graph: the single description of a network (docs/architecture.md).

A `Graph` is a tuple of frozen layers in cfg order, linked by names. It knows no weights and no training
settings. Each kind of layer is one class in `prn_jax/kinds`, with all its facets.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from prn_jax.errors import GraphError, OutOfScopeError, did_you_mean
from prn_jax.graph.channels import Reads, mix
from prn_jax.graph.section import MAX_INT, Section, Value, Wires

if TYPE_CHECKING:
  import jax

  from prn_jax.graph.onnx_builder import OnnxBuilder

INPUT = "input"  # the name under which a layer refers to the image
RESERVED = (INPUT, "params")  # Flax refuses variables {"params": {"params": ...}}
MAX_VALUES = MAX_INT  # values of one feature map of one image
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Shape(NamedTuple):
  """Height, width and channels of one feature map; the batch axis is left out."""

  height: int
  width: int
  channels: int

  @property
  def size(self) -> int:
    return self.height * self.width * self.channels

  def __str__(self) -> str:
    return f"{self.width}x{self.height}x{self.channels}"  # Darknet prints width first


class WeightArray(NamedTuple):
  """One array of a weights file, and where it lives among the variables.

  Attributes:
    path: place below the layer, e.g. "conv/kernel".
    collection: "params" (learnable) or "batch_stats" (rolling mean and variance).
    file_shape: shape of the values in the file.
    axes: permutation from the file's axes to ours; None keeps them.
    shape: our shape, after the permutation; None keeps the permuted shape.
    reads: axis of our shape that runs over the channels of the layer's (first) input, or over those of one group; a
      matrix product's runs over all values of the input, channels last. None: none does.
    makes: axis of our shape that runs over the channels of the output. None: none does.
    counts: training steps, which begin at 0 where the weights to start from have none.
  """

  path: str
  collection: str
  file_shape: tuple[int, ...]
  axes: tuple[int, ...] | None = None
  shape: tuple[int, ...] | None = None
  reads: int | None = None
  makes: int | None = None
  counts: bool = False

  @property
  def size(self) -> int:
    return math.prod(self.file_shape)

  @property
  def permuted_shape(self) -> tuple[int, ...]:
    return tuple(self.file_shape[a] for a in self.axes) if self.axes else self.file_shape

  @property
  def array_shape(self) -> tuple[int, ...]:
    return self.shape or self.permuted_shape

  def key(self, layer: str) -> str:
    """Name among the flat variables: "collection/layer/path"."""
    return f"{self.collection}/{layer}/{self.path}"


class Window(NamedTuple):
  """Input region that one output location sees: (height, width) of kernel and stride."""

  kernel: tuple[float, float] = (1, 1)
  stride: tuple[float, float] = (1, 1)


class Wiring(enum.Enum):
  """How a kind of layer chooses its inputs."""

  NONE = "none"  # reads nothing (implicit)
  PREVIOUS = "previous"  # the layer before it
  PREVIOUS_AND_SOURCES = "previous and sources"  # shortcut, scale_channels, sam
  SOURCES = "sources"  # route


@dataclasses.dataclass(frozen=True)
class Context:
  """What the lowering to Flax needs besides the layer.

  Attributes:
    train: batch statistics instead of rolling ones, dropout active.
    dtype: compute dtype (None: float32); parameters, BN statistics and heads stay float32.
    precision: `jax.lax.Precision` of convolutions; HIGHEST for parity with Darknet.
    bn_axis: mesh axis over which BN statistics are averaged (inside shard_map), else None.
    bn_momentum: share of the old rolling statistics (Darknet: 0.99).
    batch_size: needed by layers without inputs.
    module: the layer's linen module, for parameters of the layer's own.
  """

  train: bool = False
  dtype: Any = None
  precision: Any = None
  bn_axis: str | None = None
  bn_momentum: float = 0.99
  batch_size: int = 1
  module: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
  """Base of all kinds. A kind overrides the facets in which it differs.

  Attributes:
    name: key of its variables and outputs, `[a-z][a-z0-9_]*`.
    inputs: names of the layers it reads; "input" is the image.
  """

  kind: ClassVar[str] = ""  # builder method and stem of default names
  sections: ClassVar[tuple[str, ...]] = ()  # cfg section names; the first is the one we write
  wiring: ClassVar[Wiring] = Wiring.PREVIOUS
  is_head: ClassVar[bool] = False  # its output is a result of the network
  is_result: ClassVar[bool] = True  # False for kinds that only pass a result on (cost)
  same_size: ClassVar[bool] = False  # all its inputs should have the same width and height
  copies: ClassVar[bool] = False  # at inference its output holds channels of its inputs, unchanged
  adds_sources: ClassVar[bool] = False  # a residual: adds its sources to the layer before it
  is_probability: ClassVar[bool] = False  # losses read what stands in front of it
  kernel: ClassVar[str] = ""  # module below the layer that holds a kernel, behind which batch norm may stand
  width_field: ClassVar[str] = ""  # field that says how many channels its weights make

  name: str
  inputs: tuple[str, ...]

  def _set(self, **fields: Any) -> None:
    """For `__post_init__`: gives fields their one canonical form, so that equal layers compare equal."""
    for key, value in fields.items():
      object.__setattr__(self, key, value)

  # -- shape and cost ------------------------------------------------------------------------------
  def shape(self, inputs: Sequence[Shape]) -> Shape:
    """Output shape; raises ValueError in words where the inputs do not fit."""
    return inputs[0]

  def flops(self, inputs: Sequence[Shape], output: Shape) -> int:
    """Operations as Darknet prints them (a multiply-add is two)."""
    return 0

  def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
    """Multiply-adds of convolutions and matrix products."""
    return 0

  def window(self, inputs: Sequence[Shape], output: Shape) -> Window | None:
    """Region of the input that one output location sees; None means all of it."""
    return Window()

  # -- channels ------------------------------------------------------------------------------------
  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    """For each input, which of its channels each channel of the output comes from. The default is safe for any kind:
    every one from every one, and none may be taken away."""
    return tuple(mix(x.channels, output.channels) for x in inputs)

  def follow(self, before: Sequence[Shape], after: Sequence[Shape]) -> Layer:
    """The layer for other inputs, if a field of its own must follow their channels; else itself."""
    return self

  def narrowed(self, before: Sequence[Shape], inputs: Sequence[Sequence[int]], kept: Sequence[int]) -> Layer:
    """The layer with fewer channels, which go by whole sets of `graph.coupling`.

    Args:
      before: shapes of the inputs until now.
      inputs: numbers of the channels that are left of each input.
      kept: numbers of the channels that are left of the output.
    """
    after = [shape._replace(channels=len(numbers)) for shape, numbers in zip(before, inputs, strict=True)]
    if self.width_field:
      return dataclasses.replace(self, **{self.width_field: len(kept)})  # type: ignore[arg-type]
    return self.follow(before, after)

  @property
  def keeps_zero(self) -> bool:
    """True if a channel that is 0 in all inputs (and that no weights make) is 0 in front of the activation."""
    return True

  def keeps_constants(self, inputs: Sequence[Shape]) -> bool:
    """True if a channel that is one number everywhere in all inputs is one in the output, but for borders."""
    return True

  # -- weights -------------------------------------------------------------------------------------
  def arrays(self, inputs: Sequence[Shape]) -> tuple[WeightArray, ...]:
    """Arrays in the order of Darknet's weights file."""
    return ()

  def initial(self, array: WeightArray, rng: np.random.Generator) -> np.ndarray:
    """Initial value by Darknet's rule: kernels U(-1, 1) * sqrt(2 / fan_in), scales 1, biases and means 0. Rolling
    variances are 1 where Darknet has 0."""
    shape, leaf = array.array_shape, array.path.split("/")[-1]
    if leaf == "kernel":
      fan_in = math.prod(shape[:-1])
      return (2 * rng.random(shape, np.float32) - 1) * np.float32(math.sqrt(2 / fan_in))
    return np.full(shape, leaf in ("scale", "var", "weights"), np.float32)

  @property
  def shared_with(self) -> str | None:
    """Name of the layer whose variables this one uses."""
    return None

  @property
  def has_batchnorm(self) -> bool:
    """True if batch norm stands behind its `kernel`, by a field `batch_normalize`."""
    return False

  def fixed_form(self) -> Layer:
    """The layer for `fixed_arrays`: itself, but for kinds whose kernel is rounded where it is used."""
    return self

  def fixed_arrays(self, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the layer's arrays by path those that `fixed_form` has in their place, before a factor is multiplied into its
    kernel: the rounded kernel, and "kernel_scale", its step for each channel of the output."""
    return {}

  # -- text ----------------------------------------------------------------------------------------
  def detail(self, places: Sequence[str]) -> str:
    """The few fields that tell layers of one kind apart, for tables; `places` are the inputs' numbers."""
    return ""

  # -- cfg -----------------------------------------------------------------------------------------
  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    """Reads the keys that have the names and defaults of the dataclass fields."""
    return cls.wired(wires, (), **read_fields(cls, section))

  def to_cfg(self, wires: Wires) -> dict[str, Value]:
    """Keys and values to write; keys at their default are left out."""
    return non_default_fields(self)

  @classmethod
  def wired(cls, wires: Wires, sources: tuple[str, ...], **fields: Any) -> Layer:
    return cls(name=wires.name, inputs=wire(cls, wires.previous, sources), **fields)

  # -- Flax ----------------------------------------------------------------------------------------
  def lower(self, xs: Sequence[jax.Array], ctx: Context) -> jax.Array:
    """Computes the output (NHWC) inside the compact method of the layer's linen module."""
    raise AssertionError(f"kind '{self.kind}' has no lowering")

  # -- ONNX ----------------------------------------------------------------------------------------
  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    """Adds the layer's nodes (NCHW) and returns the name of its output."""
    raise OutOfScopeError(f"layer '{self.name}': kind '{self.kind}' cannot be exported to ONNX.")


KINDS: dict[str, type[Layer]] = {}  # kind -> class
SECTIONS: dict[str, type[Layer]] = {}  # cfg section -> class


def register_kind(cls: type[Layer]) -> type[Layer]:
  """Class decorator: makes a kind known to the builder and to the cfg codec."""
  assert cls.kind not in KINDS, cls
  KINDS[cls.kind] = cls
  SECTIONS.update(dict.fromkeys(cls.sections, cls))
  return cls


def wire(cls: type[Layer], previous: str, sources: tuple[str, ...]) -> tuple[str, ...]:
  """Input names of a layer of kind `cls` that stands after `previous` and names `sources`."""
  if cls.wiring is Wiring.NONE:
    return ()
  if cls.wiring is Wiring.PREVIOUS:
    return (previous,)
  return sources if cls.wiring is Wiring.SOURCES else (previous, *sources)


def own_fields(cls: type[Layer]) -> list[dataclasses.Field[Any]]:
  """The fields of a kind, without name and inputs, in the order of definition."""
  return [f for f in dataclasses.fields(cls) if f.name not in ("name", "inputs")]


def read_fields(cls: type[Layer], section: Section, skip: Sequence[str] = ()) -> dict[str, Any]:
  return {f.name: section.read(f.name, cast(Value, f.default)) for f in own_fields(cls) if f.name not in skip}


def non_default_fields(layer: Layer, skip: Sequence[str] = ()) -> dict[str, Value]:
  fields = (f for f in own_fields(type(layer)) if f.name not in skip)
  return {f.name: v for f in fields if (v := getattr(layer, f.name)) != f.default}


@dataclasses.dataclass(frozen=True)
class Graph:
  """A network: layers in cfg order, with the size of its input.

  Attributes:
    layers: the layers; each reads only earlier ones.
    width, height: size of the input in pixels.
    channels: channels of the input.
    name: a name for people; not compared.
    shapes: name -> `Shape` of every layer's output and of "input".

  Raises:
    GraphError: a name is bad or used twice, a link points nowhere or forward, or shapes do not fit.
  """

  layers: tuple[Layer, ...]
  width: int
  height: int
  channels: int = 3
  name: str = dataclasses.field(default="network", compare=False)
  shapes: Mapping[str, Shape] = dataclasses.field(init=False, compare=False, repr=False)

  def __post_init__(self) -> None:
    if min(self.width, self.height, self.channels) < 1:
      raise GraphError(
        f"network '{self.name}' has input {self.width}x{self.height}x{self.channels}; "
        "width, height and channels must be at least 1."
      )
    if not self.layers:
      raise GraphError(f"network '{self.name}' has no layers.")
    shapes = {INPUT: Shape(self.height, self.width, self.channels)}
    if shapes[INPUT].size > MAX_VALUES:
      raise GraphError(f"network '{self.name}' has input {shapes[INPUT]}; expected at most {MAX_VALUES:,} values.")
    seen: dict[str, Layer] = {}
    for layer in self.layers:
      shapes[layer.name] = checked_shape(layer, seen, shapes)
      seen[layer.name] = layer
    object.__setattr__(self, "shapes", shapes)

  def __iter__(self) -> Iterator[Layer]:
    return iter(self.layers)

  def __len__(self) -> int:
    return len(self.layers)

  def __getitem__(self, name: str) -> Layer:
    """The layer `name`; KeyError names the nearest one."""
    for layer in self.layers:
      if layer.name == name:
        return layer
    names = [layer.name for layer in self.layers]
    raise KeyError(f"network '{self.name}' has no layer '{name}'{did_you_mean(name, names)}.")

  def input_shapes(self, layer: Layer) -> list[Shape]:
    return [self.shapes[name] for name in layer.inputs]

  def reads(self, layer: Layer) -> tuple[Reads, ...]:
    """What `layer` reads of each of its inputs (`Layer.reads`).

    Raises:
      GraphError: the kind gives fewer or more answers than there are inputs, or one with channels that do not exist.
    """
    inputs, output = self.input_shapes(layer), self.shapes[layer.name]
    found = layer.reads(inputs, output)
    where = f"layer '{layer.name}' ({layer.kind})"
    if len(found) != len(inputs):
      raise GraphError(f"{where}: reads() has {len(found)} answers; expected one for each of the {len(inputs)} inputs.")
    for name, shape, reads in zip(layer.inputs, inputs, found, strict=True):
      for span in reads.spans:
        if not (0 <= span.start < span.end <= shape.channels and 0 <= span.out_start < span.out_end <= output.channels):
          raise GraphError(
            f"{where}: reads() says that channels {span.start} to {span.end - 1} of '{name}' give channels "
            f"{span.out_start} to {span.out_end - 1}; expected 0 to {shape.channels - 1} and 0 to {output.channels - 1}."
          )
    return found

  def is_view(self, layer: Layer) -> bool:
    """True if the output of `layer` is a run of channels of its one input, so that it needs no memory of its own."""
    return layer.copies and [len(reads.spans) for reads in self.reads(layer)] == [1]

  def arrays(self, layer: Layer) -> tuple[WeightArray, ...]:
    """Arrays that `layer` itself stores: none if it shares another layer's."""
    return () if layer.shared_with else layer.arrays(self.input_shapes(layer))

  @property
  def heads(self) -> tuple[Layer, ...]:
    """Layers whose outputs are the results: detection heads, else the last layer that computes."""
    heads = tuple(layer for layer in self.layers if layer.is_head)
    return heads or tuple(layer for layer in self.layers if layer.is_result)[-1:]

  @property
  def detects(self) -> bool:
    """True if the network has a detection head."""
    return any(layer.is_head for layer in self.layers)

  def resized(self, width: int, height: int) -> Graph:
    """The same layers on another input size, in pixels."""
    return dataclasses.replace(self, width=width, height=height)

  def renamed(self, names: Mapping[str, str]) -> Graph:
    """The same network with other layer names; `names` maps old to new and may be partial."""

    def rename(layer: Layer) -> Layer:
      changed: dict[str, Any] = {
        "name": names.get(layer.name, layer.name),
        "inputs": tuple(names.get(i, i) for i in layer.inputs),
      }
      if layer.shared_with:
        changed["share"] = names.get(layer.shared_with, layer.shared_with)
      return dataclasses.replace(layer, **changed)

    return dataclasses.replace(self, layers=tuple(map(rename, self.layers)))

  def canonical(self) -> Graph:
    """The same network under default names: equal canonical graphs are the same network."""
    return self.renamed({layer.name: default_name(layer, i) for i, layer in enumerate(self.layers)})


def default_name(layer: Layer | type[Layer], index: int) -> str:
  """Name of a layer that nobody named, e.g. "conv_12"."""
  return f"{layer.kind}_{index}"


def checked_shape(layer: Layer, seen: Mapping[str, Layer], shapes: Mapping[str, Shape]) -> Shape:
  """Output shape of `layer` behind the layers `seen`; GraphError in words if it cannot stand there."""
  where = f"layer '{layer.name}' ({layer.kind})"
  if not _NAME.fullmatch(layer.name) or layer.name in RESERVED:
    raise GraphError(
      f"{where}: bad name; expected lower-case letters, digits and '_', starting with a letter, and none of "
      f"{', '.join(RESERVED)}."
    )
  if layer.name in seen:
    raise GraphError(f"{where}: the name is used twice. Give every layer its own name.")
  for source in layer.inputs:
    if not isinstance(source, str) or source not in shapes:
      hint = did_you_mean(str(source), shapes)
      raise GraphError(f"{where}: no earlier layer is called '{source}'{hint}.")
  if layer.shared_with and layer.shared_with not in seen:
    hint = did_you_mean(layer.shared_with, seen)
    raise GraphError(f"{where}: shares the weights of '{layer.shared_with}', which is no earlier layer{hint}.")
  try:
    _check_input_count(layer)
    shape = layer.shape([shapes[name] for name in layer.inputs])
    _check_extent(shape, shapes[layer.inputs[0]] if layer.inputs else None)
    if layer.shared_with:
      _check_sharing(layer, seen[layer.shared_with], shapes)
  except GraphError:
    raise
  except ValueError as error:
    raise GraphError(f"{where}: {error}{_same_size_hint(layer, shapes)}") from None
  return shape


def _check_input_count(layer: Layer) -> None:
  count = len(layer.inputs)
  fits, expected = {
    Wiring.NONE: (count == 0, "none"),
    Wiring.PREVIOUS: (count == 1, "exactly one"),
    Wiring.PREVIOUS_AND_SOURCES: (count >= 1, "the layer before it, then the sources"),
    Wiring.SOURCES: (True, ""),
  }[layer.wiring]
  if not fits:
    raise ValueError(f"has {count} inputs {list(layer.inputs)}; expected {expected}.")


def _check_extent(shape: Shape, source: Shape | None) -> None:
  """Refuses empty outputs, and those that Darknet (and any accelerator) cannot index."""
  if min(shape) < 1:
    raise ValueError(f"its output would be {shape}: the input {source} is too small.")
  if shape.size > MAX_VALUES:
    raise ValueError(f"its output would be {shape}, {shape.size:,} values; expected at most {MAX_VALUES:,}.")


def _check_sharing(layer: Layer, owner: Layer, shapes: Mapping[str, Shape]) -> None:
  if type(owner) is not type(layer):
    raise ValueError(f"shares the weights of '{owner.name}', which is a {owner.kind}; expected a {layer.kind}.")
  if owner.shared_with:
    raise ValueError(f"shares the weights of '{owner.name}', which itself has none; share '{owner.shared_with}'.")
  mine, theirs = (x.arrays([shapes[i] for i in x.inputs]) for x in (layer, owner))
  if mine != theirs:
    raise ValueError(
      f"shares the weights of '{owner.name}', but needs {[a.file_shape for a in mine]} "
      f"and finds {[a.file_shape for a in theirs]}; input channels and all fields that shape the weights must agree."
    )


def _same_size_hint(layer: Layer, shapes: Mapping[str, Shape]) -> str:
  """For layers with several inputs: the nearest layer that has the size of the first."""
  if not layer.same_size or len({shapes[name][:2] for name in layer.inputs}) < 2:
    return ""
  first, wrong = layer.inputs[0], next(i for i in layer.inputs if shapes[i][:2] != shapes[layer.inputs[0]][:2])
  order = list(shapes)
  fitting = [n for n in order if n not in (first, INPUT) and shapes[n][:2] == shapes[first][:2]]
  if not fitting:
    return " No earlier layer has that size: is an upsample or a stride missing?"
  near = min(fitting, key=lambda n: abs(order.index(n) - order.index(wrong)))
  return f" Did you mean '{near}' ({shapes[near]}), or is an upsample missing before it?"
