"""Blood cells (BCCD, VOC annotations): YOLOv3-tiny-PRN at 256x192, from scratch. Source of the numbers: ours.

Data: https://github.com/Shenggan/BCCD_Dataset, whose folder BCCD lies at ROOT (default data/bccd/BCCD); 205 training
images, 87 for validation. The anchors are `prn data anchors voc:ROOT:train --num 6 --size 256x192`.
Run: prn train --config=bccd_tiny_prn:ROOT --workdir=runs/bccd
"""

from __future__ import annotations

import ml_collections

from configs import vehicles_tiny_prn


def get_config(root: str = "data/bccd/BCCD") -> ml_collections.ConfigDict:
  config = vehicles_tiny_prn.get_config()
  config.data.train, config.data.valid = f"voc:{root}:train", f"voc:{root}:val"
  config.width, config.height = 256, 192
  config.augment.exposure, config.augment.saturation, config.augment.hue = 1.3, 1.3, 0.05
  return config
