"""EfficientNet-b0 on ImageNet, 224x224. Source: [net] of cfg/efficientnet_b0.cfg of AlexeyAB/darknet, without its
mosaic=1 and cutmix=1 (parts of several images with a mixed label), which are not followed.

Expected: top-1 71.3, top-5 90.4 (README of AlexeyAB/darknet). Not yet run.
Data: one folder per class in data/imagenet/train and data/imagenet/val. Every start reads the header of every file, unless
they were prepared once, here from the official archives in data/ilsvrc2012 (docs/data.md; see also configs/default.py):
     prn data prepare imagenet:data/ilsvrc2012:train,val data/imagenet448 --min-side 448
     prn train ... --config.data.train=arrayrecord:data/imagenet448:train --config.data.valid=arrayrecord:data/imagenet448:val
Run: prn train --config=imagenet_efficientnet_b0 --workdir=runs/imagenet_efficientnet_b0
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import imagenet_darknet53


def get_config() -> ml_collections.ConfigDict:
  config = imagenet_darknet53.get_config()
  config.model = "efficientnet-b0"
  config.batch_size, config.optim.accumulate = 120, 1
  config.augment.min_crop, config.augment.max_crop = 224, 256  # the smallest is Darknet's default, the width
  config.augment.blur = 1
  # The cfg names two decays; Darknet takes the first.
  config.optim.learning_rate, config.optim.weight_decay = 0.256, 5e-4
  return config
