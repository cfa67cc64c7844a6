"""Where a training starts: random, or from weights of the same network, of another one, or of a part of it.

Layers are matched by name; those whose arrays have other shapes (a head for other classes) stay random, or keep what does not
depend on the classes (`start_head`). What became of every layer stands in a `StartReport`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import GraphError, PrnError, WeightsError
from prn_jax.files.disk import is_file, is_folder
from prn_jax.files.places import to_path
from prn_jax.formats import darknet_weights
from prn_jax.formats.darknet_training import LayerTraining
from prn_jax.graph.graph import Graph
from prn_jax.labels import default_names, num_classes
from prn_jax.loading import load
from prn_jax.model import Model
from prn_jax.network import Variables, flatten_variables, init_variables, unflatten_variables
from prn_jax.train.start_head import kept_heads
from prn_jax.transforms.num_classes import with_num_classes
from prn_jax.transforms.warm_start import warm_start

_SHOWN = 8  # names in a line of the report
_HEADER_BYTES = (20, 16)


@dataclasses.dataclass(frozen=True)
class StartReport:
  """What became of the layers that have weights.

  Attributes:
    source: the origin of the weights, for people; "" without weights.
    loaded: layers that have them.
    random: layer that is random -> why.
    kept: layers below a head that keep what it knows of boxes and objects.
    classes: the classes that these have by name.
    unused: layers of the source that are not in the network, or do not fit.
  """

  source: str
  loaded: tuple[str, ...]
  random: Mapping[str, str]
  unused: tuple[str, ...] = ()
  kept: tuple[str, ...] = ()
  classes: tuple[str, ...] = ()

  def __str__(self) -> str:
    """A few lines: how many layers were loaded, which are random and why, which were not used."""
    total = len(self.loaded) + len(self.random) + len(self.kept)
    if not self.source:
      return f"start: random weights in all {total} layers"
    lines = [f"start: {len(self.loaded)} of {total} layers from {self.source}"]
    if self.kept:
      classes = f"the classes {_listed(self.classes)} by name" if self.classes else "no class (none has a known name)"
      lines.append(f"  keep boxes and objects of other classes, and {classes}: {_listed(self.kept)}")
    for reason, names in _grouped(self.random):
      lines.append(f"  random, {reason}: {_listed(names)}")
    if self.unused:
      lines.append(f"  not used: {_listed(self.unused)}")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Source:
  """Weights with their network; `arrays` has no layer that the file lacks."""

  text: str
  graph: Graph
  arrays: dict[str, Any]
  names: Sequence[str] = ()

  @property
  def layers(self) -> list[str]:
    """Names of the layers that the file has, in order."""
    held = {key.split("/")[1] for key in self.arrays}
    return [layer.name for layer in self.graph if layer.name in held]


def start_variables(
  graph: Graph,
  weights: str | Path | None = None,
  seed: int = 0,
  weights_model: str | Path | None = None,
  *,
  partial: bool | None = None,
  layers: Mapping[str, LayerTraining] | None = None,
  original: Graph | None = None,
  strict: bool = True,
  keep_head: Sequence[str] | None = None,
) -> tuple[Variables, StartReport]:
  """The variables that a training starts from.

  Args:
    graph: the network to train.
    weights: None (random); a Darknet file, whole or partial ("darknet53.conv.74"); or what carries its network: a
      saved model directory, .safetensors, or the directory of another run (its best checkpoint).
    seed: the seed of what is random.
    weights_model: the network of a Darknet file if it is not `graph`: a .cfg or a registered name. A file of the same
      network with another number of classes is recognised without it.
    partial: see `darknet_weights.load`; None also takes a file of any name that ends exactly before a layer.
    layers: settings of single layers; dontload and dontloadscales say what a Darknet file of `graph` lacks.
    original: what `graph` was before its transforms, if there were any: the weights may be those of either network, and
      those of the original are cut to the channels that are left (`transforms.warm_start`).
    strict: whether the cfg that `weights_model` names is read strictly; see `formats.darknet_cfg.parse`.
    keep_head: names of the classes, where heads shall keep what weights with other classes know; see `start_head`.

  Returns:
    {"params": ..., "batch_stats": ...} of numpy arrays, complete, and the report.

  Raises:
    PrnError: the weights cannot be read or do not fit, hold NaN or infinity, or no layer matches.
  """
  flat = flatten_variables(init_variables(graph, seed))
  if weights is None:
    names = [layer.name for layer in graph if graph.arrays(layer)]
    return unflatten_variables(flat), StartReport("", (), dict.fromkeys(names, "no weights were given"))
  graphs = [graph] if original is None else [original, graph]
  other = None if weights_model is None else load(weights_model, strict=strict)
  source = _open_one_of(graphs, to_path(weights), other, partial, layers or {})
  chosen, report = _match(graph, source) if original is None else _match_or_cut(graph, original, source)
  _check_any_fits(graph, source, report)
  if keep_head is not None:
    chosen, report = _with_kept_heads(graph, keep_head, flat, source, chosen, report)
  _check_finite(chosen, source.text)
  return unflatten_variables(flat | chosen), report


# -- opening -----------------------------------------------------------------------------------------------------------


def _open_one_of(graphs: list[Graph], *args: Any) -> _Source:
  """`_open` with the first graph that a Darknet file fits; if none does, the error is that of the first."""
  first, *others = graphs
  try:
    return _open(first, *args)
  except WeightsError:
    for graph in others:
      with contextlib.suppress(WeightsError):
        return _open(graph, *args)
    raise


def _open(
  graph: Graph, path: Path, other: Model | None, partial: bool | None, layers: Mapping[str, LayerTraining]
) -> _Source:
  if is_folder(path) or path.suffix == ".safetensors":
    if other is not None:
      raise PrnError(f"'{path}' carries its own network; leave weights_model ('{other.graph.name}') empty.")
    saved = load(path)
    return _source(f"'{path}'", saved.graph, saved.variables, saved.missing, saved.names)
  what = ""
  if other is not None:
    graph, layers, what = other.graph, other.training.layers if other.training else {}, f" of '{other.graph.name}'"
  try:
    return _read(path, graph, partial, layers, what)
  except WeightsError as error:
    found = _another_reading(path, graph, partial, layers, what) if is_file(path) else None
    if found is None and other is not None:
      raise
    if found is None:
      hint = " If they are of another network, name it: weights_model (a .cfg or a registered model)."
      raise WeightsError(f"{error}{hint if is_file(path) else ''}") from None
    return found


def _source(
  text: str, graph: Graph, variables: Variables, missing: tuple[str, ...], names: Sequence[str] = ()
) -> _Source:
  flat = flatten_variables(variables)
  held = {key: value for key, value in flat.items() if key.split("/")[1] not in missing}
  return _Source(text, graph, held, names or default_names(graph))


def _read(path: Path, graph: Graph, partial: bool | None, layers: Mapping[str, LayerTraining], what: str) -> _Source:
  """A Darknet file as the weights of `graph`."""
  loaded = darknet_weights.load(
    path,
    graph,
    partial=partial,
    skip={name for name, keys in layers.items() if keys.dontload},
    skip_scales={name for name, keys in layers.items() if keys.dontloadscales},
  )
  return _source(f"'{path}'{what}", graph, loaded.variables, loaded.missing)


def _another_reading(
  path: Path, graph: Graph, partial: bool | None, layers: Mapping[str, LayerTraining], what: str
) -> _Source | None:
  """A Darknet file that is not the whole of `graph`: of another number of classes, or one that ends exactly before a
  layer. A training may start from either; the report says which layers are random."""
  if partial is not None:
    return None
  if not what and (found := _other_classes(path, graph)):
    return found
  try:
    source = _read(path, graph, True, layers, what)
  except WeightsError:
    return None
  return dataclasses.replace(source, text=f"{source.text}, a part of the network") if source.arrays else None


def _other_classes(path: Path, graph: Graph) -> _Source | None:
  """The file as weights of the same network with another number of classes, if there is one that fits exactly."""
  try:
    one, two = (_num_values(with_num_classes(graph, n)) for n in (1, 2))
  except PrnError:
    return None
  for header_bytes in _HEADER_BYTES:
    classes, rest = divmod((path.stat().st_size - header_bytes) / 4 - one, two - one)
    if rest or classes < 0 or classes + 1 == num_classes(graph):
      continue
    try:
      return _read(
        path, with_num_classes(graph, int(classes) + 1), False, {}, f", which has {int(classes) + 1} classes"
      )
    except WeightsError:
      continue  # the other header
  return None


def _num_values(graph: Graph) -> int:
  return sum(array.size for layer in graph for array in graph.arrays(layer))


# -- matching ----------------------------------------------------------------------------------------------------------


def _match(graph: Graph, source: _Source) -> tuple[dict[str, Any], StartReport]:
  """The arrays of `source` for those layers of `graph` that they fit, under the names of `graph`."""
  names = {layer.name: layer.name for layer in graph}
  stored, text = source.layers, source.text
  if not any(name in names for name in stored):
    # A cfg numbers its layers, a registered model names them: the same network, told by the order of its layers.
    pairs = itertools.takewhile(lambda pair: type(pair[0]) is type(pair[1]), zip(graph, source.graph, strict=False))
    names, text = {mine.name: theirs.name for mine, theirs in pairs}, f"{text}, matched by position"
  chosen: dict[str, Any] = {}
  loaded, random = [], {}
  for layer in graph:
    arrays = graph.arrays(layer)
    if not arrays:
      continue
    theirs = names.get(layer.name, layer.name)
    keys = {key: array for array in arrays if (key := array.key(theirs)) in source.arrays or not array.counts}
    reason = _misfit(source, theirs, {key: array.array_shape for key, array in keys.items()})
    if reason:
      random[layer.name] = reason
      continue
    loaded.append(layer.name)
    chosen |= {array.key(layer.name): source.arrays[key] for key, array in keys.items()}
  used = {names.get(name, name) for name in loaded}
  return chosen, StartReport(text, tuple(loaded), random, tuple(name for name in stored if name not in used))


def _with_kept_heads(
  graph: Graph,
  names: Sequence[str],
  random: Mapping[str, Any],
  source: _Source,
  chosen: dict[str, Any],
  report: StartReport,
) -> tuple[dict[str, Any], StartReport]:
  """Layers below heads that are random take over what the pretrained ones know."""
  heads = kept_heads(graph, names, random, source.graph, source.names, source.arrays)
  heads = [head for head in heads if head.layer in report.random]
  if not heads:
    return chosen, report
  kept, used = tuple(head.layer for head in heads), {head.source for head in heads}
  return chosen | {key: value for head in heads for key, value in head.arrays.items()}, dataclasses.replace(
    report,
    random={name: why for name, why in report.random.items() if name not in kept},
    unused=tuple(name for name in report.unused if name not in used),
    kept=kept,
    classes=heads[0].classes,
  )


def _check_any_fits(graph: Graph, source: _Source, report: StartReport) -> None:
  if not report.loaded:
    raise PrnError(
      f"weights {source.text} fit none of the {len(report.random)} layers of network '{graph.name}'; they have "
      f"{_listed(source.layers) or 'no layer at all'}. Use weights of the same family, or for a Darknet file name its network: "
      "weights_model (a .cfg or a registered model)."
    )


def _match_or_cut(graph: Graph, original: Graph, source: _Source) -> tuple[dict[str, Any], StartReport]:
  """As `_match`; where more layers fit those of `original`, they are cut to what `graph` has of them."""
  chosen, report = _match(original, source)
  direct = _match(graph, source)
  if len(direct[1].loaded) >= len(report.loaded):
    return direct
  whole = unflatten_variables(flatten_variables(init_variables(original)) | chosen)
  try:
    cut = flatten_variables(warm_start(original, whole, graph))
  except GraphError as error:
    raise WeightsError(
      f"weights {source.text} are of the network without its transforms, and cannot be cut for it: {error} Train "
      "without weights, or with those of the transformed network."
    ) from None
  text = f"{report.source}, cut to the channels of the transformed network"
  loaded = {key: value for key, value in cut.items() if key.split("/")[1] in report.loaded}
  return loaded, dataclasses.replace(report, source=text)


def _misfit(source: _Source, layer: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
  """Why the arrays of a layer cannot be used; "" if they can."""
  own = {key: np.shape(value) for key, value in source.arrays.items() if key.split("/")[1] == layer}
  if not own:
    return "not among the weights"
  if own.keys() != shapes.keys():
    return "with or without batch norm, other than in the weights"
  return "" if own == dict(shapes) else "of another shape in the weights"


def _check_finite(arrays: Mapping[str, Any], text: str) -> None:
  for key, value in arrays.items():
    count = int(np.size(value) - np.isfinite(value).sum())
    if count:
      raise WeightsError(
        f"weights {text}: {key} holds {count} values that are NaN or infinite: the training that made them exploded. Start "
        "from other weights, such as an earlier checkpoint of it."
      )


def _grouped(random: Mapping[str, str]) -> list[tuple[str, list[str]]]:
  groups: dict[str, list[str]] = {}
  for name, reason in random.items():
    groups.setdefault(reason, []).append(name)
  return list(groups.items())


def _listed(names: list[str] | tuple[str, ...]) -> str:
  rest = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
