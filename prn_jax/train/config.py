"""The configuration of a run: typed, frozen dataclasses. `ml_collections` is where users write, these are what code reads.

`default_config` makes a locked ConfigDict from the dataclasses, so that every key exists, with its default and type,
in exactly one place; `typed` turns a ConfigDict back. Unknown keys and values of a wrong type are errors that name
the key and the nearest one that exists.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prn_jax.data_pipelines.augment.classification import ClassificationAugment
from prn_jax.data_pipelines.augment.detection import DetectionAugment
from prn_jax.detect.metrics import protocols
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats.darknet_training import HeadTraining, RegionTraining
from prn_jax.hosts.group import HostSettings
from prn_jax.ranges import at_least, below, between, check, check_value, range_of
from prn_jax.train.losses import LossConfig
from prn_jax.train.optim import OptimConfig
from prn_jax.train.quant import QuantConfig
from prn_jax.train.sparse import SparseConfig
from prn_jax.train.teacher import DistillConfig

if TYPE_CHECKING:
  import ml_collections

TASKS = {"detect": DetectionAugment, "classify": ClassificationAugment}


class ConfigError(PrnError):
  """A configuration that cannot be used; the text names the key."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duration:
  """A length of training in one of three units; the others are 0."""

  steps: int = 0
  epochs: float = 0.0
  examples: int = 0

  def to_steps(self, batch_size: int, num_examples: int, key: str) -> int:
    """In steps, rounded; 0 if no unit is given.

    Args:
      batch_size: images per step, over all devices.
      num_examples: images of the training set.
      key: what error messages call the duration.

    Raises:
      ConfigError: two units are given, or a negative one.
    """
    if not self.given(key):
      return 0
    exact = self.steps or (self.epochs * num_examples or self.examples) / batch_size
    return max(1, round(exact))

  def given(self, key: str) -> dict[str, float]:
    """The unit that is not 0, with its value; empty if all are.

    Raises:
      ConfigError: two units are given, or a negative one; `key` is what the message calls the duration.
    """
    given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name)}
    if len(given) > 1 or any(not 0 <= value < math.inf for value in given.values()):
      text = ", ".join(f"{key}.{unit}={value}" for unit, value in given.items())
      raise ConfigError(f"{text}: expected one unit, finite and not below 0. Set the others to 0.")
    return given


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Where images come from.

  Attributes:
    train, valid: SPECs (`prn data --help`); without `valid` nothing is evaluated.
    on_bad_data: "stop" or "skip".
    max_boxes: rows of truth per image; more boxes are left out, and counted.
    threads: that make batches, of this process or of every worker; 0: one per core (with workers: 1).
    workers, prefetch: processes that make batches, batches ahead.
    cache_mb: memory for decoded images, so that a small data set is decoded once.
  """

  train: str = ""
  valid: str = ""
  on_bad_data: str = "stop"
  max_boxes: int = dataclasses.field(default=100, metadata=at_least(1, "rows of truth per image"))
  threads: int = dataclasses.field(default=0, metadata=at_least(0, "0 is one per core"))
  workers: int = dataclasses.field(
    default=0, metadata=at_least(0, "processes beside this one; 0 makes the batches in it")
  )
  prefetch: int = dataclasses.field(default=4, metadata=at_least(1, "batches made ahead"))
  cache_mb: int = dataclasses.field(default=0, metadata=at_least(0, "memory for decoded images; 0 keeps none"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
  """Evaluation during training, with the averaged weights if there are any.

  Attributes:
    every: distance of evaluations; without it, only at the end.
    batch_size: images per run; 0: the training batch.
    conf, nms: thresholds of detections (`prn eval` has 0.001 and 0.45).
    protocol: how a detector is scored: coco, voc07, voc, darknet, visdrone, or one that was registered.
    metric: which figure decides about the best checkpoint; "" is AP50, mAP or top1.
    num_pictures: validation images drawn with their detections at the end.
    patience: the run ends after so many evaluations in a row without a better figure; 0: never before `total`.
  """

  every: Duration = Duration()
  batch_size: int = dataclasses.field(default=0, metadata=at_least(0, "images per run; 0 is the training batch"))
  conf: float = dataclasses.field(
    default=0.005, metadata=below(0, 1, "detections that are less sure are left out (prn eval has 0.001)")
  )
  nms: float = dataclasses.field(
    default=0.45, metadata=between(0, 1, "of two detections that overlap more, the less sure is left out (usual: 0.45)")
  )
  protocol: str = "coco"
  metric: str = ""
  num_pictures: int = dataclasses.field(default=16, metadata=at_least(0, "pictures at the end; 0 draws none"))
  patience: int = dataclasses.field(
    default=0, metadata=at_least(0, "evaluations without a better figure; 0 never ends a run early")
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """A whole run.

  Attributes:
    task: "detect" or "classify".
    model: registered name or .cfg file; model_options are the options of a registered one.
    lenient: keep unknown keys of a .cfg instead of refusing them.
    transforms: changes of the model, in order, as `prn convert --transform` takes them: ("shrink:0.75",).
    width, height: input in pixels; 0 keeps the model's.
    sizes: further (width, height) pairs for multi-scale training, each compiled once.
    resize_every_steps: distance of changes between `sizes`.
    anchors: (width, height) pairs in pixels of the input, in place of the model's.
    fit_anchors: cluster the boxes of the training data into anchors, in place of these (`prn data anchors`).
    weights: start from these; weights_model is their network, if it is another one.
    keep_head: whether heads keep what weights with other classes know of boxes, objects and classes of the same name.
    bn_scope: "global" or "per_device"; bn_momentum is the share of the old rolling statistics; 0: Darknet's 0.99, less
      in a run that is too short for it (`defaults`).
    dtype: the type of the computation, "float32" or "bfloat16". Parameters, statistics, loss and boxes are always float32.
    remat: recompute activations in the backward pass: less memory, more time.
    batch_size: images per update, over all devices; 0: 64, fewer where there are few images (`defaults`).
    total: length of the run.
    checkpoint_every: distance of checkpoints; keep_checkpoints of them stay, and the best.
    log_every: distance of log lines.
    profile_steps: (first, last) step of a profiler trace in the run directory.
    seed: the seed of initialisation, order and augmentation.
  """

  task: str = "detect"
  model: str = ""
  model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  lenient: bool = False
  transforms: tuple[str, ...] = ()
  width: int = dataclasses.field(default=0, metadata=at_least(0, "pixels of the input; 0 keeps the model's"))
  height: int = dataclasses.field(default=0, metadata=at_least(0, "pixels of the input; 0 keeps the model's"))
  sizes: tuple[tuple[int, int], ...] = ()
  resize_every_steps: int = dataclasses.field(default=10, metadata=at_least(1, "steps between changes of the size"))
  anchors: tuple[tuple[float, float], ...] = ()
  fit_anchors: bool = False
  weights: str = ""
  weights_model: str = ""
  keep_head: bool = False
  bn_scope: str = "global"
  bn_momentum: float = dataclasses.field(
    default=0.0,
    metadata=below(
      0, 1, "the share of the old rolling statistics (Darknet: 0.99); 0 chooses it by the length of the run"
    ),
  )
  dtype: str = "float32"
  remat: bool = False
  batch_size: int = dataclasses.field(
    default=0, metadata=at_least(0, "images per update, over all devices; 0 chooses it by the data")
  )
  total: Duration = Duration()
  checkpoint_every: Duration = Duration()
  keep_checkpoints: int = dataclasses.field(default=2, metadata=at_least(1, "one is needed to resume"))
  log_every: Duration = Duration(steps=50)
  profile_steps: tuple[int, ...] = ()
  seed: int = dataclasses.field(default=0, metadata=at_least(0))
  data: DataConfig = DataConfig()
  augment: DetectionAugment | ClassificationAugment = DetectionAugment()
  loss: LossConfig = LossConfig()
  optim: OptimConfig = OptimConfig()
  sparse: SparseConfig = SparseConfig()
  quant: QuantConfig = QuantConfig()
  distill: DistillConfig = DistillConfig()
  eval: EvalConfig = EvalConfig()
  hosts: HostSettings = HostSettings()


# Keys of a head in a cfg that belong to the data here (`augment`, `data.max_boxes`, `sizes`), or to nothing.
DATA_KEYS = ("max", "jitter", "resize", "random", "map", "show_details", "log", "sqrt", "absolute", "mask_scale")
# The others: settings of a loss. A head that does not know one refuses it (`tasks.head_settings`).
LOSS_FIELDS = {
  field.name: field
  for table in (RegionTraining, HeadTraining)
  for field in dataclasses.fields(table)
  if field.name not in DATA_KEYS
}


# Settings without influence on the numbers: they may change when a run is taken up again. So may `eval`, although it
# decides which checkpoint is the best: with its figure a checkpoint keeps what that means (metric, protocol, thresholds,
# data), and only figures of one meaning are compared.
FREE_KEYS = (
  "data.threads", "data.workers", "data.prefetch", "data.cache_mb", "log_every", "checkpoint_every", "keep_checkpoints",
  "profile_steps", "eval", "hosts", "lenient",
)  # fmt: skip


def default_config(task: str = "detect") -> ml_collections.ConfigDict:
  """Every key with its default, locked; what configs start from.

  Raises:
    ConfigError: `task` is neither "detect" nor "classify".
  """
  import ml_collections

  if task not in TASKS:
    raise ConfigError(f"task is '{task}'{did_you_mean(task, TASKS)}; expected one of {', '.join(TASKS)}.")
  config = ml_collections.ConfigDict(to_dict(TrainConfig(task=task, augment=TASKS[task]())))
  for name, field in LOSS_FIELDS.items():
    config.loss.head[name] = ml_collections.config_dict.placeholder(type(field.default))
  config.lock()
  config.model_options.unlock()  # what a model takes, only the model knows
  return config


def to_dict(config: Any) -> dict[str, Any]:
  """Nested dicts with plain values; the content of config.json."""
  result = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    result[field.name] = to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
  return result


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return value


def typed(config: Any, *, is_complete: bool = True) -> TrainConfig:
  """The typed form of a ConfigDict or of nested dicts, checked.

  Args:
    config: see `default_config`.
    is_complete: whether model and data must be named.

  Raises:
    ConfigError: an unknown key, a value of the wrong type, or one that cannot be.
  """
  values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
  task = values.get("task", "detect")
  if task not in TASKS:
    raise ConfigError(f"config.task is '{task}'{did_you_mean(str(task), TASKS)}; expected one of {', '.join(TASKS)}.")
  result: TrainConfig = _build(TrainConfig, values, "config", {"augment": TASKS[task]})
  if is_complete:
    _check_complete(result)
  _check(result)
  return result


def _build(
  cls: type[Any], values: Any, where: str, classes: Mapping[str, type[Any]] = types.MappingProxyType({})
) -> Any:
  """An instance of a dataclass from nested dicts."""
  if not isinstance(values, Mapping):
    raise ConfigError(f"{where} is {values!r}; expected a group of settings.")
  hints, fields = typing.get_type_hints(cls), [f.name for f in dataclasses.fields(cls)]
  for key in values:
    if key not in fields:
      raise ConfigError(
        f"{where}.{key} does not exist{did_you_mean(str(key), fields)}. {where} has {', '.join(fields)}."
      )
  converted = {key: _convert(value, classes.get(key, hints[key]), f"{where}.{key}") for key, value in values.items()}
  try:
    return cls(**converted)
  except PrnError as error:
    raise ConfigError(f"{where}: {error}") from None


def _convert(value: Any, hint: Any, where: str, *, is_finite: bool = True) -> Any:
  """`value` as the type `hint`, where nothing is lost by it."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if dataclasses.is_dataclass(hint):
    return _build(typing.cast(type, hint), value, where)
  if origin in (Mapping, dict) or hint is Mapping:
    if not isinstance(value, Mapping):
      raise ConfigError(f"{where} is {value!r}; expected settings by name.")
    given = {key: item for key, item in value.items() if item is not None}
    return {key: tuple(item) if isinstance(item, list) else item for key, item in given.items()}
  if origin is tuple:
    if isinstance(value, str) or not isinstance(value, Sequence):
      raise ConfigError(f"{where} is {value!r}; expected a list.")
    if arguments[-1] is not Ellipsis and len(arguments) != len(value):
      raise ConfigError(f"{where} is {list(value)}; expected {len(arguments)} values.")
    inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
    return tuple(_convert(item, one, f"{where}[{i}]") for i, (item, one) in enumerate(zip(value, inner, strict=True)))
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if hint is int and isinstance(value, float) and value.is_integer():
    return int(value)
  if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
    raise ConfigError(f"{where} is {value!r} ({type(value).__name__}); expected {hint.__name__}.")
  if is_finite and hint is float and not math.isfinite(value):
    raise ConfigError(f"{where} is {value!r}; expected a finite number.")
  return value


