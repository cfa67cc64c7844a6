"""The training keys of a cfg as a configuration: what `darknet detector train` and `darknet classifier train` would do,
as far as we do it. Every key of [net] is followed, warned of, or refused: `KEYS_OF_NET` says which."""

from __future__ import annotations

import dataclasses
import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from prn_jax.data_pipelines.feed.pipeline import darknet_sizes
from prn_jax.files.disk import is_file
from prn_jax.files.places import to_path
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import HeadTraining, NetTraining, RegionTraining
from prn_jax.train.config import ConfigError, TrainConfig, default_config
from prn_jax.train.optim import darknet_optim

if TYPE_CHECKING:
  import ml_collections

_LOG = logging.getLogger(__name__)
_DETECTOR, _CLASSIFIER = "detector", "classifier"


class Use(StrEnum):
  """What becomes of a key of [net] whose value is not Darknet's default."""

  FOLLOWED = "followed"
  IDLE = "idle"  # in Darknet, too, it has no influence on what is learned from this cfg; nothing is said
  NO_EFFECT = "has no effect on a {task}, as in Darknet"
  NO_FLOAT16 = "is not followed: it makes up for the range of float16, in which nothing is computed here"
  NAN_STOPS = "is not followed: a gradient that is not finite stops the run here, and names the layer"
  NO_MIXING = "is not followed: images of classifiers are not mixed here"
  REFUSED = "refused"


_REFUSED = (
  "adam", "time_steps", "dynamic_minibatch", "track", "sequential_subdivisions", "contrastive", "unsupervised",
  "attention", "adversarial_lr", "badlabels_rejection_percentage", "badlabels_reverse", "num_sigmas_reject_badlabels",
  "equidistant_point", "weights_reject_freq",
)  # fmt: skip
_BOTH = {
  **dict.fromkeys((f.name for f in dataclasses.fields(NetTraining)), Use.FOLLOWED),
  **dict.fromkeys(_REFUSED, Use.REFUSED),
  # Of the chart on the screen, of inputs that are no images, and what only goes with a key that is refused.
  **dict.fromkeys(("max_chart_loss", "inputs", "B1", "B2", "eps", "seq_scales"), Use.IDLE),
  **dict.fromkeys(("augment_speed", "contrastive_jit_flip", "contrastive_color"), Use.IDLE),
  "loss_scale": Use.NO_FLOAT16,
  "try_fix_nan": Use.NAN_STOPS,
}
KEYS_OF_NET: dict[str, dict[str, Use]] = {
  _DETECTOR: _BOTH
  | dict.fromkeys(("angle", "aspect", "min_crop", "max_crop", "label_smooth_eps", "cutmix"), Use.NO_EFFECT),
  _CLASSIFIER: _BOTH
  | dict.fromkeys(("mixup", "cutmix", "mosaic"), Use.NO_MIXING)
  | dict.fromkeys(("mosaic_bound", "letter_box", "gaussian_noise", "resize_step"), Use.NO_EFFECT),
}
"""Task -> key of [net] -> what becomes of it."""


def config_from_cfg(path: str, lenient: bool = False) -> ml_collections.ConfigDict:
  """A configuration with everything that a cfg says; the data is left to name.

  The batch is Darknet's (images per update); `subdivisions` become micro-batches. Settings of single heads and layers
  are read from the cfg again by the training itself. A key of [net] that is not followed is a warning in the log where
  what is learned stays nearly the same, otherwise an error (`KEYS_OF_NET`).

  Args:
    path: a .cfg file.
    lenient: keep unknown keys of the cfg instead of refusing them.

  Raises:
    ConfigError: no path, or keys that Darknet follows and we do not. CfgError: see `darknet_cfg.read`.
  """
  if not path:
    raise ConfigError("from_cfg needs a file: --config=from_cfg:FILE.cfg")
  cfg = darknet_cfg.read(path, strict=not lenient)
  net = cfg.training.net
  head = _last_head(cfg) if cfg.graph.detects else None
  optim = darknet_optim(net)
  _check_keys(net, _DETECTOR if head else _CLASSIFIER, path)
  config = default_config("detect" if head else "classify")
  config.model, config.lenient = path, lenient
  config.batch_size = net.batch
  config.total.steps = net.max_batches
  # What a single-step field holds may change its shape here (steps, scales), which a locked config allows.
  for key, value in dataclasses.asdict(optim).items():
    config.optim[key] = value
  augment = config.augment
  augment.hue, augment.saturation, augment.exposure = net.hue, net.saturation, net.exposure
  augment.flip, augment.blur = net.flip, net.blur
  if head:
    _detector(config, net, cfg.graph.width, cfg.graph.height, head)
  else:
    config.loss.label_smoothing = net.label_smooth_eps
    width = cfg.graph.width
    augment.min_crop, augment.max_crop = sorted((net.min_crop or width, net.max_crop or 2 * width))
    augment.angle, augment.aspect = net.angle, net.aspect
  return config


