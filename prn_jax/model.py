"""A network with its weights: what users load, run and save. Everything else reaches graphs through `Model`."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from prn_jax import labels
from prn_jax.data_pipelines.images.channels import check_channels
from prn_jax.errors import ModelNotFoundError, PrnError, WeightsError, did_you_mean
from prn_jax.examples import ASSETS
from prn_jax.files.disk import is_file, is_folder, is_there
from prn_jax.files.places import to_path
from prn_jax.formats import checkpoints, darknet_cfg, darknet_weights, orbax
from prn_jax.formats.darknet_training import Training
from prn_jax.formats.darknet_weights import Header
from prn_jax.graph.graph import Graph
from prn_jax.models import registry

if TYPE_CHECKING:
  import os
  from typing import IO

  import jax
  from PIL import Image

  from prn_jax.detect.detections import Detections
  from prn_jax.run.classifier import Classification, Classifier
  from prn_jax.run.detector import Detector

  OneImage = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray
  Images = Sequence[OneImage] | Iterator[OneImage]

Resize = Literal["stretch", "letterbox"]
Variables = dict[str, Any]
_LOG = logging.getLogger(__name__)
MOST_INPUT = 64.0  # beyond it, an image is surely in 0..255


class Model:
  """A graph, its variables, and what is needed to read its results.

  Attributes:
    graph: the network.
    names: class names; may be empty.
    names_are_assumed: nobody gave them; they are COCO's or VOC's because of the number of classes.
    resize: how images are brought to the network's size.
    training: Darknet's training settings, if the cfg had them.
    header: header of the weights file that the variables come from.
    missing: layers that the weights file did not reach; they are random.
  """

  def __init__(
    self,
    graph: Graph,
    variables: Variables | None = None,
    *,
    names: Sequence[str] = (),
    resize: Resize = "stretch",
    training: Training | None = None,
    header: Header | None = None,
    missing: Sequence[str] = (),
  ) -> None:
    self.graph = graph
    self.names = tuple(names)
    self.names_are_assumed = False
    self.resize: Resize = resize
    self.training = training
    self.header = header
    self.missing = tuple(missing)
    self._variables = variables
    self._is_random = False
    self._compiled: dict[Any, Any] = {}
    self._last_predictor: tuple[Any, Detector | Classifier] | None = None

  @property
  def has_weights(self) -> bool:
    """False while the variables are (or would be) random."""
    return self._variables is not None and not self._is_random

  @property
  def variables(self) -> Variables:
    """{"params": ..., "batch_stats": ...}: nested dicts of arrays, NHWC/HWIO; random if none were loaded."""
    if self._variables is None:
      from prn_jax.network import init_variables

      _LOG.warning("model '%s' has no weights: its variables are random.", self.graph.name)
      self._variables, self._is_random = init_variables(self.graph), True
    return self._variables

  def forward(self, x_nhwc: Any, layers: str | Sequence[str] = "heads") -> dict[str, jax.Array]:
    """Runs the network as Darknet computes it: float32, no folding, highest convolution precision.

    Args:
      x_nhwc: (n, height, width, channels), RGB (or grey) in [0, 1], or uint8; another size than the graph's is allowed if the
        network has no fully connected layer.
      layers: "heads" (detections or class scores), "all", or layer names.

    Returns:
      Layer name -> (n, h, w, c) float32, activated as Darknet stores it, in cfg order.

    Raises:
      PrnError: the shape of `x_nhwc` does not fit. KeyError: no such layer.
    """
    import jax

    from prn_jax import compilation_cache
    from prn_jax.network import Network, wanted_layers

    compilation_cache.use()
    x = _unit_range(np.asarray(x_nhwc), self.graph)
    graph = self._graph_for(x.shape)
    wanted = tuple(wanted_layers(graph, layers))
    key = (x.shape, wanted)
    if key not in self._compiled:
      network = Network(graph, precision=jax.lax.Precision.HIGHEST)
      self._compiled[key] = jax.jit(functools.partial(network.apply, layers=wanted))
    outputs = self._compiled[key](self.variables, x)
    return {name: outputs[name] for name in wanted}  # jit returns them sorted by name

  def _graph_for(self, shape: tuple[int, ...]) -> Graph:
    g = self.graph
    if len(shape) != 4 or shape[3] != g.channels:
      raise PrnError(
        f"network '{g.name}' takes images of shape (n, {g.height}, {g.width}, {g.channels}), {colours(g.channels)} in "
        f"[0, 1]; got shape {shape}."
      )
    if shape[1:3] == (g.height, g.width):
      return g
    resized = g.resized(shape[2], shape[1])
    if any(resized.arrays(a) != g.arrays(b) for a, b in zip(resized, g, strict=True)):
      raise PrnError(
        f"network '{g.name}' has fully connected layers, which fix its input to {g.width}x{g.height}; "
        f"got {shape[2]}x{shape[1]}."
      )
    return resized

  # `str` and files are iterable, too, but name one image.
  @overload
  def __call__(self, images: OneImage, *, batch_size: int | None = None, **options: Any) -> Detections: ...
  @overload
  def __call__(self, images: Images, *, batch_size: int | None = None, **options: Any) -> list[Detections]: ...

  def __call__(self, images: Any, *, batch_size: int | None = None, **options: Any) -> Any:
    """Detects or classifies in images.

    Args:
      images: one image: a path, URL, bytes, open file (BytesIO), PIL image or array ((h, w, 3) uint8, or float in [0, 1];
        (h, w) or (h, w, 1) are grey). Or many: a list, a generator, an array (n, h, w, 3), a folder, a pattern ("*.jpg").
      batch_size: images per run of the network. By default 1, 2, 4 or 8, whichever holds what is there; a program is
        compiled for each of these sizes once.
      **options: fields of `detect.predict.DetectOptions`: conf, nms, classes, resize, max_detections, class_agnostic,
        nms_kind.

    Returns:
      `Detections` for one image, a list of them for many. A classifier gives `Classification`, for which `classify` has
      the types. A checker takes every `str` and array for one image; put a folder into a list where that matters.

    Raises:
      PrnError: an image cannot be read, or an option is wrong.
    """
    from prn_jax.run import images as predict

    if not predict.is_many(images):
      run = self._predictor(options, batch_size)
      image, path = predict.read(images)
      return run([image], [path])[0]
    return list(self.stream(images, batch_size=batch_size, **options))

  @overload
  def classify(self, images: OneImage, *, batch_size: int | None = None) -> Classification: ...  # type: ignore[overload-overlap]
  @overload
  def classify(self, images: Images, *, batch_size: int | None = None) -> list[Classification]: ...

  def classify(self, images: Any, *, batch_size: int | None = None) -> Any:
    """`model(images)` of a classifier. PrnError: the network detects."""
    if self.graph.detects:
      raise PrnError(f"network '{self.graph.name}' detects; call it: model(images).")
    return self(images, batch_size=batch_size)

  def stream(self, images: Any, *, batch_size: int | None = None, **options: Any) -> Iterator[Any]:
    """As `model(images)` for many images, one result after the other.

    However many there are, few are in memory: the next ones are decoded while the network works on these.
    """
    from prn_jax.run import images as predict

    run = self._predictor(options, batch_size)
    for result in predict.stream(run, predict.each(images)):
      if isinstance(result, predict.Failure):
        raise PrnError(result.reason)
      yield result

  def _predictor(self, options: dict[str, Any], batch_size: int | None) -> Detector | Classifier:
    """What runs with these options. All of them share the compiled network; the last one is kept."""
    from prn_jax.run import images as predict
    from prn_jax.run.inference import Inference

    check_channels(self.graph.channels, self.graph.name)  # before anything is computed
    checked = predict.options(self, options)
    sizes = predict.batch_sizes(batch_size)
    if self._last_predictor is None or self._last_predictor[0] != (checked, sizes):
      if "inference" not in self._compiled:
        self._compiled["inference"] = Inference(self)
      run = predict.predictor(self, checked, sizes, self._compiled["inference"])
      self._last_predictor = (checked, sizes), run
    return self._last_predictor[1]

  def digest(self) -> str:
    """sha256 over the names, shapes and bytes of all variables."""
    from prn_jax.formats.safetensors import digest
    from prn_jax.network import flatten_variables

    return digest({key: np.asarray(value) for key, value in flatten_variables(self.variables).items()})

  def release(self) -> None:
    """Forgets compiled programs and the memory that they hold."""
    self._compiled.clear()
    self._last_predictor = None

  def cfg(self) -> str:
    """The network and its training settings as Darknet cfg text."""
    return darknet_cfg.dump(self.graph, self.training)

  def save(self, dst: str | Path, *, any_size: bool = False) -> None:
    """Writes the model by the type of `dst`: a directory, or .weights, .cfg, .safetensors, .onnx.

    With `any_size` an .onnx file takes images of every size that the network allows, not of its own size only.
    """
    from prn_jax.export import convert

    convert.save(self, dst, any_size=any_size)

  def __repr__(self) -> str:
    g = self.graph
    state = "" if self.has_weights else ", random weights"
    return (
      f"Model('{g.name}', {g.width}x{g.height}x{g.channels}, {len(g)} layers, {labels.num_classes(g)} classes{state})"
    )


def colours(channels: int) -> str:
  """What the channels of a network's input are, in messages."""
  return {1: "grey", 3: "RGB"}.get(channels, "values")


