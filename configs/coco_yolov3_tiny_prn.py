"""YOLOv3-tiny-PRN on COCO, 416x416, multi-scale. Source: cfg/yolov3-tiny-prn.cfg of AlexeyAB/darknet.

Expected: AP50 33.1 at 416 (README of AlexeyAB/darknet, the figure of yolov3-tiny at 3.47 instead of 5.57 BFLOPs).
Not yet run.
Run: prn train --config=coco_yolov3_tiny_prn --workdir=runs/coco_yolov3_tiny_prn
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import coco_yolov3


def get_config() -> ml_collections.ConfigDict:
  config = coco_yolov3.get_config()
  config.model = "yolov3-tiny-prn"
  config.optim.accumulate = 8
  return config
