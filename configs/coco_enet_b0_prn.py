"""EfficientNet-b0-PRN on COCO, 416x416, one size. Source: cfg/enet-coco.cfg of AlexeyAB/darknet.

Expected: AP50 45.5 at 416 (README of AlexeyAB/darknet), from an EfficientNet-b0 that was trained on ImageNet. Not yet
run.
Run: prn train --config=coco_enet_b0_prn --workdir=runs/coco_enet_b0_prn
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.coco()
  config.model = "enet-b0-prn"
  config.optim.accumulate = 8
  return config