def _unit_range(x: np.ndarray, graph: Graph) -> np.ndarray:
  """Images as float32 in [0, 1]; bytes are divided by 255, other values far outside are refused. Values a little
  outside, as augmentation and tests make them, pass."""
  if x.dtype == np.uint8:
    return x.astype(np.float32) / 255
  if not x.size:
    raise PrnError(f"network '{graph.name}' was given an empty batch, shape {x.shape}.")
  x = x.astype(np.float32, copy=False)
  if x.max() > MOST_INPUT:
    raise PrnError(
      f"network '{graph.name}' was given values up to {x.max():.4g}; expected {colours(graph.channels)} in [0, 1], or uint8."
    )
  return x


def load(
  model: str | Path,
  weights: str | Path | None = None,
  names: str | Path | Sequence[str] | None = None,
  *,
  strict: bool = True,
  partial: bool | None = None,
  **options: Any,
) -> Model:
  """Loads a model.

  Args:
    model: a registered name ("yolov3-tiny-prn"), a .cfg file, a saved model directory, or the directory of a
      training run (its best checkpoint, else the latest) or of one checkpoint in it.
    weights: Darknet weights or a saved model of the same network, where `model` has none.
    names: class names, or a file with one per line. By default those saved with the model; COCO's for 80
      classes and VOC's for 20.
    strict: see `formats.darknet_cfg.parse`.
    partial: see `formats.darknet_weights.load`.
    **options: of the registered model: width, height, num_classes, ...

  Raises:
    ModelNotFoundError: nothing has that name. CfgError, GraphError, WeightsError, CheckpointError: see there.

  Example:
    >>> load("yolov3-tiny-prn").graph.width
    416
  """
  loaded = _open(model, strict, options)
  if weights is not None:
    loaded = with_weights(loaded, weights, partial)
  if names is not None:
    loaded.names = labels.read_names(names)
  _assume_names(loaded)
  labels.check_names(loaded.names, loaded.graph)
  return loaded


