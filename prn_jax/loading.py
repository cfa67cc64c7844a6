"""From a name, a cfg, a saved model or a run directory to a `Model`; and weights for one."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax import labels
from prn_jax.data_pipelines.images import Resize
from prn_jax.errors import ModelNotFoundError, PrnError, WeightsError, did_you_mean
from prn_jax.examples import ASSETS
from prn_jax.files.disk import is_file, is_folder, is_there
from prn_jax.files.places import to_path
from prn_jax.formats import checkpoints, darknet_cfg, darknet_weights, orbax, safetensors
from prn_jax.formats.darknet_weights import Header
from prn_jax.graph.graph import Graph
from prn_jax.model import Model, Variables
from prn_jax.models import registry
from prn_jax.transforms import partial_residual
from prn_jax.transforms.warm_start import warm_start

_LOG = logging.getLogger(__name__)


def load(
  model: str | Path,
  weights: str | Path | None = None,
  names: str | Path | Sequence[str] | None = None,
  *,
  strict: bool = True,
  partial: bool | None = None,
  **options: Any,
) -> Model:
  """Loads a model. Arguments and errors are those of `prn_jax.load`, whose `Model` can be called on images besides."""
  loaded = _open(model, strict, options)
  if weights is not None:
    loaded = with_weights(loaded, weights, partial)
  if names is not None:
    loaded = dataclasses.replace(loaded, names=labels.read_names(names))
  loaded = _with_assumed_names(loaded)
  labels.check_names(loaded.names, loaded.graph)
  return loaded


def build(model: str, **options: Any) -> Model:
  """A registered model with random weights; `options` as width, height, num_classes."""
  return _with_assumed_names(Model(registry.build_graph(model, **options)))


def _with_assumed_names(model: Model) -> Model:
  """A model without names gets those that belong to its number of classes."""
  names = () if model.names else labels.default_names(model.graph)
  return dataclasses.replace(model, names=names, names_are_assumed=True) if names else model


def _open(model: str | Path, strict: bool, options: dict[str, Any]) -> Model:
  path = to_path(model)
  if is_folder(path) or darknet_cfg.is_cfg(path):
    if options:
      raise PrnError(f"options {sorted(options)} are for registered models; '{model}' already has its shape.")
    return _open_directory(path) if is_folder(path) else _open_cfg(path, strict)
  if path.suffix == ".safetensors" and is_file(path):
    return _open_safetensors(path)
  if is_file(path):
    raise ModelNotFoundError(
      f"'{model}' is not a network: expected a registered name, a .cfg file, a saved model or run directory, or "
      ".safetensors. Weights are given beside their cfg (prn predict NET.cfg --weights FILE, weights= in Python); .onnx files of ours are run by prn predict, eval, track and count alone."
    )
  try:
    return _with_carried_weights(str(model), options)
  except ModelNotFoundError as error:
    hint = " A path is taken only if it exists." if "/" in str(model) or path.suffix else ""
    raise ModelNotFoundError(f"{error}{hint}") from None


def _with_carried_weights(name: str, options: dict[str, Any]) -> Model:
  """A registered model, with the weights that the package carries for it, unless options change its shape."""
  model, spec = Model(registry.build_graph(name, **options)), registry.get_spec(name)
  if not spec.weights or model.graph != registry.build_graph(name).resized(model.graph.width, model.graph.height):
    return model
  return with_weights(dataclasses.replace(model, names=spec.names), ASSETS / spec.weights)


def _open_cfg(path: Path, strict: bool) -> Model:
  cfg = darknet_cfg.read(path, strict)
  resize = Resize.LETTERBOX if cfg.training.net.letter_box else Resize.STRETCH
  return Model(cfg.graph, resize=resize, training=cfg.training)


def _open_directory(path: Path) -> Model:
  if not orbax.is_model_directory(path) and checkpoints.is_run_directory(path):
    return _open_run(path)
  index = orbax.load_index(path)
  text = orbax.load_graph_cfg(path, index)
  return _saved_model(path, text, index, orbax.load_variables(path, index))


def _open_run(path: Path) -> Model:
  """The best checkpoint of a training run, else its latest; averaged weights where it kept them."""
  variables, meta = checkpoints.load_params(path)
  text, extra = checkpoints.described_model(path, meta)
  return _saved_model(path, text, extra, variables)


def _open_safetensors(path: Path) -> Model:
  from prn_jax.variables import unflatten_variables

  text, extra, flat = safetensors.load(path)
  return _saved_model(path, text, extra, unflatten_variables(flat))


def _saved_model(path: Path, cfg_text: str, extra: Mapping[str, Any], variables: Variables) -> Model:
  """A model from the parts of a saved file; `extra` is what `export.convert.metadata` wrote."""
  cfg = darknet_cfg.parse(cfg_text, f"{path.name}/graph.cfg", strict=False)
  graph = dataclasses.replace(cfg.graph, name=extra.get("name") or cfg.graph.name)
  check_variables(variables, graph, f"'{path}'")
  return Model(
    graph,
    variables,
    names=extra.get("names", ()),
    resize=extra.get("resize", Resize.STRETCH),
    training=cfg.training,
    header=Header(**extra["header"]) if extra.get("header") else None,
    missing=extra.get("missing", ()),
  )


def from_library(path: str | Path, name: str, names: str | Path | Sequence[str] | None = None) -> Model:
  """A classifier with the ImageNet weights of another library, read from its own file.

  Args:
    path: a .safetensors file of timm.
    name: what it is, as timm writes it: "timm/resnet50.a1_in1k".
    names: class names, or a file of them.

  Raises:
    PrnError: see `formats.timm.load`.

  Example: from_library("model.safetensors", "timm/darknet53.c2ns_in1k").forward(images)
  """
  from prn_jax.formats import timm
  from prn_jax.variables import unflatten_variables

  graph, flat = timm.load(to_path(path), name)
  model = Model(graph, unflatten_variables(flat), names=() if names is None else labels.read_names(names))
  labels.check_names(model.names, graph)
  return _with_assumed_names(model)


def check_variables(variables: Variables, graph: Graph, where: str) -> None:
  """Raises CheckpointError listing missing, extra and misshapen variables."""
  from prn_jax.variables import expected_variables, flatten_variables

  orbax.check_keys(flatten_variables(variables), expected_variables(graph), where)


def with_weights(model: Model, weights: str | Path, partial: bool | None = None) -> Model:
  """The model with the weights of a Darknet file or of a saved model of the same network."""
  path = to_path(weights)
  if is_folder(path) or path.suffix == ".safetensors":
    source = _open(path, True, {})
    check_variables(source.variables, model.graph, f"'{path}'")
    names = model.names or source.names
    return dataclasses.replace(
      model, weights=source.variables, names=names, header=source.header, missing=source.missing
    )
  if not is_there(path):
    nearby = [f.name for f in path.parent.glob("*.weights")] if is_folder(path.parent) else []
    raise WeightsError(f"weights file '{path}' does not exist{did_you_mean(path.name, nearby)}.")
  layers = model.training.layers if model.training else {}
  loaded = darknet_weights.load(
    path,
    model.graph,
    partial=partial,
    skip={name for name, keys in layers.items() if keys.dontload},
    skip_scales={name for name, keys in layers.items() if keys.dontloadscales},
  )
  variables = loaded.variables
  if loaded.missing:
    variables = _filled(loaded.variables, model.graph)
    _LOG.warning(
      "weights %s reach %d of %d layers with weights; left at random initialisation: %s.",
      path.name,
      sum(bool(model.graph.arrays(layer)) for layer in model.graph) - len(loaded.missing),
      sum(bool(model.graph.arrays(layer)) for layer in model.graph),
      ", ".join(loaded.missing),
    )
  return dataclasses.replace(model, weights=variables, header=loaded.header, missing=loaded.missing)


def _filled(variables: Variables, graph: Graph) -> Variables:
  """Random initialisation under the variables that a partial file has."""
  from prn_jax.variables import flatten_variables, init_variables, unflatten_variables

  return unflatten_variables(flatten_variables(init_variables(graph)) | flatten_variables(variables))


def transformed(model: Model, transforms: Sequence[str]) -> Model:
  """The model with a changed network, warm-started from its weights if it has any; see `partial_residual.apply`."""
  graph = functools.reduce(partial_residual.apply, transforms, model.graph)
  weights = warm_start(model.graph, model.variables, graph) if model.has_weights else None
  return dataclasses.replace(model, graph=graph, weights=weights)
