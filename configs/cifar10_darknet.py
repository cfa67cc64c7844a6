"""CIFAR-10 as images in folders, 32x32: Darknet-53's plan in small, from scratch. Source of the numbers: ours.

Data: train and test images in one folder per class, or in archives of them, at ROOT (default data/cifar10) as
cifar10_train.tar.gz and cifar10_test.tar.gz.
Expected: top-1 0.79, top-5 0.99 on 5,000 test images after 15 epochs of 20,000 training images, measured on 2 shared CPU
cores in 15 minutes (docs/training.md). Of all 50,000 training images: not yet run.
Run: prn train --config=cifar10_darknet:ROOT --workdir=runs/cifar10
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config(root: str = "data/cifar10") -> ml_collections.ConfigDict:
  config = default.get_config("classify")
  config.data.train, config.data.valid = (f"imagefolder:{root}/cifar10_{part}.tar.gz" for part in ("train", "test"))
  config.data.cache_mb = 200
  config.model = "darknet-cifar"
  config.batch_size = 128
  config.total.epochs = 15.0
  config.eval.every.epochs = 3.0
  config.eval.batch_size = 500
  config.bn_momentum = 0.9
  config.augment.min_scale = 1.0
  config.augment.min_ratio = config.augment.max_ratio = 1.0
  config.augment.pad_crop = 4
  config.loss.label_smoothing = 0.1
  config.optim.learning_rate, config.optim.nesterov = 0.2, True
  config.optim.schedule.policy, config.optim.schedule.burn_in_steps = "cosine", 300
  return config
