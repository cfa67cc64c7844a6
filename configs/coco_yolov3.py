"""YOLOv3 on COCO, 416x416, multi-scale. Source: [net] and [yolo] of Darknet's cfg/yolov3.cfg, batch 64.

Expected: AP50 55.3 at 416 (YOLOv3, table 3), from a Darknet53 that was trained on ImageNet: give its weights with
--config.weights=darknet53.conv.74. Not yet run.
Run: prn train --config=coco_yolov3 --workdir=runs/coco_yolov3
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.coco()
  config.model = "yolov3"
  default.multi_scale(config, 416)
  return config
