"""A network as the same network in few bits: convolutions become quantised ones, feature maps are rounded behind them.

    conv -> leaky              conv -> quantize -> leaky -> quantize        where runtimes need it (`Preset.splits`)
                               conv with leaky -> quantize                  else

What a pool, an upsample or a route gives lies on the grid of what it reads; where all of it does, the quantize layer behind
it shares the range of the one before, so that runtimes stay in integers. Layers keep their names. Layers of other kinds
(squeeze-and-excitation, matrix products, attention) compute in floats, on rounded inputs where their sources have them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.kinds.conv import Conv
from prn_jax.kinds.depthwise import Depthwise
from prn_jax.kinds.maxpool import MaxPool
from prn_jax.kinds.quantize import Quantize
from prn_jax.kinds.quantized_conv import QuantizedConv
from prn_jax.kinds.route import Route
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.kinds.upsample import Upsample
from prn_jax.nested import flattened, nested
from prn_jax.network import Variables
from prn_jax.ops.quantizers import QSpec
from prn_jax.quantize.presets import Preset

WIDE = 8  # bits of the image, of the first and the last layers, and of maps before an activation
SLOPE_BITS = 8  # where scales are powers of two, leaky slopes are multiples of 2^-8: 0.1 becomes 26/256
IN_CONVOLUTION = ("linear", "relu", "relu6")  # activations that runtimes compute with a convolution


def is_quantized(graph: Graph) -> bool:
  """True if a layer of the graph is quantised."""
  return any(isinstance(layer, Quantize | QuantizedConv) for layer in graph)


def check_not_quantized(graph: Graph) -> None:
  """Raises PrnError for a network that cannot be quantised (again)."""
  if is_quantized(graph):
    first = next(layer for layer in graph if isinstance(layer, Quantize | QuantizedConv))
    raise PrnError(
      f"network '{graph.name}' is quantised already (layer '{first.name}' is a {first.kind}). Quantise the float network "
      "that it comes from."
    )
  if not any(isinstance(layer, Conv | Depthwise) for layer in graph):
    raise PrnError(f"network '{graph.name}' has no convolution: there is nothing that could be quantised.")


def kept_in_float(graph: Graph) -> dict[str, str]:
  """Layers of a float network that compute something and stay as they are: name -> kind."""
  known = (Conv, Depthwise, MaxPool, Route, Shortcut, Upsample)
  return {
    layer.name: layer.kind
    for layer in graph
    if not (isinstance(layer, known) or layer.copies or layer.is_head) and layer.is_result
  }


def quantized_graph(graph: Graph, preset: Preset, *, freeze_after: int = 0, fold_until: int | None = None) -> Graph:
  """The network in few bits, under the same name; ranges and scales are variables, see `quantized_variables`.

  Args:
    graph: a float network; without batch norm, where the preset folds it.
    preset: how.
    freeze_after: training steps after which ranges stay; 0: never.
    fold_until: batch norm is folded into kernels while training, and its statistics stay after so many steps (0: never);
      None: kernels are rounded in front of batch norm.

  Raises:
    PrnError: see `check_not_quantized`; or a layer that shall stay float does not exist.
  """
  check_not_quantized(graph)
  for name in preset.floats:
    if not isinstance(next((layer for layer in graph if layer.name == name), None), Conv | Depthwise):
      known = [layer.name for layer in graph if isinstance(layer, Conv | Depthwise)]
      raise PrnError(f"network '{graph.name}' has no convolution '{name}' to stay float{did_you_mean(name, known)}.")
  return _Rewrite(graph, preset, freeze_after, fold_until).graph()


def quantized_variables(graph: Graph, variables: Variables) -> Variables:
  """The variables of a quantised graph from those of the float one: ranges and stored scales are empty yet, learned ones
  where the kernels are."""
  flat, rng = flattened(variables), np.random.default_rng(0)
  made = {}
  for layer in graph:
    for array in graph.arrays(layer):
      key = array.key(layer.name)
      made[key] = flat[key] if key in flat else layer.initial(array, rng)
  return nested(made)


class _Rewrite:
  def __init__(self, graph: Graph, preset: Preset, freeze_after: int, fold_until: int | None) -> None:
    self.old, self.preset, self.freeze_after, self.fold_until = graph, preset, freeze_after, fold_until
    self.layers: list[Layer] = []
    self.at: dict[str, str] = {}  # old layer -> layer that gives its output now
    self.taken = {layer.name for layer in graph}
    self.results = {head.name for head in graph.heads}
    self.readers: dict[str, list[Layer]] = {name: [] for name in (INPUT, *self.taken)}
    for layer in graph:
      for name in layer.inputs:
        self.readers[name].append(layer)
    self.groups = _Groups(graph, preset.common)
    self.owners: dict[str, str] = {}  # group -> its first quantize layer

  def graph(self) -> Graph:
    self.at[INPUT] = self._image()
    for layer in self.old:
      self._add(layer)
    return dataclasses.replace(self.old, layers=tuple(self.layers))

  def _image(self) -> str:
    """Bytes divided by 255 lie on their grid."""
    grid = QSpec(signed=False, pow2="none" if self.preset.weights_pow2 == "none" else "ceil")
    return self._quantize(INPUT, INPUT, dataclasses.replace(grid), method="range", momentum=1.0)

  def _add(self, old: Layer) -> None:
    layer = old
    if isinstance(layer, Depthwise):
      layer = layer.conv(self.old.input_shapes(old)[0].channels)
    if isinstance(layer, Conv) and layer.name not in self.preset.floats:
      layer = self._convolution(layer)
    layer = dataclasses.replace(layer, inputs=tuple(self.at[name] for name in old.inputs))
    if self.preset.weights_pow2 != "none" and getattr(layer, "activation", "") == "leaky":
      slope = max(round(layer.leaky_slope * 2**SLOPE_BITS), 1) / 2**SLOPE_BITS  # type: ignore[attr-defined]
      layer = dataclasses.replace(layer, leaky_slope=slope)  # type: ignore[call-arg]
    self.at[layer.name] = layer.name
    is_split = isinstance(layer, QuantizedConv | Shortcut) and layer.activation not in IN_CONVOLUTION
    if self.preset.splits and is_split and layer.name not in self.results:
      self.layers.append(dataclasses.replace(layer, activation="linear"))  # type: ignore[call-arg]
      self.at[layer.name] = self._quantize(layer.name, f"{layer.name}_sum", self._wide(), method="range")
      self.at[layer.name] = self._activation(layer, self.at[layer.name])
    else:
      self.layers.append(layer)
    if self._is_rounded(old):
      self.at[layer.name] = self._behind(old)

  def _convolution(self, layer: Conv) -> QuantizedConv:
    p = self.preset
    fields = {field.name: getattr(layer, field.name) for field in dataclasses.fields(Conv)}
    is_outer = INPUT in layer.inputs or self._feeds_head(layer.name)
    method = "max" if is_outer and p.weights_method in ("dorefa", "bwn", "bnn", "ternary") else p.weights_method
    bits = max(p.bits, WIDE) if is_outer else p.bits
    grid = {"bits": bits, "per_channel": p.per_channel, "weights_pow2": p.weights_pow2, "method": method}
    folding = {"folds": self.fold_until is not None, "bn_freeze_after": self.fold_until or 0}
    return QuantizedConv(**fields, **grid, **folding if layer.batch_normalize else {})  # type: ignore[arg-type]

  def _activation(self, layer: Layer, source: str) -> str:
    from prn_jax.kinds.activation import Activation

    name = self._name(f"{layer.name}_activation")
    fields = {key: getattr(layer, key) for key in ("activation", "leaky_slope")}
    self.layers.append(Activation(name=name, inputs=(source,), **fields))
    return name

  def _is_rounded(self, layer: Layer) -> bool:
    """True if a quantize layer stands behind: results of what computes in integers, and what such layers read."""
    if layer.name in self.results or _passes(self.old, layer):
      return False
    if not self.preset.rounds_results and isinstance(layer, Conv | Depthwise) and self._feeds_head(layer.name):
      return False
    if isinstance(layer, Conv | Depthwise | Shortcut | MaxPool | Upsample | Route):
      return True
    return any(
      isinstance(r, Conv | Depthwise | Shortcut | MaxPool | Upsample | Route) for r in self._reading(layer.name)
    )

  def _reading(self, name: str) -> list[Layer]:
    """What reads a layer, through those that pass it on."""
    found = []
    for reader in self.readers[name]:
      found += self._reading(reader.name) if _passes(self.old, reader) else [reader]
    return found

  def _feeds_head(self, name: str) -> bool:
    """True for the last convolutions, whose outputs become results without another one."""
    readers = self._reading(name)
    return not any(isinstance(r, Conv | Depthwise) or (not r.is_head and not self._feeds_head(r.name)) for r in readers)

  def _behind(self, layer: Layer) -> str:
    feeds = any(isinstance(r, Conv | Depthwise) and self._feeds_head(r.name) for r in self._reading(layer.name))
    spec = self._wide() if feeds or self._feeds_head(layer.name) else self.preset.activations
    return self._quantize(self.at[layer.name], layer.name, spec)

  def _wide(self) -> QSpec:
    return dataclasses.replace(self.preset.activations, bits=max(self.preset.bits, WIDE))

  def _quantize(self, source: str, of: str, spec: QSpec, **fields: object) -> str:
    """A quantize layer behind `source`, for the map that the old network calls `of`."""
    group = self.groups.root(of)
    usual = {"method": self.preset.method, "freeze_after": self.freeze_after}
    usual["momentum"] = 0.9 if self.preset.trains else 1.0
    layer = Quantize(
      name=self._name(f"{of}_q"),
      inputs=(source,),
      bits=spec.bits,
      signed=spec.signed,
      symmetric=spec.symmetric,
      pow2=spec.pow2,
      **usual | fields,  # type: ignore[arg-type]
      share=self.owners.get(group, ""),
    )
    self.owners.setdefault(group, layer.name)
    self.layers.append(layer)
    return layer.name

  def _name(self, name: str) -> str:
    while name in self.taken:
      name += "_"
    self.taken.add(name)
    return name


def _passes(graph: Graph, layer: Layer) -> bool:
  """True if a layer hands its one input on as it is."""
  return layer.copies and len(layer.inputs) == 1 and graph.shapes[layer.name] == graph.shapes[layer.inputs[0]]


class _Groups:
  """Maps that have one range: what holds nothing but values of another map, and what is added or joined, where the preset
  wants one scale for that."""

  def __init__(self, graph: Graph, common: str) -> None:
    self._parents: dict[str, str] = {}
    for layer in graph:
      if _keeps_values(layer) or _passes(graph, layer):
        self._join(layer.name, layer.inputs[0])
      if common != "none" and isinstance(layer, Shortcut):
        self._join(*layer.inputs)
      if common == "all" and isinstance(layer, Route):
        self._join(layer.name, *layer.inputs)

  def root(self, name: str) -> str:
    while name in self._parents:
      name = self._parents[name]
    return name

  def _join(self, first: str, *others: str) -> None:
    for other in others:
      a, b = self.root(first), self.root(other)
      if a != b:
        self._parents[a] = b


def _keeps_values(layer: Layer) -> bool:
  if isinstance(layer, MaxPool):
    return not layer.antialiasing
  if isinstance(layer, Upsample):
    return layer.stride > 0 and layer.scale == 1
  return isinstance(layer, Route) and len(layer.inputs) == 1


def with_ranges(graph: Graph, variables: Variables, ends: Mapping[str, tuple[float, float]]) -> Variables:
  """The variables with these ranges of quantize layers; learned steps start at the step of the range."""
  flat = dict(flattened(variables))
  for name, (low, high) in ends.items():
    layer = graph[name]
    assert isinstance(layer, Quantize)
    if layer.method == "range":
      flat |= {
        f"batch_stats/{name}/{leaf}": np.full(1, end, np.float32) for leaf, end in (("low", low), ("high", high))
      }
    elif layer.method != "dorefa":
      top = max(-low, high, 1e-6)
      step = np.log2(top) if layer.method == "tqt" else top / max(layer.spec().qmax, 1)
      flat[f"params/{name}/step"] = np.full(1, step, np.float32)
  return nested(flat)


def ranges_of(graph: Graph) -> dict[str, Quantize]:
  """The quantize layers that own a range that a calibration finds: all but the image's, whose range is known."""
  return {x.name: x for x in graph if isinstance(x, Quantize) and not x.share and x.inputs != (INPUT,)}


def image_range(graph: Graph) -> dict[str, tuple[float, float]]:
  """The known range of the image."""
  return {x.name: (0.0, 1.0) for x in graph if isinstance(x, Quantize) and not x.share and x.inputs == (INPUT,)}


def convolutions_of(graph: Graph) -> dict[str, QuantizedConv]:
  """The quantised convolutions that own a kernel."""
  return {layer.name: layer for layer in graph if isinstance(layer, QuantizedConv) and not layer.share}