def build(model: str, **options: Any) -> Model:
  """A registered model with random weights; `options` as width, height, num_classes."""
  built = Model(registry.build_graph(model, **options))
  _assume_names(built)
  return built


def _assume_names(model: Model) -> None:
  """Gives a model without names those that belong to its number of classes."""
  if not model.names:
    model.names = labels.default_names(model.graph)
    model.names_are_assumed = bool(model.names)


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
      ".safetensors. Weights are given beside their cfg (prn predict NET.cfg --weights FILE, weights= in Python); .onnx is written, not read."
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
  model.names = spec.names
  return with_weights(model, ASSETS / spec.weights)


def _open_cfg(path: Path, strict: bool) -> Model:
  cfg = darknet_cfg.read(path, strict)
  resize: Resize = "letterbox" if cfg.training.net.letter_box else "stretch"
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
  from prn_jax.formats import safetensors
  from prn_jax.network import unflatten_variables

  text, extra, flat = safetensors.load(path)
  return _saved_model(path, text, extra, unflatten_variables(flat))


def _saved_model(path: Path, cfg_text: str, extra: Mapping[str, Any], variables: Variables) -> Model:
  """A model from the parts of a saved file; `extra` is what `formats.convert.metadata` wrote."""
  cfg = darknet_cfg.parse(cfg_text, f"{path.name}/graph.cfg", strict=False)
  graph = dataclasses.replace(cfg.graph, name=extra.get("name") or cfg.graph.name)
  check_variables(variables, graph, f"'{path}'")
  return Model(
    graph,
    variables,
    names=extra.get("names", ()),
    resize=extra.get("resize", "stretch"),
    training=cfg.training,
    header=Header(**extra["header"]) if extra.get("header") else None,
    missing=extra.get("missing", ()),
  )


def check_variables(variables: Variables, graph: Graph, where: str) -> None:
  """Raises CheckpointError listing missing, extra and misshapen variables."""
  from prn_jax.network import expected_variables, flatten_variables

  orbax.check_keys(flatten_variables(variables), expected_variables(graph), where)


def with_weights(model: Model, weights: str | Path, partial: bool | None = None) -> Model:
  """The model with the weights of a Darknet file or of a saved model of the same network."""
  path = to_path(weights)
  if is_folder(path) or path.suffix == ".safetensors":
    source = _open(path, True, {})
    check_variables(source.variables, model.graph, f"'{path}'")
    return Model(
      model.graph, source.variables, names=model.names or source.names, resize=model.resize,
      training=model.training, header=source.header, missing=source.missing,
    )  # fmt: skip
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
  return Model(
    model.graph, variables, names=model.names, resize=model.resize, training=model.training,
    header=loaded.header, missing=loaded.missing,
  )  # fmt: skip


def _filled(variables: Variables, graph: Graph) -> Variables:
  """Random initialisation under the variables that a partial file has."""
  from prn_jax.network import flatten_variables, init_variables, unflatten_variables

  return unflatten_variables(flatten_variables(init_variables(graph)) | flatten_variables(variables))