def _check_complete(config: TrainConfig) -> None:
  if not config.model:
    raise ConfigError(
      "config.model is empty; give a registered model ('prn models' lists them) or a .cfg file: --config.model=NAME, or --model NAME."
    )
  if not config.data.train:
    raise ConfigError(
      "config.data.train is empty; give the training images: --config.data.train=SPEC ('prn data --help'), or --data SPEC."
    )


def _check(config: TrainConfig) -> None:
  """What can be said without opening anything."""
  for key, value, allowed in (
    ("bn_scope", config.bn_scope, ("global", "per_device")),
    ("dtype", config.dtype, ("float32", "bfloat16")),
    ("data.on_bad_data", config.data.on_bad_data, ("stop", "skip")),
    ("loss.style", config.loss.style, ("darknet", "autodiff")),
    ("eval.protocol", config.eval.protocol, protocols()),
  ):
    if value not in allowed:
      raise ConfigError(f"config.{key} is '{value}'{did_you_mean(value, allowed)}; expected {' or '.join(allowed)}.")
  check(config, ConfigError, "config.{}")
  for key in ("total", "checkpoint_every", "log_every", "eval.every"):
    operator.attrgetter(key)(config).given(f"config.{key}")
  for key, pairs in (("sizes", config.sizes), ("anchors", config.anchors)):
    for i, pair in enumerate(pairs):
      if min(pair) <= 0:
        raise ConfigError(f"config.{key}[{i}] is {list(pair)}; expected a width and a height in pixels, above 0.")
  if config.fit_anchors and config.task != "detect":
    raise ConfigError(f"config.fit_anchors is for detectors, but config.task is '{config.task}'. Leave it False.")
  if config.weights_model and not config.weights:
    raise ConfigError(
      f"config.weights_model is '{config.weights_model}', but config.weights is empty. Name the weights of that network, or "
      "leave both empty."
    )
  _check_profile_steps(config.profile_steps)
  _check_head(config.loss.head)


