"""YOLOv3-tiny on COCO, 416x416, multi-scale. Source: [net] and [yolo] of Darknet's cfg/yolov3-tiny.cfg, batch 64.

Expected: AP50 33.1 at 416 (pjreddie.com/darknet/yolo), from --config.weights=yolov3-tiny.conv.15. Not yet run.
Run: prn train --config=coco_yolov3_tiny --workdir=runs/coco_yolov3_tiny
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import coco_yolov3


def get_config() -> ml_collections.ConfigDict:
  config = coco_yolov3.get_config()
  config.model = "yolov3-tiny"
  return config
