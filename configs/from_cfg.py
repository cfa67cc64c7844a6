"""Any Darknet cfg as a training run: network, loss, learning rate and augmentation all come from the file.

Run: prn train --config=yolov4-custom.cfg --config.data.train=darknet:obj.data:train --workdir=runs/mine
"""

from __future__ import annotations

import ml_collections

from prn_jax.train.darknet_config import config_from_cfg


def get_config(cfg: str = "", lenient: bool = False) -> ml_collections.ConfigDict:
  return config_from_cfg(cfg, lenient)
