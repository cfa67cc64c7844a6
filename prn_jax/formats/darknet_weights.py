"""Darknet weights files <-> variables, byte for byte (docs/darknet.md b).

A file is a header and bare float32 values, without names, shapes or checksum. So the graph must account for
every value: a file that is too short or too long is refused, with the layer at which it ends.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import WeightsError
from prn_jax.files.disk import aligned, written_beside
from prn_jax.files.places import local_copy, to_path
from prn_jax.graph.graph import Graph, Layer, WeightArray
from prn_jax.nested import flattened, nested

Variables = dict[str, Any]
_PARTIAL_NAME = re.compile(r"\.conv\.\d+$|\.\d+$")
_BACKBONE_NAME = re.compile(r"\.conv\.(\d+)$")


@dataclasses.dataclass(frozen=True)
class Header:
  """Head of a weights file.

  Attributes:
    major, minor, revision: version; above 1000 the kernels of connected layers are stored transposed.
    seen: images seen in training.
    seen_bytes: width of `seen` in the file: 8, or 4 before version 0.2.
  """

  major: int = 0
  minor: int = 2
  revision: int = 5
  seen: int = 0
  seen_bytes: int = 8

  @property
  def size(self) -> int:
    return 12 + self.seen_bytes

  @property
  def transposed(self) -> bool:
    return self.major > 1000 or self.minor > 1000

  def pack(self) -> bytes:
    kind = "Q" if self.seen_bytes == 8 else "I"
    return struct.pack(f"<iii{kind}", self.major, self.minor, self.revision, self.seen)

  def __str__(self) -> str:
    return f"{self.major}.{self.minor}.{self.revision} ({self.size} bytes)"


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A weights file as variables.

  Attributes:
    variables: {"params": ..., "batch_stats": ...} of numpy arrays; only of the layers in the file.
    header: its header, for writing the same bytes back.
    missing: names of layers of which the file lacks arrays; those keep their initialisation.
  """

  variables: Variables
  header: Header
  missing: tuple[str, ...]


def backbone_layers(path: str | Path) -> int | None:
  """The N of a file name that ends in ".conv.N": the weights of the first N layers of a network; else None."""
  match = _BACKBONE_NAME.search(Path(path).name)
  return int(match[1]) if match else None


def stored_arrays(
  graph: Graph, skip: Collection[str] = (), skip_scales: Collection[str] = ()
) -> Iterator[tuple[Layer, WeightArray]]:
  """Layers and arrays in file order; `skip` are layers that the file lacks (dontload), `skip_scales` layers
  whose batch norm it lacks (dontloadscales)."""
  for layer in graph:
    if layer.name in skip:
      continue
    for array in graph.arrays(layer):
      if layer.name in skip_scales and array.path in ("bn/scale", "bn/mean", "bn/var"):
        continue
      yield layer, array


def load(
  path: str | Path,
  graph: Graph,
  *,
  partial: bool | None = None,
  skip: Collection[str] = (),
  skip_scales: Collection[str] = (),
) -> Loaded:
  """Reads a weights file for `graph`.

  Args:
    path: the file.
    graph: the network it belongs to.
    partial: the file may end after any layer (a backbone such as "darknet53.conv.74"). None: only if its name
      ends in ".conv.N" or ".N".
    skip, skip_scales: see `stored_arrays`. Layers to skip that come last may be in the file all the same, since
      Darknet stops reading before them.

  Returns:
    Variables as numpy arrays (NHWC/HWIO), the header, and the layers that were not in the file.

  Raises:
    WeightsError: the file cannot be read, is too short, too long, or ends inside a layer.
  """
  path = to_path(path)
  partial = bool(_PARTIAL_NAME.search(path.name)) if partial is None else partial
  arrays = list(stored_arrays(graph, skip, skip_scales))
  floats = sum(array.size for _, array in arrays)
  flat: dict[str, np.ndarray] = {}
  try:
    with local_copy(path) as copy, copy.open("rb") as file:
      size = os.fstat(file.fileno()).st_size
      fitting = _layer_ends(arrays) if partial else [floats]
      header = _choose_header(file.read(20), size, path.name, fitting)
      found, stray = divmod(size - header.size, 4)
      if found == floats + _skipped_at_end(graph, skip):
        found = floats
      if stray or found not in fitting:
        raise _misfit(path.name, graph, arrays, size, header)
      file.seek(header.size)
      for layer, array in arrays:  # one array at a time: the file never lies in memory twice
        if found == 0:
          break
        values = np.fromfile(file, "<f4", array.size)
        flat[array.key(layer.name)] = from_file(values, array, header.transposed)
        found -= array.size
  except OSError as error:
    raise WeightsError(f"cannot read weights '{path}': {error.strerror}.") from None
  return Loaded(nested(flat), header, _missing(graph, flat))


