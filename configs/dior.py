"""DIOR, twenty classes of aerial images, 640x640. Source of the settings: cfg/yolov4.cfg of AlexeyAB/darknet.

The argument is ROOT,MODEL,ANCHORS; each may be left out (`default.of_dataset`). ROOT (default data/DIOR) is as it is unpacked.
Trained on trainval, evaluated on test by VOC's protocol (AP50, area under the curve). Anchors are clustered by us at the start;
`published` are those of SpursLipu's YOLOv3v4-ModelCompression-MultidatasetTraining, trained at 640.
Expected: AP50 0.749 for YOLOv3 at 640 (README of that repository). Not yet run.
Run: prn train --config=dior:ROOT,yolov3-mobilenetv3 --workdir=runs/dior
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default

ROOT, MODEL = "data/DIOR", "yolov3"
PUBLISHED = {
  9: ((5, 5), (6, 13), (10, 26), (13, 6), (15, 15), (27, 10), (28, 33), (61, 74), (167, 169)),
  6: ((5, 5), (8, 15), (17, 9), (22, 27), (54, 65), (152, 155)),
}  # fmt: skip
"""By the number of anchors, width and height in pixels at the size at which they were trained (see above)."""


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  config, root = default.of_dataset(argument, root=ROOT, model=MODEL, anchors=PUBLISHED)
  config.data.train, config.data.valid = f"dior:{root}:trainval", f"dior:{root}:test"
  config.eval.protocol = "voc"
  return config
