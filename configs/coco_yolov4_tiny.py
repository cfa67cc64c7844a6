"""YOLOv4-tiny on COCO, 416x416, one size. Source: cfg/yolov4-tiny.cfg of AlexeyAB/darknet.

Expected: AP50 40.2 at 416 (README of AlexeyAB/darknet), from --config.weights=yolov4-tiny.conv.29. Not yet run.
Run: prn train --config=coco_yolov4_tiny --workdir=runs/coco_yolov4_tiny
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.coco()
  config.model = "yolov4-tiny"
  config.augment.resize = 1.5
  config.loss.head.update({"ignore_thresh": 0.7, "iou_loss": "ciou", "iou_normalizer": 0.07})
  config.optim.learning_rate = 2.61e-3
  default.steps_schedule(config, total_steps=2_000_200, steps=(1_600_000, 1_800_000))
  config.eval.every.steps = 200_000
  return config
