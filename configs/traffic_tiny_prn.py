"""Traffic cameras (COCO annotations): YOLOv3-tiny-PRN at 416x256, from scratch. Source of the numbers: ours.

Data: Roboflow's "ATL-version-2" at ROOT (default data/traffic): images/ and train.json, valid.json beside it, split by
camera, since frames of one camera are nearly equal.
Run: prn train --config=traffic_tiny_prn:ROOT --workdir=runs/traffic
"""

from __future__ import annotations

import ml_collections

from configs import vehicles_tiny_prn


def get_config(root: str = "data/traffic") -> ml_collections.ConfigDict:
  config = vehicles_tiny_prn.get_config()
  config.data.train, config.data.valid = (
    f"coco:{root}/train.json:{root}/images",
    f"coco:{root}/valid.json:{root}/images",
  )
  config.width, config.height = 416, 256
  return config
