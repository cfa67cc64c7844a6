"""From COCO weights to your own photos: the recipe for a few hundred labelled images. Source of the numbers: ours.

AdamW with a cosine, averaged weights, anchors clustered from your boxes, CIoU, no penalty for boxes that overlap an object
by half (`ignore_thresh`), gentle crops, no mosaic (docs/recipes.md has the measurements of each).

Data: ROOT/data.yaml with `train` and `test` (default data/vehicles), or any --config.data.train=SPEC and
--config.data.valid=SPEC. Network: yolov4-tiny (`prn models --download yolov4-tiny --to .`), or any --config.model=NAME_OR_CFG
with --config.weights=FILE. 12 epochs of 439 images are 329 steps; of fewer images take more epochs.
Expected: with yolo-fastest-1.1-xl, runs that differ a little had AP50 0.76 on the vehicles of Open Images after 25 epochs at
320x320, 0.887 on blood cells after 40 at 320x256 (docs/recipes.md). As it stands:
AP50 0.60 on the vehicles after 3 epochs at 256x256, 7 minutes on 2 CPU cores. With yolov4-tiny: not yet run.
Run: prn train --config=fine_tune:ROOT --config.model=yolo-fastest-1.1-xl.cfg --config.weights=yolo-fastest-1.1-xl.weights \
       --config.width=320 --config.height=320 --workdir=runs/mine
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default


def get_config(root: str = "data/vehicles") -> ml_collections.ConfigDict:
  config = default.get_config("detect")
  config.model, config.weights = "yolov4-tiny", "yolov4-tiny.weights"
  config.data.train, config.data.valid = f"yolo:{root}/data.yaml:train", f"yolo:{root}/data.yaml:test"
  config.data.on_bad_data = "skip"
  config.data.cache_mb = 1_000
  config.fit_anchors = config.keep_head = True
  config.batch_size = 16
  config.total.epochs = 12.0
  config.log_every.steps = 20
  config.eval.conf = 0.001
  config.bn_momentum = 0.95  # a few hundred steps are too short for 0.99
  config.augment.jitter, config.augment.hue = 0.15, 0.1
  config.augment.saturation, config.augment.exposure = 1.5, 1.5
  config.loss.head.update({"ignore_thresh": 0.5, "iou_thresh": 0.213, "iou_loss": "ciou", "iou_normalizer": 0.07})
  config.optim.name, config.optim.learning_rate, config.optim.weight_decay = "adamw", 1e-3, 5e-2
  config.optim.clip_norm, config.optim.ema_decay = 30.0, 0.998
  config.optim.schedule.policy, config.optim.schedule.burn_in_steps = "cosine", 50
  return config
