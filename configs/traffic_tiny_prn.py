"""Traffic cameras (COCO annotations): YOLOv3-tiny-PRN at 416x256, from scratch. Source of the numbers: ours.

Data: Roboflow's "ATL-version-2" at ROOT (default data/traffic): images/ and train.json, valid.json beside it, split by
camera, since frames of one camera are nearly equal (docs/training.md). The anchors are `prn data anchors` of the
training images with --num 5 --size 416x256, behind one that no head of this network uses.
Expected: AP50 0.037 (cars 0.147) on camera S2, trained on S1, S4 and A, in 9 minutes on 2 CPU cores; docs/training.md.
Run: prn train --config=traffic_tiny_prn:ROOT --workdir=runs/traffic
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import vehicles_tiny_prn


def get_config(root: str = "data/traffic") -> ml_collections.ConfigDict:
  config = vehicles_tiny_prn.get_config()
  config.data.train, config.data.valid = (
    f"coco:{root}/train.json:{root}/images",
    f"coco:{root}/valid.json:{root}/images",
  )
  config.width, config.height = 416, 256
  config.anchors = ((4.0, 4.0), (7.8, 5.4), (10.8, 10.1), (16.0, 16.7), (28.1, 28.1), (48.6, 55.2))
  return config
