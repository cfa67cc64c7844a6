"""EfficientNet-b0 on ImageNet, 224x224. Source: [net] of cfg/efficientnet_b0.cfg of AlexeyAB/darknet, without its
mosaic and cutmix, which Darknet applies to whole images here.

Expected: top-1 71.3, top-5 90.4 (README of AlexeyAB/darknet). Not yet run.
Run: prn train --config=imagenet_efficientnet_b0 --workdir=runs/imagenet_efficientnet_b0
"""

from __future__ import annotations

import ml_collections

from configs import imagenet_darknet53


def get_config() -> ml_collections.ConfigDict:
  config = imagenet_darknet53.get_config()
  config.model = "efficientnet-b0"
  config.batch_size, config.optim.accumulate = 120, 1
  config.optim.learning_rate, config.optim.weight_decay = (
    0.256,
    5e-4,
  )  # the cfg names two decays; Darknet takes the first
  return config
