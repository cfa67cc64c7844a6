"""A network in integers as files for other hardware: one manifest, one file of kernels and one of biases, all little-endian.

`manifest.json` names the operations in the order in which they run; what each does with integers is said in `OPERATIONS` and
docs/compression.md. `weights.bin` holds int8 kernels one after the other, each in tiles: filters in blocks of `tile.out` (outer loop),
channels of a group's input in blocks of `tile.in` (inner loop), a block as (rows x columns of the kernel, filters, channels); the last
block of an axis is smaller. `biases.bin` holds int32, one for each filter, in the scale of the sums. `network.cfg` is the graph, with
the anchors of the heads, which are left to the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.files.disk import sha256, write_text
from prn_jax.files.json_text import json_text
from prn_jax.files.places import folder_beside, to_path
from prn_jax.graph.graph import INPUT, Graph, Layer
from prn_jax.kinds.maxpool import MaxPool
from prn_jax.kinds.quantize import Quantize
from prn_jax.kinds.quantized_conv import QuantizedConv
from prn_jax.kinds.route import Route
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.kinds.upsample import Upsample
from prn_jax.model import Model
from prn_jax.nested import flattened
from prn_jax.quantize.integer import chooses, conv_integers, quantize_bits, slope_integers
from prn_jax.quantize.kernels import own_arrays
from prn_jax.quantize.rewrite import is_quantized
from prn_jax.transforms.fold_batchnorm import fold_batchnorm

FORMAT = "prn_jax integers 1"
MANIFEST, WEIGHTS, BIASES, NETWORK = "manifest.json", "weights.bin", "biases.bin", "network.cfg"
TILE = (64, 8)
OPERATIONS = ("image", "quantize", "conv", "add", "concat", "maxpool", "upsample", "copy")


def write(dst: str | Path, model: Model, tile: tuple[int, int] = TILE) -> dict[str, Any]:
  """Writes DST/ and gives its manifest.

  Args:
    dst: the folder; whole or not there.
    model: a network whose scales are powers of two, with its weights; batch norm is folded first.
    tile: filters and channels of a block of kernels.

  Raises:
    PrnError: the model is not quantised, a tile has no size, or DST is a file.
    OutOfScopeError: a layer has no integer form (named).
  """
  folder = to_path(dst)
  if not is_quantized(model.graph):
    raise PrnError(
      f"network '{model.graph.name}' is not quantised, so that it has no integers. Write it with --preset ptq-pow2 first, or "
      "train it with config.quant.preset=iao8-pow2, and give that."
    )
  if min(tile) < 1:
    raise PrnError(
      f"a tile of {tile[0]}x{tile[1]}; expected filters x channels of at least 1 each, as {TILE[0]}x{TILE[1]}."
    )
  if folder.is_file():
    raise PrnError(f"'{dst}' is a file; expected a folder for {MANIFEST}, {WEIGHTS} and {BIASES}.")
  made = _Export(*fold_batchnorm(model.graph, model.variables), tile)
  with folder_beside(folder, MANIFEST) as part:
    part.mkdir(parents=True, exist_ok=True)
    (part / WEIGHTS).write_bytes(bytes(made.weights))
    (part / BIASES).write_bytes(bytes(made.biases))
    write_text(part / NETWORK, model.cfg())
    manifest = made.manifest() | {"files": {name: sha256(part / name) for name in (WEIGHTS, BIASES, NETWORK)}}
    write_text(part / MANIFEST, json_text(manifest, indent=1) + "\n")
  return manifest


def tiles(kernel: np.ndarray, tile: tuple[int, int]) -> Iterator[np.ndarray]:
  """The blocks of a kernel (h, w, in, out) in their order: (h w, filters, channels)."""
  height, width, channels, filters = kernel.shape
  flat = kernel.reshape(height * width, channels, filters).transpose(0, 2, 1)
  for out in range(0, filters, tile[0]):
    for into in range(0, channels, tile[1]):
      yield flat[:, out : out + tile[0], into : into + tile[1]]


class _Export:
  """The operations of a graph, and the bytes that they point into."""

  def __init__(self, graph: Graph, variables: dict[str, Any], tile: tuple[int, int]) -> None:
    self.graph, self.tile = graph, tile
    self.flat = flattened(variables)
    self.weights, self.biases = bytearray(), bytearray()
    self.bits: dict[str, int] = {}  # layer -> fraction bits of its output
    self.operations = [self._operation(layer) for layer in graph if not layer.is_head]

  def manifest(self) -> dict[str, Any]:
    graph = self.graph
    heads = [{"name": head.name, "kind": head.kind, "input": head.inputs[0]} for head in graph.heads]
    return {
      "format": FORMAT,
      "byte_order": "little",
      "name": graph.name,
      "input": {"height": graph.height, "width": graph.width, "channels": graph.channels},
      "tile": {"out": self.tile[0], "in": self.tile[1]},
      "operations": self.operations,
      "heads": heads,
    }

  def _operation(self, layer: Layer) -> dict[str, Any]:
    if layer.inputs == (INPUT,) and not isinstance(layer, Quantize):
      raise OutOfScopeError(
        f"layer '{layer.name}' reads an image that is not rounded. Quantise with --preset ptq-pow2."
      )
    bits = {self.bits[name] for name in layer.inputs if name != INPUT}
    shape = self.graph.shapes[layer.name]
    usual = {"name": layer.name, "inputs": list(layer.inputs), "shape": [shape.height, shape.width, shape.channels]}
    if isinstance(layer, Quantize):
      found, own = self._quantize(layer)
    elif isinstance(layer, QuantizedConv):
      found, own = self._conv(layer, bits.pop())
    elif len(bits) == 1:
      found, own = self._other(layer, bits.pop())
    else:
      raise OutOfScopeError(f"layer '{layer.name}' joins maps with {sorted(bits)} fraction bits; expected one scale.")
    self.bits[layer.name] = own
    return usual | found | {"fraction_bits": own}

  def _own(self, layer: Layer) -> dict[str, np.ndarray]:
    return own_arrays(self.flat, layer.shared_with or layer.name)

  def _quantize(self, layer: Quantize) -> tuple[dict[str, Any], int]:
    bits, spec = quantize_bits(layer, self._own(layer)), layer.spec()
    ends = {"low": spec.qmin, "high": spec.qmax}
    if layer.inputs == (INPUT,):
      return {"op": "image"} | ends, bits
    return {"op": "quantize", "shift": self.bits[layer.inputs[0]] - bits} | ends, bits

  def _conv(self, layer: QuantizedConv, input_bits: int) -> tuple[dict[str, Any], int]:
    made = conv_integers(layer, self._own(layer), input_bits)
    if layer.antialiasing:
      raise OutOfScopeError(
        f"layer '{layer.name}' blurs (antialiasing={layer.antialiasing}), which has no integer form."
      )
    kernel = made.kernel.astype("<i1")
    found = {
      "op": "conv",
      "kernel": {"offset": len(self.weights), "shape": list(kernel.shape), "fraction_bits": made.kernel_bits},
      "bias": {"offset": len(self.biases), "fraction_bits": made.sum_bits},
      "strides": list(layer.strides),
      "zeros": [list(pair) for pair in layer.zeros_around(*self.graph.input_shapes(layer)[0][:2])],
      "dilation": layer.dilation,
      "groups": layer.groups,
      "activation": _activation(layer.activation, made.slope),
    }
    for block in tiles(kernel, self.tile):
      self.weights += block.tobytes()
    self.biases += made.bias.astype("<i4").tobytes()
    return found, made.sum_bits + made.slope[1]

  def _other(self, layer: Layer, bits: int) -> tuple[dict[str, Any], int]:
    if isinstance(layer, Shortcut) and layer.weights_type == "none":
      slope = slope_integers(layer.activation, layer.leaky_slope, f"layer '{layer.name}'")
      return {"op": "add", "activation": _activation(layer.activation, slope)}, bits + slope[1]
    if isinstance(layer, Route):
      return {"op": "concat", "groups": layer.groups, "group": layer.group_id}, bits
    if isinstance(layer, MaxPool) and chooses(layer) and not layer.depth_out:
      pads = layer.pads(self.graph.input_shapes(layer)[0])
      return {
        "op": "maxpool",
        "size": layer.size,
        "strides": list(layer.strides),
        "outside": [list(p) for p in pads],
      }, bits
    if isinstance(layer, Upsample) and chooses(layer):
      return {"op": "upsample", "factor": layer.stride}, bits
    if layer.copies and len(layer.inputs) == 1:
      return {"op": "copy"}, bits
    raise OutOfScopeError(f"layer '{layer.name}' ({layer.kind}) has no integer form.")


def _activation(name: str, slope: tuple[int, int]) -> dict[str, Any]:
  return {"name": name, "multiplier": slope[0], "shift": slope[1]} if name == "leaky" else {"name": name}