def _skipped_at_end(graph: Graph, skip: Collection[str]) -> int:
  """Values of the layers `skip` if no other layer with values comes behind them, else 0."""
  stored = [layer for layer in graph if graph.arrays(layer)]
  count = sum(layer.name in skip for layer in stored)
  last = stored[len(stored) - count :]
  return sum(a.size for layer in last for a in graph.arrays(layer)) if all(x.name in skip for x in last) else 0


def _layer_ends(arrays: list[tuple[Layer, WeightArray]]) -> list[int]:
  """Values before the first layer, and up to the end of each."""
  counts: dict[str, int] = {}
  for layer, array in arrays:
    counts[layer.name] = counts.get(layer.name, 0) + array.size
  return [0, *itertools.accumulate(counts.values())]


def _missing(graph: Graph, flat: dict[str, np.ndarray]) -> tuple[str, ...]:
  """Layers that lack arrays."""
  found = collections.Counter(key.split("/")[1] for key in flat)
  return tuple(layer.name for layer in graph if found[layer.name] < len(graph.arrays(layer)))


def save(
  path: str | Path, graph: Graph, variables: Variables, header: Header | None = None, *, num_layers: int | None = None
) -> None:
  """Writes variables as a weights file; the header of the file they came from gives equal bytes.

  Args:
    num_layers: write the first so many layers alone (Darknet's `partial`); None writes all.

  Raises:
    WeightsError: a variable is missing, has another shape, or has no place in `graph`.
  """
  header = header or Header()
  _check_all_stored(graph, variables)
  with written_beside(to_path(path)) as file:
    file.write(header.pack())
    for layer, array in stored_arrays(graph, [layer.name for layer in graph.layers[num_layers:]] if num_layers else ()):
      file.write(to_file(lookup(variables, layer, array), array, header.transposed).tobytes())


def _check_all_stored(graph: Graph, variables: Variables) -> None:
  """A weights file has no room for variables of other networks; dropping them would lose them unnoticed."""
  known = {array.key(layer.name) for layer, array in stored_arrays(graph)}
  extra = [
    path for path in flattened({c: variables.get(c, {}) for c in ("params", "batch_stats")}) if path not in known
  ]
  if extra:
    raise WeightsError(
      f"network '{graph.name}' has no place for the variables {', '.join(extra[:5])}"
      f"{f' and {len(extra) - 5} more' if len(extra) > 5 else ''}: they belong to another network."
    )


def lookup(variables: Variables, layer: Layer, array: WeightArray) -> np.ndarray:
  """The variable of `array`; WeightsError if it is missing or has another shape."""
  node: Any = variables.get(array.collection, {})
  for key in (layer.name, *array.path.split("/")):
    node = node.get(key) if isinstance(node, Mapping) else None
  if node is None:
    raise WeightsError(f"layer '{layer.name}' ({layer.kind}) has no variable {array.collection}/{array.path}.")
  if tuple(node.shape) != array.array_shape:
    raise WeightsError(
      f"layer '{layer.name}' ({layer.kind}): {array.path} has shape {tuple(node.shape)}; "
      f"the graph needs {array.array_shape}."
    )
  return np.asarray(node)


def from_file(values: np.ndarray, array: WeightArray, transposed: bool = False) -> np.ndarray:
  """File values -> our array; `transposed` is the old layout [inputs][outputs] of connected kernels."""
  if transposed and array.path == "dense/kernel":
    values = values.reshape(-1, array.file_shape[0]).T
  values = values.reshape(array.file_shape)
  if array.axes:
    values = values.transpose(array.axes)
  return aligned(values.reshape(array.array_shape))


