"""Blood cells (BCCD, VOC annotations): YOLOv3-tiny-PRN at 256x192, from scratch. Source of the numbers: ours.

Data: https://github.com/Shenggan/BCCD_Dataset, whose folder BCCD lies at ROOT (default data/bccd/BCCD); 205 training
images, 87 for validation. The anchors are `prn data anchors voc:ROOT:train --num 5 --size 256x192`, behind one that no
head of this network uses.
Expected: AP50 0.81, AP 0.42 on its val, measured on 2 shared CPU cores in 13 minutes (docs/training.md).
Run: prn train --config=bccd_tiny_prn:ROOT --workdir=runs/bccd
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import vehicles_tiny_prn


def get_config(root: str = "data/bccd/BCCD") -> ml_collections.ConfigDict:
  config = vehicles_tiny_prn.get_config()
  config.data.train, config.data.valid = f"voc:{root}:train", f"voc:{root}:val"
  config.width, config.height = 256, 192
  config.anchors = ((8.0, 8.0), (16.0, 15.6), (41.2, 35.6), (38.8, 42.0), (46.8, 43.6), (86.4, 78.4))
  config.augment.exposure, config.augment.saturation, config.augment.hue = 1.3, 1.3, 0.05
  return config
