"""YOLOv4 on COCO, 608x608, multi-scale, mosaic. Source: cfg/yolov4.cfg of AlexeyAB/darknet.

Expected: AP 43.5, AP50 65.7 at 608 on test-dev (YOLOv4, table 10), from --config.weights=yolov4.conv.137. Not yet run.
Run: prn train --config=coco_yolov4 --workdir=runs/coco_yolov4
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.coco()
  config.model = "yolov4"
  default.multi_scale(config, 608)
  config.augment.mosaic = True
  config.loss.head.update({
    "ignore_thresh": 0.7, "iou_thresh": 0.213, "iou_loss": "ciou", "iou_normalizer": 0.07, "max_delta": 5.0,
  })  # fmt: skip
  config.optim.learning_rate, config.optim.momentum = 1.3e-3, 0.949
  config.optim.accumulate = 8
  config.total.steps = 500_500
  return config