def to_file(values: np.ndarray, array: WeightArray, transposed: bool = False) -> np.ndarray:
  """The inverse of `from_file`."""
  values = np.asarray(values, np.float32).reshape(array.permuted_shape)
  if array.axes:
    values = values.transpose(np.argsort(array.axes))
  if transposed and array.path == "dense/kernel":
    values = values.reshape(array.file_shape[0], -1).T
  return np.ascontiguousarray(values, "<f4")


# -- headers and misfits ---------------------------------------------------------------------------
def _header(data: bytes, seen_bytes: int) -> Header:
  kind = "Q" if seen_bytes == 8 else "I"
  major, minor, revision, seen = struct.unpack_from(f"<iii{kind}", data)
  return Header(major, minor, revision, seen, seen_bytes)


def _not_darknet(header: Header) -> str:
  """A hint where the version is none that any Darknet ever wrote."""
  if 0 <= header.major <= 2000 and 0 <= header.minor <= 2000:
    return ""
  return f" Its first bytes are {header.pack()[:12]!r}: this does not look like a Darknet weights file."


def _choose_header(head: bytes, size: int, file: str, fitting: Collection[int]) -> Header:
  """The header by AlexeyAB's version rule, unless the size of the file decides for another beyond doubt.

  Of a transposed file it is pjreddie's (its `seen` has 32 bits) if only that one accounts for every value. Version
  0.0.0 announces 16 bytes; PyTorch-YOLOv3 and its copies write five numbers all the same: taken so if only 20 bytes fit
  and the fifth is 0. Elsewhere a size that fits another header means a damaged file.

  Args:
    head: the first 20 bytes.
    fitting: numbers of values that the network may have in the file.
  """
  if size < 20:
    raise WeightsError(f"weights {file}: only {size} bytes; a header alone takes 16 or 20. Is it a weights file?")
  major, minor = struct.unpack_from("<ii", head)
  first = 8 if major * 10 + minor >= 2 else 4
  header = _header(head, first)
  other = _header(head, 12 - first)
  sizes = {4 * count for count in fitting}
  if size - header.size in sizes or size - other.size not in sizes:
    return header
  if header.transposed:
    return other
  if head[:12] == bytes(12) and other.seen < 2**32:
    logging.getLogger(__name__).warning(
      "weights %s: version 0.0.0 announces a header of 16 bytes, but the size of the file fits 20, as PyTorch-YOLOv3 "
      "writes it; read so. What is written from it has version 0.2.5, which Darknet reads.",
      file,
    )
    return Header(seen=other.seen)
  return header


def _misfit(
  file: str, graph: Graph, arrays: list[tuple[Layer, WeightArray]], size: int, header: Header
) -> WeightsError:
  """Says at which layer the file ends, or how much is left, under the header that its version announces."""
  floats = sum(array.size for _, array in arrays)
  found, rest = divmod(size - header.size, 4)
  other = 36 - header.size  # 16 or 20: the header that the version does not announce
  verdict = "would fit, but not this version" if size == other + 4 * floats else "does not fit either"
  text = (
    f"weights {file}: header {header}, then {found:,} values{f' and {rest} stray bytes' if rest else ''}; "
    f"network '{graph.name}' needs {floats:,} (a {other}-byte header {verdict}).{_not_darknet(header)} "
  )
  if found > floats:
    return WeightsError(
      f"{text}{found - floats:,} values are left after the last layer: the cfg and the weights do not belong "
      "together. Use the cfg that the weights were trained with (same filters, same classes)."
    )
  if found == floats:
    return WeightsError(f"{text}{rest} bytes are left after the last layer: the file is damaged. Fetch it again.")
  return WeightsError(f"{text}{_end(graph, arrays, found, rest)}")


def _end(graph: Graph, arrays: list[tuple[Layer, WeightArray]], found: int, rest: int) -> str:
  """Where among the layers a file with `found` values and `rest` stray bytes ends, and what to do."""
  before = 0  # values of the layers that are complete
  for layer in graph:
    size = sum(array.size for owner, array in arrays if owner is layer)
    if before + size > found:
      break
    before += size
  which = f"layer {graph.layers.index(layer)} '{layer.name}' ({layer.kind})"
  if found == before and not rest:
    return (
      f"It ends exactly before {which}. If it is a partial file (a backbone), say so: --partial, or partial=True. "
      "Otherwise it is truncated or of another cfg."
    )
  return (
    f"It ends inside {which}, which has {found - before:,} of its {size:,} values: "
    "the file is truncated, or belongs to another cfg."
  )
