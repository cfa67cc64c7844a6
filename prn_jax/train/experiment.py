"""From a configuration to everything that the loop needs: data, network, optimiser, compiled steps, evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig
from prn_jax.data_pipelines.images.channels import check_channels
from prn_jax.data_pipelines.joined import check_fully_annotated, images_per_epoch
from prn_jax.data_pipelines.records import DataError, Dataset, Task, classes_text, unknown_classes, with_names
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import GraphError, PrnError, did_you_mean
from prn_jax.files.disk import is_folder
from prn_jax.files.places import to_path
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import Training
from prn_jax.graph.graph import Graph
from prn_jax.graph.sizes import Size, resized
from prn_jax.labels import num_classes
from prn_jax.loading import load
from prn_jax.models.registry import build_graph, get_spec
from prn_jax.network import Network, Variables
from prn_jax.quantize.rewrite import image_range, with_ranges
from prn_jax.run.mesh import make_mesh
from prn_jax.train.config import ConfigError, TrainConfig
from prn_jax.train.defaults import resolve
from prn_jax.train.evaluation import Validation
from prn_jax.train.losses import FROM_CONFIG, Objective
from prn_jax.train.optim import frozen_layers, make_optimizer
from prn_jax.train.own_anchors import with_own_anchors
from prn_jax.train.quant import quantized_for_training
from prn_jax.train.sharding import StepFn, check_batch_size, compile_step
from prn_jax.train.sparse import Sparsity, sparsity_of
from prn_jax.train.start import StartReport, start_variables
from prn_jax.train.step import Recipe
from prn_jax.train.teacher import Lessons, open_lessons
from prn_jax.transforms import partial_residual
from prn_jax.transforms.num_classes import with_anchors, with_num_classes

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
  """A run before its first step.

  Attributes:
    asked: the configuration of the user.
    config: the same with numbers for what was left open (`defaults.resolve`); `chosen` says which.
    graph: the network at its main size.
    training: Darknet's settings of the cfg, if it comes from one.
    names: class names, in the order of the network's outputs.
    dataset: training images.
    pipeline: how batches are made of them.
    mesh: all devices.
    recipes, steps: size (width, height) -> recipe and compiled step; the main size is the first.
    schedule: updates done -> learning rate.
    total_steps, eval_steps, checkpoint_steps, log_steps: durations in steps; 0 is never.
    evaluator: None without validation data.
    resize: how images come to the network's size, here and wherever the trained network is used.
    variables, start: the variables at the start, and what they come from.
    objective: the loss, and what it reads beside the batch.
    sparsity: the penalty on scales of batch norm; None without one.
    lessons: the teacher; None without one. The networks of the recipes have its adapters, `graph` has not.
  """

  asked: TrainConfig
  config: TrainConfig
  chosen: tuple[str, ...]
  graph: Graph
  training: Training | None
  names: tuple[str, ...]
  dataset: Dataset
  pipeline: PipelineConfig
  mesh: jax.sharding.Mesh
  recipes: Mapping[Size, Recipe]
  steps: Mapping[Size, StepFn]
  schedule: optax.Schedule
  total_steps: int
  eval_steps: int
  checkpoint_steps: int
  log_steps: int
  evaluator: Validation | None
  resize: str
  variables: Variables
  start: StartReport
  objective: Objective = FROM_CONFIG
  sparsity: Sparsity | None = None
  lessons: Lessons | None = None

  @property
  def recipe(self) -> Recipe:
    """The step at the main size."""
    return next(iter(self.recipes.values()))

  def graph_cfg(self) -> str:
    """The network as cfg text, for images as it was trained with."""
    training = self.training or Training()
    if self.graph.detects:
      net = dataclasses.replace(training.net, letter_box=self.resize == "letterbox")
      training = dataclasses.replace(training, net=net)
    return darknet_cfg.dump(self.graph, training)


def open_experiment(
  config: TrainConfig,
  mesh: jax.sharding.Mesh | None = None,
  *,
  is_resumed: bool = False,
  dataset: Dataset | None = None,
  objective: Objective = FROM_CONFIG,
) -> Experiment:
  """Opens the data, builds the network, prepares the steps; nothing is compiled yet.

  Args:
    config: see `TrainConfig`.
    mesh: the devices to train on; by default all devices of all processes.
    is_resumed: a checkpoint will take the place of the variables, so that `config.weights` is not read.
    dataset: data in place of all data of the config, which is not opened then; there is no evaluation.
    objective: the loss, by default that of the config.

  Raises:
    PrnError: data, network and settings do not fit together, or one of them is wrong.
  """
  config, dataset = _with_data(config, dataset)
  graph, training, resize = build_network(config, len(dataset.names))
  _check_task(config, graph, dataset)
  graph, fitted = with_own_anchors(graph, dataset, resize) if config.fit_anchors else (graph, ())
  mesh, num_images = mesh or make_mesh(), images_per_epoch(dataset)
  asked, (config, chosen) = config, resolve(config, num_images, mesh)
  _check_batch(config, mesh)
  durations = _durations(config, num_images)
  layers = training.layers if training else {}
  before, frozen = graph, frozen_layers(graph, config.optim, layers)
  graph = quantized_for_training(config.quant, graph, durations["total"])
  sparsity = sparsity_of(config.sparse, graph, durations["total"], frozen)
  lessons = open_lessons(config.distill, graph, dataset.names, dtype=DTYPES[config.dtype], seed=config.seed)
  objective = lessons.objective(objective) if lessons else objective
  tx, schedule = make_optimizer(config.optim, graph, durations["total"], layers, seed=config.seed, sparsity=sparsity)
  variables, start = _start(config, graph, training, dataset.names, before, lessons, is_resumed)
  sizes = _sizes(graph, config, lessons)
  recipes = {size: _recipe(config, one, training, tx, objective, frozen) for size, one in sizes}
  return Experiment(
    asked=asked,
    config=config,
    chosen=(*chosen, *fitted, *_asked_for(graph, sparsity, lessons)),
    graph=graph,
    training=training,
    names=dataset.names,
    dataset=dataset,
    pipeline=_pipeline(config, tuple(recipes), graph.channels),
    mesh=mesh,
    recipes=recipes,
    steps={size: compile_step(recipe, mesh, config.bn_scope) for size, recipe in recipes.items()},
    schedule=schedule,
    **_distances(durations),
    evaluator=_evaluator(config, graph, dataset.names, mesh, resize),
    resize=resize,
    variables=variables,
    start=start,
    objective=objective,
    sparsity=sparsity,
    lessons=lessons,
  )


def _with_data(config: TrainConfig, dataset: Dataset | None) -> tuple[TrainConfig, Dataset]:
  """The training data: what is given, in place of all data of the config, or what the config names."""
  if dataset is None:
    return config, open_spec(config.data.train, config.data.on_bad_data)
  return dataclasses.replace(config, data=dataclasses.replace(config.data, valid="")), dataset


def _distances(durations: Mapping[str, int]) -> dict[str, int]:
  """The fields of an experiment that count steps."""
  return {
    "total_steps": durations["total"],
    "eval_steps": durations["eval.every"],
    "checkpoint_steps": durations["checkpoint_every"] or max(1, durations["total"] // 10),
    "log_steps": durations["log_every"],
  }


def _asked_for(graph: Graph, sparsity: Sparsity | None, lessons: Lessons | None) -> tuple[str, ...]:
  """A line each for what makes this run more than a usual one."""
  return (*([sparsity.text(graph)] if sparsity else ()), *(lessons.notes if lessons else ()))


def own_classes(config: TrainConfig) -> int:
  """Number of classes that the model has by itself."""
  path = to_path(config.model)
  if darknet_cfg.is_cfg(path) or is_folder(path):
    return num_classes(load(path, strict=not config.lenient).graph)
  return num_classes(build_graph(config.model, **dict(config.model_options)))


def build_network(config: TrainConfig, classes: int) -> tuple[Graph, Training | None, str]:
  """The graph, transformed, with the data's number of classes, the config's size and anchors; training settings;
  resize mode. A detector sees its images as it is trained with them, whatever a cfg says.

  Raises:
    PrnError: the config names a model, option or transform that does not exist or does not fit.
  """
  path = to_path(config.model)
  if darknet_cfg.is_cfg(path) or is_folder(path):
    if config.model_options:
      raise ConfigError(f"config.model_options are for registered models; '{config.model}' already has its shape.")
    model = load(path, strict=not config.lenient)
    graph, training, resize = model.graph, model.training, str(model.resize)
  else:
    options = dict(config.model_options)
    if "num_classes" in get_spec(config.model).options:
      options.setdefault("num_classes", classes)
    graph, training, resize = build_graph(config.model, **options), None, "stretch"
  if graph.detects and isinstance(config.augment, DetectionAugment):
    resize = "letterbox" if config.augment.letterbox else "stretch"
  for i, text in enumerate(config.transforms):
    try:
      graph = partial_residual.apply(graph, text)
    except PrnError as error:
      raise ConfigError(f"config.transforms[{i}]: {error}") from None
  size = (config.width or graph.width, config.height or graph.height)
  if size != (graph.width, graph.height):
    graph = _resized(graph, size, "config.width and config.height")
  if num_classes(graph) != classes:
    graph = with_num_classes(graph, classes)
  return (with_anchors(graph, config.anchors) if config.anchors else graph), training, resize


def _sizes(graph: Graph, config: TrainConfig, lessons: Lessons | None) -> Iterator[tuple[Size, Graph]]:
  """Every size of the run, its own first, with the network that is trained there."""
  yield (graph.width, graph.height), lessons.student(graph) if lessons else graph
  for i, size in enumerate(config.sizes):
    other = _resized(graph, size, f"config.sizes[{i}]")
    yield size, lessons.student(other) if lessons else other


def _resized(graph: Graph, size: Size, key: str) -> Graph:
  try:
    return resized(graph, size, key)
  except GraphError as error:
    raise ConfigError(str(error)) from None


def _check_task(config: TrainConfig, graph: Graph, dataset: Dataset) -> None:
  check_channels(graph.channels, graph.name)
  if graph.detects != (config.task == "detect"):
    does = "detects" if graph.detects else "classifies"
    raise ConfigError(f"config.task is '{config.task}', but network '{graph.name}' {does}.")
  if graph.detects and dataset.task is not Task.DETECT:
    raise DataError(f"data '{config.data.train}' has classes of whole images, no boxes; a detector needs those.")
  if not graph.detects and dataset.task is not Task.CLASSIFY:
    raise DataError(f"data '{config.data.train}' has boxes, no classes of whole images; a classifier needs those.")


def _check_batch(config: TrainConfig, mesh: jax.sharding.Mesh) -> None:
  """Raises ConfigError unless every device gets as many images, and every process whole groups of those that mosaic or
  mixup mix."""
  check_batch_size(config.batch_size, config.optim.accumulate, mesh)
  group, hosts = config.augment.group_size, len({device.process_index for device in mesh.devices.flat})
  if config.batch_size % (group * hosts):
    unit = math.lcm(group * hosts, config.optim.accumulate * mesh.size)  # of what the devices need, too
    below, above = config.batch_size // unit * unit, (config.batch_size // unit + 1) * unit
    name, where = "mosaic" if group == 4 else "mixup", f" on each of {hosts} processes" if hosts > 1 else ""
    raise ConfigError(
      f"config.augment.{name} mixes groups of {group} images, but batch_size {config.batch_size} is no whole number of "
      f"groups{where}. Choose a multiple of {unit}, such as {above}{f' or {below}' if below else ''}, or give "
      f"config.augment.{name}=False."
    )


def _durations(config: TrainConfig, num_images: int) -> dict[str, int]:
  given = {
    "total": config.total,
    "eval.every": config.eval.every,
    "checkpoint_every": config.checkpoint_every,
    "log_every": config.log_every,
  }
  steps = {key: value.to_steps(config.batch_size, num_images, f"config.{key}") for key, value in given.items()}
  if not steps["total"]:
    raise ConfigError("config.total is empty; give the length of the run, as config.total.epochs = 10.")
  return steps


def _pipeline(config: TrainConfig, sizes: tuple[Size, ...], channels: int) -> PipelineConfig:
  return PipelineConfig(
    seed=config.seed,
    batch_size=config.batch_size,
    sizes=sizes,
    resize_every=config.resize_every_steps,
    max_boxes=config.data.max_boxes,
    channels=channels,
    on_bad_data=config.data.on_bad_data,
    threads=config.data.threads or None,
    workers=config.data.workers,
    prefetch=config.data.prefetch,
    cache_mb=config.data.cache_mb,
  )


def _recipe(
  config: TrainConfig,
  graph: Graph,
  training: Training | None,
  tx: optax.GradientTransformation,
  objective: Objective,
  frozen: frozenset[str],
) -> Recipe:
  layers, loss_fn = objective.make_loss(graph, config.loss, training)
  return Recipe(
    network=Network(graph, dtype=DTYPES[config.dtype], bn_momentum=config.bn_momentum),
    tx=tx,
    loss_fn=loss_fn,
    layers=layers,
    accumulate=config.optim.accumulate,
    ema_decay=config.optim.ema_decay,
    frozen=frozen,
    remat=config.remat,
    seed=config.seed,
  )


def _start(
  config: TrainConfig,
  graph: Graph,
  training: Training | None,
  names: tuple[str, ...],
  unrounded: Graph,
  lessons: Lessons | None,
  is_resumed: bool,
) -> tuple[Variables, StartReport]:
  """The variables to begin with; weights of the network before its transforms, or before it was quantised, will do. Those
  of a run that is resumed come from its checkpoint: no weights are read."""
  weights = "" if is_resumed else config.weights
  original = None if unrounded is graph else unrounded
  if weights and config.transforms:
    original = build_network(dataclasses.replace(config, transforms=()), num_classes(graph))[0]
  variables, report = start_variables(
    graph,
    weights or None,
    config.seed,
    config.weights_model or None,
    layers=training.layers if training else {},
    original=original,
    strict=not config.lenient,
    keep_head=names if config.keep_head else None,
  )
  variables = with_ranges(graph, variables, {} if is_resumed else image_range(graph))
  return (lessons.with_adapters(variables, graph) if lessons else variables), report


def _evaluator(
  config: TrainConfig, graph: Graph, names: tuple[str, ...], mesh: jax.sharding.Mesh, resize: str
) -> Validation | None:
  if not config.data.valid:
    return None
  dataset = open_spec(config.data.valid, config.data.on_bad_data)
  check_fully_annotated(dataset, f"config.data.valid: '{config.data.valid}'")
  unknown = unknown_classes(dataset, names)
  if unknown:
    raise DataError(
      f"config.data.valid: '{config.data.valid}' has objects of {classes_text(unknown)}, but the training data "
      f"'{config.data.train}' has other classes: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
      f"{did_you_mean(unknown[0], names)}. Classes are matched by name. Train on data that has them all, or evaluate on "
      "data without them."
    )
  dataset = with_names(dataset, names)
  return Validation(
    graph,
    dataset,
    mesh,
    config.eval,
    batch_size=config.batch_size,
    resize=resize,
    on_bad_data=config.data.on_bad_data,
  )


def environment(experiment: Experiment) -> dict[str, Any]:
  """Versions, devices and sizes of a run, for env.json."""
  import importlib.metadata
  import platform
  import sys

  from prn_jax.version import __version__

  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
  devices = jax.devices()
  return {
    "prn_jax": __version__,
    "python": sys.version.split()[0],
    "platform": platform.platform(),
    "packages": {name: importlib.metadata.version(name) for name in packages},
    "devices": {"count": len(devices), "kind": devices[0].device_kind, "platform": devices[0].platform},
    "processes": jax.process_count(),
    "train_images": len(experiment.dataset),
    "total_steps": experiment.total_steps,
  }
