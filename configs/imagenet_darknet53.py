"""Darknet53 on ImageNet, 256x256. Source: cfg/darknet53.cfg of pjreddie/darknet.

Expected: top-1 77.2, top-5 93.8 (YOLOv3, table 2). Not yet run.
Data: one folder per class in data/imagenet/train and data/imagenet/val. Every start reads the header of every file, unless
they were prepared once, here from the official archives in data/ilsvrc2012 (docs/data.md; see also configs/default.py):
     prn data prepare imagenet:data/ilsvrc2012:train,val data/imagenet448 --min-side 448
     prn train ... --config.data.train=arrayrecord:data/imagenet448:train --config.data.valid=arrayrecord:data/imagenet448:val
Run: prn train --config=imagenet_darknet53 --workdir=runs/imagenet_darknet53
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.imagenet()
  config.model = "darknet53"
  config.batch_size = 128
  config.augment.min_crop, config.augment.max_crop = 128, 448
  config.optim.learning_rate, config.optim.weight_decay = 0.1, 5e-4
  config.optim.schedule.policy, config.optim.schedule.power = "poly", 4.0
  config.optim.schedule.burn_in_steps = 1_000
  config.total.steps = 800_000
  return config
