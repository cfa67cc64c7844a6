"""Vehicles of Open Images (YOLO annotations): YOLOv3-tiny-PRN at 256x256, from scratch. Source of the numbers: ours.

Data: Roboflow's "vehicles-openimages" at ROOT (default data/vehicles), with train/ and test/ beside data.yaml.
Expected: AP50 0.36, AP 0.18 on its test, measured on 2 shared CPU cores in 65 minutes (docs/training.md).
Run: prn train --config=vehicles_tiny_prn:ROOT --workdir=runs/vehicles
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config(root: str = "data/vehicles") -> ml_collections.ConfigDict:
  config = default.get_config("detect")
  config.data.train, config.data.valid = f"yolo:{root}/data.yaml:train", f"yolo:{root}/data.yaml:test"
  config.data.on_bad_data = "skip"
  config.data.cache_mb = 1_000
  config.model = "yolov3-tiny-prn"
  config.width = config.height = 256
  config.batch_size = 16
  config.total.epochs = 40.0
  config.log_every.steps = 20
  config.eval.every.epochs = 10.0
  config.bn_momentum = 0.95  # a few hundred steps are too short for 0.99
  config.augment.jitter, config.augment.hue = 0.3, 0.1
  config.augment.saturation, config.augment.exposure = 1.5, 1.5
  config.loss.head.update({"ignore_thresh": 0.7, "iou_thresh": 0.213})
  config.optim.name, config.optim.learning_rate, config.optim.weight_decay = "adamw", 2e-3, 5e-2
  config.optim.clip_norm, config.optim.ema_decay = 30.0, 0.998
  config.optim.schedule.policy, config.optim.schedule.burn_in_steps = "cosine", 100
  return config
