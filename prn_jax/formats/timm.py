"""ImageNet weights of timm -> our networks (docs/backbones.md).

A .safetensors file of timm holds arrays by name and no graph; the caller says which network it is, as timm writes it:
"timm/resnet50.a1_in1k". Every array of the file must have a place in our network and every array of the network one in
the file (`timm_rules.py`); shapes are compared, never adapted. What the weights expect of pixels becomes the [normalize]
layer in front: by the tag, or by the config.json that the Hugging Face Hub has beside the file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prn_jax.errors import BucketError, CheckpointError, PrnError, did_you_mean
from prn_jax.files.disk import aligned, is_file
from prn_jax.files.places import local_copy
from prn_jax.files.structured import read_json
from prn_jax.formats.safetensors import library
from prn_jax.formats.timm_rules import ARCHITECTURES, Architecture, Pixels, Rule
from prn_jax.graph.graph import Graph, Layer, WeightArray
from prn_jax.models.registry import build_graph

PREFIX = "timm/"
NORMALIZE = "stem_normalize"
COUNTER = ".num_batches_tracked"  # of PyTorch's batch norm: how often it was trained; nothing depends on it
_NUMBER = re.compile(r"\{([su])\}")
_BATCH_NORM = {"bn/bias": "bias", "bn/scale": "weight", "bn/mean": "running_mean", "bn/var": "running_var"}
_KERNELS = {"conv/kernel": "weight", "conv/bias": "bias"}
_SQUEEZE_EXCITE = {
  "reduce/kernel": "conv_reduce.weight",
  "reduce/bias": "conv_reduce.bias",
  "expand/kernel": "conv_expand.weight",
  "expand/bias": "conv_expand.bias",
}
_SHOWN = 6


class Source(NamedTuple):
  """What the name of some weights says."""

  name: str
  architecture: Architecture
  tag: str


def parse_name(text: str) -> Source:
  """ "timm/resnet50.a1_in1k", with or without the tag.

  Raises:
    PrnError: it is of no library that we know, or names no network or no weights of timm that we have.
  """
  if not text.startswith(PREFIX):
    raise PrnError(f"'{text}' names no weights of another library; expected timm/NAME, such as timm/resnet50.a1_in1k.")
  name, _, tag = text.removeprefix(PREFIX).partition(".")
  if name not in ARCHITECTURES:
    hint = did_you_mean(name, ARCHITECTURES)
    raise PrnError(f"'{text}': timm's '{name}' has no network here{hint}. These have: {', '.join(ARCHITECTURES)}.")
  return Source(name, ARCHITECTURES[name], tag)


def load(path: Path, name: str) -> tuple[Graph, dict[str, np.ndarray]]:
  """Our network with the weights of a file of timm.

  Args:
    path: a .safetensors file.
    name: what it is; see `parse_name`.

  Returns:
    The graph, with as many classes as the file has, and its variables: "collection/layer/path" -> float32 array.

  Raises:
    PrnError: see `parse_name`; or the tag is needed, to know what the weights expect of pixels.
    CheckpointError: the file cannot be read, is of another network, or holds NaN or infinity.
  """
  source = parse_name(name)
  pixels = _pixels(path, source)
  arrays = _read(path)
  graph = _graph(path, source, arrays, pixels)
  return graph, _matched(graph, source, arrays, f"'{path}'")


def _pixels(path: Path, source: Source) -> Pixels:
  """By config.json beside the file, else by the tag, else by the network if all its weights agree."""
  config = path.parent / "config.json"
  known = source.architecture.tags
  if is_file(config):
    root = read_json(config, CheckpointError)
    said = root["architecture"].text() if "architecture" in root else source.name
    if said != source.name:
      raise CheckpointError(
        f"'{config}' says that '{path.name}' is timm's '{said}', not '{source.name}'. Say --as timm/{said}."
      )
    if "pretrained_cfg" in root and "mean" in root["pretrained_cfg"]:
      cfg = root["pretrained_cfg"]
      mean = tuple(value.number(-10, 10) for value in cfg["mean"].items())
      std = tuple(value.number(1e-3, 10) for value in cfg["std"].items())
      if (len(mean), len(std)) != (3, 3):
        raise CheckpointError(
          f"'{config}' gives a mean of {len(mean)} and a std of {len(std)} numbers; expected 3 of each."
        )
      return Pixels(mean, std)
  if source.tag:
    if source.tag not in known:
      raise PrnError(
        f"timm's '{source.name}' has no weights '{source.tag}' that we know{did_you_mean(source.tag, known)}; what they "
        f"expect of pixels is unknown. Known: {', '.join(known)}. Or put its config.json beside '{path}'."
      )
    return known[source.tag]
  if len(set(known.values())) > 1:
    raise PrnError(
      f"weights of timm's '{source.name}' differ in what they expect of pixels. Say which these are: "
      f"{', '.join(f'timm/{source.name}.{tag}' for tag in known)}; or put their config.json beside '{path}'."
    )
  return next(iter(known.values()))


def _read(path: Path) -> dict[str, np.ndarray]:
  """All arrays but the counters, as float32."""
  library()
  import safetensors

  try:
    with local_copy(path) as copy, safetensors.safe_open(copy, framework="np") as file:
      arrays = {key: file.get_tensor(key) for key in file.keys() if not key.endswith(COUNTER)}  # noqa: SIM118
  except BucketError:
    raise
  except Exception as error:  # the library raises its own type for every kind of damage
    raise CheckpointError(f"'{path}' is not a readable safetensors file: {error}.") from None
  for key, value in arrays.items():
    if not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
      raise CheckpointError(f"'{path}': array '{key}' is of type {value.dtype}; expected floating-point numbers.")
    arrays[key] = value.astype(np.float32, copy=False)
    if not np.isfinite(arrays[key]).all():
      raise CheckpointError(f"'{path}': array '{key}' holds NaN or infinity. Fetch it again.")
  return arrays


def _graph(path: Path, source: Source, arrays: Mapping[str, np.ndarray], pixels: Pixels) -> Graph:
  architecture = source.architecture
  classifier = f"{_rule('head_conv', architecture.rules)[0].weight}.weight"
  if classifier not in arrays or arrays[classifier].ndim != 2:
    what = f"shape {arrays[classifier].shape}" if classifier in arrays else "none"
    raise CheckpointError(
      f"'{path}' has no classifier of timm's '{source.name}': expected an array '{classifier}' of two axes, found {what}."
    )
  options: dict[str, Any] = {"form": architecture.form} if architecture.form else {}
  graph = build_graph(architecture.model, num_classes=len(arrays[classifier]), **options)
  layers = tuple(
    dataclasses.replace(layer, **pixels._asdict()) if layer.name == NORMALIZE else layer for layer in graph
  )
  return dataclasses.replace(graph, layers=layers)


# -- names -----------------------------------------------------------------------------------------------


def _rule(layer: str, rules: tuple[Rule, ...]) -> tuple[Rule, dict[str, int]]:
  """The first rule that fits a layer, and the numbers in its name."""
  for rule in rules:
    match = re.fullmatch(_NUMBER.sub(r"(?P<\1>[0-9]+)", rule.layer), layer)
    if match:
      return rule, {key: int(value) for key, value in match.groupdict().items()}
  raise AssertionError(f"no rule for layer '{layer}'")


def _places(
  layer: Layer, arrays: tuple[WeightArray, ...], rules: tuple[Rule, ...]
) -> Iterator[tuple[WeightArray, str, Rule]]:
  """The arrays of a layer, the names that timm has for them ("" for a bias that it has not), and the rule."""
  rule, numbers = _rule(layer.name, rules)
  values = numbers | {f"{key}0": value - 1 for key, value in numbers.items()}
  weight, norm = rule.weight.format(**values), rule.norm.format(**values)
  for array in arrays:
    if array.path in _BATCH_NORM:
      yield array, f"{norm}.{_BATCH_NORM[array.path]}", rule
    elif array.path in _SQUEEZE_EXCITE:
      yield array, f"{weight}.{_SQUEEZE_EXCITE[array.path]}", rule
    elif array.path == "conv/bias" and rule.is_biasless:
      yield array, "", rule
    else:
      yield array, f"{weight}.{_KERNELS[array.path]}", rule


def _matched(graph: Graph, source: Source, arrays: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
  """Every array of the graph; CheckpointError where one is missing, left over, or of another shape."""
  flat: dict[str, np.ndarray] = {}
  used: set[str] = set()
  missing: list[str] = []
  for layer in graph:
    for array, key, rule in (
      _places(layer, graph.arrays(layer), source.architecture.rules) if graph.arrays(layer) else ()
    ):
      if not key:
        flat[array.key(layer.name)] = np.zeros(array.array_shape, np.float32)
      elif key not in arrays:
        missing.append(key)
      else:
        used.add(key)
        flat[array.key(layer.name)] = _converted(arrays[key], array, rule, f"{where}: array '{key}'")
  extra = sorted(arrays.keys() - used)
  if missing or extra:
    raise CheckpointError(
      f"{where} is not timm's '{source.name}': {_listed('missing', missing)}; {_listed('without a place', extra)}. Say "
      f"another name with --as."
    )
  return flat


def _expected_shape(array: WeightArray, rule: Rule) -> tuple[int, ...]:
  """The shape that timm's array has."""
  shape = array.file_shape
  if rule.part.endswith("half"):
    return (2 * shape[0], *shape[1:])
  if array.path in _SQUEEZE_EXCITE and len(shape) == 2:
    return (*shape, 1, 1)  # a matrix of ours that timm writes as a 1x1 convolution
  if rule.layer == "head_conv" and len(shape) == 4:
    return shape[:2]  # and the other way round
  return shape


def _converted(value: np.ndarray, array: WeightArray, rule: Rule, where: str) -> np.ndarray:
  """An array of PyTorch in our layout. Darknet's files have PyTorch's order of axes."""
  expected = _expected_shape(array, rule)
  if value.shape != expected:
    raise CheckpointError(f"{where} has shape {value.shape}; the network needs {expected}.")
  if rule.part.endswith("half"):
    value = np.split(value, 2)[0 if rule.part == "first half" else 1]
  elif rule.part and value.ndim == 4:
    value = np.concatenate(np.split(value, 2, 1)[::-1], 1)
  value = value.reshape(array.file_shape)
  return aligned(value.transpose(array.axes) if array.axes else value)


def _listed(what: str, names: list[str]) -> str:
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return f"{len(names)} {what}{': ' if names else ''}{', '.join(names[:_SHOWN])}{more}"
