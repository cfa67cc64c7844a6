"""The training keys of a cfg as a configuration: what `darknet detector train` would do, as far as we do it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.pipeline import darknet_sizes
from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import HeadTraining, NetTraining
from prn_jax.train.config import ConfigError, default_config
from prn_jax.train.optim import darknet_optim

if TYPE_CHECKING:
  import ml_collections

# Keys of [net] that would change the training and that nothing here follows.
NOT_FOLLOWED = (
  "adam", "angle", "aspect", "cutmix", "dynamic_minibatch", "track", "contrastive", "unsupervised", "attention",
  "adversarial_lr", "badlabels_rejection_percentage", "equidistant_point", "sequential_subdivisions",
)  # fmt: skip


def config_from_cfg(path: str) -> ml_collections.ConfigDict:
  """A configuration with everything that a cfg says; the data is left to name.

  The batch is Darknet's (images per update); `subdivisions` become micro-batches. Settings of single heads and layers
  are read from the cfg again by the training itself. Angles and aspects of classifiers are not followed.

  Args:
    path: a .cfg file.

  Raises:
    ConfigError: no path, or keys that Darknet follows and we do not. CfgError: see `darknet_cfg.read`.
  """
  if not path:
    raise ConfigError("from_cfg needs a file: --config=from_cfg:FILE.cfg")
  cfg = darknet_cfg.read(Path(path))
  net = cfg.training.net
  config = default_config("detect" if cfg.graph.detects else "classify")
  config.model = path
  config.batch_size = net.batch
  config.total.steps = net.max_batches
  # What a single-step field holds may change its shape here (steps, scales), which a locked config allows.
  for key, value in dataclasses.asdict(dataclasses.replace(darknet_optim(net))).items():
    config.optim[key] = value
  if cfg.graph.detects:
    _detector(config, net, cfg.graph.width, cfg.graph.height, _last_head(cfg))
  else:
    config.augment.flip = net.flip
    config.loss.label_smoothing = net.label_smooth_eps
    _colours(config, net)
  return config


def _detector(config: ml_collections.ConfigDict, net: NetTraining, width: int, height: int, head: HeadTraining) -> None:
  """The data settings, which Darknet takes from [net] and the last head."""
  _refuse(net)
  _colours(config, net)
  augment = config.augment
  augment.flip, augment.mosaic, augment.mosaic_bound = net.flip, net.mosaic, net.mosaic_bound
  augment.mixup, augment.blur, augment.gaussian_noise = bool(net.mixup), net.blur, net.gaussian_noise
  augment.letterbox, augment.jitter, augment.resize = net.letter_box, head.jitter, head.resize
  config.data.max_boxes = head.max
  if head.random:
    sizes = darknet_sizes(width, height, head.random, net.resize_step)
    config.sizes = tuple(size for size in sizes if size != (width, height))


def _colours(config: ml_collections.ConfigDict, net: NetTraining) -> None:
  config.augment.hue, config.augment.saturation, config.augment.exposure = net.hue, net.saturation, net.exposure


def _last_head(cfg: darknet_cfg.DarknetCfg) -> HeadTraining:
  heads = [cfg.training.sections.get(head.name) for head in cfg.graph.heads]
  last = heads[-1] if heads else None
  if not isinstance(last, HeadTraining):
    raise ConfigError(
      f"cfg '{cfg.graph.name}' has no [yolo] or [Gaussian_yolo] head; other detectors cannot be trained."
    )
  return last


def _refuse(net: NetTraining) -> None:
  default = NetTraining()
  used = [key for key in NOT_FOLLOWED if key != "cutmix" and getattr(net, key) != getattr(default, key)]
  if used:
    raise PrnError(
      f"[net] {used[0]}={getattr(net, used[0])} is not supported in training; remove the key from the cfg."
    )
