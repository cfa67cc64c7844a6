"""VGG's hands (Oxford), one class, 640x640. Source of the settings: cfg/yolov4.cfg of AlexeyAB/darknet.

The argument is ROOT,MODEL,ANCHORS; each may be left out (`default.of_dataset`). ROOT (default data/hand_dataset) is as it
is unpacked. Trained on training and validation together, evaluated on test by VOC's protocol, as most do. Anchors are clustered
by us at the start; `published` are those of SpursLipu's YOLOv3v4-ModelCompression-MultidatasetTraining.
Expected: AP50 0.847 for YOLOv3 at 640, 0.812 for YOLOv3 with MobileNetV3 at 608 (README of that repository). Not yet run.
Run: prn train --config=oxfordhand:ROOT,yolov3-tiny-prn --workdir=runs/hand
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default

ROOT, MODEL = "data/hand_dataset", "yolov3"
PUBLISHED = {
  9: ((8, 13), (14, 20), (22, 25), (26, 36), (35, 49), (40, 31), (51, 69), (63, 47), (94, 103)),
  6: ((9, 13), (16, 22), (27, 38), (28, 27), (44, 49), (79, 83)),
}  # fmt: skip
"""By the number of anchors, width and height in pixels at the size at which they were trained (see above)."""


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  config, root = default.of_dataset(argument, root=ROOT, model=MODEL, anchors=PUBLISHED)
  config.data.train, config.data.valid = f"oxfordhand:{root}:trainval", f"oxfordhand:{root}:test"
  config.eval.protocol = "voc"
  return config
