"""Darknet's training keys as typed settings, apart from the graph (docs/darknet.md a2, a14, e).

Each dataclass is one explicit table: field name = cfg key, default = Darknet's default. A key that belongs to
neither the network nor one of these tables nor `INERT` is an error in strict reading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from prn_jax.graph.section import Section, Value
from prn_jax.ranges import at_least, below, between

# Ranges are those of `config.loss.head`; a cfg may hold what it likes.
_OVERLAP = at_least(0, "an overlap; 1 is never reached")
_FACTOR = at_least(0, "a factor of this part of the loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetTraining:
  """Training keys of [net]; durations in iterations (batches), angles in degrees."""

  batch: int = 1
  subdivisions: int = 1
  time_steps: int = 1
  inputs: int = 0
  learning_rate: float = 0.001
  learning_rate_min: float = 1e-5
  momentum: float = 0.9
  decay: float = 0.0001
  max_batches: int = 0
  policy: str = "constant"
  burn_in: int = 0
  power: float = 4.0
  step: int = 1
  scale: float = 1.0
  steps: tuple[float, ...] = ()
  scales: tuple[float, ...] = ()
  seq_scales: tuple[float, ...] = ()
  gamma: float = 1.0
  sgdr_cycle: int = 0  # 0: max_batches
  sgdr_mult: int = 2
  adam: bool = False
  B1: float = 0.9
  B2: float = 0.999
  eps: float = 1e-6
  angle: float = 0.0
  aspect: float = 1.0
  saturation: float = 1.0
  exposure: float = 1.0
  hue: float = 0.0
  flip: bool = True
  max_crop: int = 0  # 0: twice the width
  min_crop: int = 0  # 0: the width
  blur: int = 0
  gaussian_noise: int = 0
  mixup: int = 0
  cutmix: bool = False
  mosaic: bool = False
  mosaic_bound: bool = False
  letter_box: bool = False
  label_smooth_eps: float = 0.0
  resize_step: int = 32
  ema_alpha: float = 0.0
  dynamic_minibatch: bool = False
  loss_scale: float = 1.0
  try_fix_nan: bool = False
  track: int = 0
  augment_speed: int = 2
  sequential_subdivisions: int = 0
  contrastive: int = 0
  contrastive_jit_flip: int = 0
  contrastive_color: int = 0
  unsupervised: int = 0
  attention: int = 0
  adversarial_lr: float = 0.0
  badlabels_rejection_percentage: float = 0.0
  badlabels_reverse: int = 0
  equidistant_point: int = 0
  num_sigmas_reject_badlabels: float = 0.0
  weights_reject_freq: int = 0
  max_chart_loss: float = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadTraining:
  """Loss and data settings of [yolo] and [Gaussian_yolo]; the last head decides for the data loader."""

  max: int = 200
  jitter: float = 0.2
  resize: float = 1.0
  random: float = 0.0
  ignore_thresh: float = dataclasses.field(default=0.5, metadata=_OVERLAP)
  truth_thresh: float = dataclasses.field(default=1.0, metadata=_OVERLAP)
  iou_thresh: float = dataclasses.field(default=1.0, metadata=_OVERLAP)
  iou_thresh_kind: str = "iou"
  iou_loss: str = "mse"
  iou_normalizer: float = dataclasses.field(default=0.75, metadata=_FACTOR)
  obj_normalizer: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  cls_normalizer: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  delta_normalizer: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  uc_normalizer: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  objectness_smooth: bool = False
  label_smooth_eps: float = dataclasses.field(
    default=0.0, metadata=below(0, 1, "how far targets are moved towards one half; 0 is off")
  )
  counters_per_class: tuple[float, ...] = ()
  focal_loss: bool = False
  max_delta: float = dataclasses.field(
    default=float("inf"), metadata=at_least(0, "the largest gradient of a box", is_finite=False)
  )
  show_details: bool = True
  map: str = ""
  track_history_size: int = 5
  sim_thresh: float = 0.8
  dets_for_track: int = 1
  dets_for_show: int = 1
  track_ciou_norm: float = 0.01
  embedding_layer: int = 999999


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionTraining:
  """Loss and data settings of [region]."""

  max: int = 30
  log: int = 0
  sqrt: int = 0
  jitter: float = 0.2
  resize: float = 1.0
  random: float = 0.0
  rescore: bool = False
  bias_match: bool = False
  thresh: float = dataclasses.field(default=0.5, metadata=_OVERLAP)
  absolute: bool = False
  focal_loss: bool = False
  class_scale: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  coord_scale: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  object_scale: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  noobject_scale: float = dataclasses.field(default=1.0, metadata=_FACTOR)
  mask_scale: float = 1.0
  classfix: int = dataclasses.field(default=0, metadata=between(-1, 2, "Darknet's -1, 0, 1 or 2"))
  map: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropTraining:
  """Random part of [crop]."""

  flip: bool = False
  angle: float = 0.0
  saturation: float = 1.0
  exposure: float = 1.0
  shift: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerTraining:
  """Keys that every layer accepts. `dontload` and `dontloadscales` say what a weights file lacks."""

  learning_rate: float = 1.0
  clip: float = 0.0
  onlyforward: bool = False
  dont_update: bool = False
  burnin_update: int = 0
  stopbackward: int = 0
  train_only_bn: bool = False
  dontload: bool = False
  dontloadscales: bool = False


SECTION_TRAINING: dict[str, type[Any]] = {
  "yolo": HeadTraining,
  "gaussian_yolo": HeadTraining,
  "region": RegionTraining,
  "crop": CropTraining,
}

NET = "[net]"  # key of the first section among the layers in `Training.extra`; no layer can be called so
# Keys without effect on numbers, or that Darknet ignores but public cfgs carry. Kept as text, written back.
INERT: dict[str, tuple[str, ...]] = {
  "net": (
    "max_epochs", "seen", "optimized_memory", "workspace_size_limit_MB", "use_cuda_graph",
    "show_receptive_field",
  ),
  "conv": ("angle", "grad_centr", "stream", "wait_stream"),
  "maxpool": ("maxpool_zero_nonmax",),
  "dropout": ("dropblock", "dropblock_size_rel", "dropblock_size_abs"),
  "softmax": ("noloss",),
  "yolo": ("beta1",),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Training:
  """All training settings of a cfg.

  Attributes:
    net: the keys of [net].
    sections: layer name -> `HeadTraining`, `RegionTraining` or `CropTraining`.
    layers: layer name -> `LayerTraining`, only where a key was given.
    extra: `NET` or layer name -> inert (and, with strict=False, unknown) keys as text.
  """

  net: NetTraining = NetTraining()
  sections: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  layers: Mapping[str, LayerTraining] = dataclasses.field(default_factory=dict)
  extra: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

  def renamed(self, names: Mapping[str, str]) -> Training:
    """The same settings under other layer names."""

    def rename(table: Mapping[str, Any]) -> dict[str, Any]:
      return {names.get(name, name): value for name, value in table.items()}

    return Training(self.net, rename(self.sections), rename(self.layers), rename(self.extra))


def read_table(table: type[Any], section: Section) -> Any:
  """An instance of `table` from the keys of a section."""
  return table(**{f.name: section.read(f.name, cast(Value, f.default)) for f in dataclasses.fields(table)})


def table_keys(values: Any) -> dict[str, Value]:
  """The keys of a table that differ from Darknet's defaults."""
  pairs = ((f, getattr(values, f.name)) for f in dataclasses.fields(values))
  return {f.name: v for f, v in pairs if v != f.default}