def _check_profile_steps(steps: tuple[int, ...]) -> None:
  if steps and not (len(steps) == 2 and 0 <= steps[0] <= steps[1]):
    raise ConfigError(
      f"config.profile_steps is {list(steps)}; expected the first and the last step of the trace, counted from 0, as in "
      "(10, 15), or () for none."
    )


def _check_head(head: Mapping[str, Any]) -> None:
  """Names, types and ranges of the loss settings of all heads."""
  hints = typing.get_type_hints(RegionTraining) | typing.get_type_hints(HeadTraining)
  for key, value in head.items():
    if key not in LOSS_FIELDS:
      known = sorted(LOSS_FIELDS)
      raise ConfigError(
        f"config.loss.head.{key} does not exist{did_you_mean(key, known)}. config.loss.head has {', '.join(known)}."
      )
    _convert(value, hints[key], f"config.loss.head.{key}", is_finite=key != "max_delta")
    if wanted := range_of(LOSS_FIELDS[key]):
      check_value(f"config.loss.head.{key}", value, wanted, ConfigError)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Keys whose values differ, as "optim.learning_rate: 0.1, now 0.2"; `FREE_KEYS` are left out.

  Args:
    old: content of a config.json. A key that it lacks, because an older version wrote it, has its default.
    new: the configuration of now, as `to_dict` gives it.
  """
  task = new.get("task", "detect")
  default = to_dict(TrainConfig(task=task, augment=TASKS[task]()))
  was, now, usual = (json.loads(json.dumps(values)) for values in (old, new, default))  # lists and tuples are equal
  return _differences(was, now, usual, "")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], default: Mapping[str, Any], prefix: str) -> list[str]:
  found = []
  for key in sorted(old.keys() | new.keys()):
    path, usual = f"{prefix}{key}", default.get(key)
    a, b = old.get(key, usual), new.get(key)
    if path in FREE_KEYS or a == b:
      continue
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      found += _differences(a, b, usual if isinstance(usual, Mapping) else {}, f"{path}.")
    else:
      found.append(f"{path}: {a!r}, now {b!r}")
  return found