def warn_of_unused(config: TrainConfig) -> None:
  """Warns where a cfg hardly says what was meant: one image per update, and values that do not count because their key
  stands twice. Darknet's own cfgs begin with a batch of 1 for testing, and the lines for training below it."""
  if not darknet_cfg.is_cfg(config.model) or not is_file(to_path(config.model)):
    return
  cfg = darknet_cfg.read(config.model, strict=not config.lenient)
  for one in cfg.repeated:
    if one.key == "batch" and config.batch_size not in (1, cfg.training.net.batch):
      continue  # given otherwise
    if one.is_of_training:  # of the others every reader of the cfg is told
      _LOG.warning("%s", one.text(config.model))
  if config.batch_size == 1:
    _LOG.warning(
      "config.batch_size is 1 (batch=%d of cfg %s): every update learns from a single image, and Darknet refuses such a "
      "training. Give --config.batch_size=64, or comment out the lines for testing in the cfg.",
      *(cfg.training.net.batch, config.model),
    )


def _detector(
  config: ml_collections.ConfigDict, net: NetTraining, width: int, height: int, head: HeadTraining | RegionTraining
) -> None:
  """The data settings, which Darknet takes from [net] and the last head."""
  augment = config.augment
  # Darknet's kinds of mixing, where cutmix (2) is none for detectors, and with mosaic (4) is that alone.
  kind = 4 if net.mosaic and net.cutmix else 3 if net.mosaic else 2 if net.cutmix else net.mixup
  augment.mosaic, augment.mosaic_bound, augment.mixup = kind in (3, 4), net.mosaic_bound, kind == 1
  augment.gaussian_noise = net.gaussian_noise
  augment.letterbox, augment.jitter, augment.resize = net.letter_box, head.jitter, head.resize
  config.data.max_boxes = head.max
  if head.random:
    if net.resize_step < 1:
      raise ConfigError(f"[net] resize_step={net.resize_step}; expected at least 1, as sizes are multiples of it.")
    sizes = darknet_sizes(width, height, head.random, net.resize_step)
    config.sizes = tuple(size for size in sizes if size != (width, height))


def _last_head(cfg: darknet_cfg.DarknetCfg) -> HeadTraining | RegionTraining:
  heads = [cfg.training.sections.get(head.name) for head in cfg.graph.heads]
  last = heads[-1] if heads else None
  if not isinstance(last, HeadTraining | RegionTraining):
    raise ConfigError(
      f"cfg '{cfg.graph.name}' has no [yolo], [Gaussian_yolo] or [region] head; other detectors cannot be trained."
    )
  return last


def _check_keys(net: NetTraining, task: str, path: str) -> None:
  """Raises ConfigError for keys that are refused, and warns of those that are not followed."""
  default = NetTraining()
  for key, use in KEYS_OF_NET[task].items():
    value = getattr(net, key)
    if value == getattr(default, key) or use in (Use.FOLLOWED, Use.IDLE):
      continue
    shown = f"cfg {path}: [net] {key}={value:g}"
    if use is Use.REFUSED:
      raise ConfigError(f"{shown} is not supported in training and would change what is learned; remove the key.")
    _LOG.warning("%s %s.", shown, use.format(task=task))
