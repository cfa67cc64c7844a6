"""BDD100K, ten classes of road scenes, 640x640. Source of the settings: cfg/yolov4.cfg of AlexeyAB/darknet.

The argument is ROOT,MODEL,ANCHORS; each may be left out (`default.of_dataset`). ROOT (default data/bdd100k) holds
bdd100k_labels_images_train.json and ..._val.json of 2018 in labels/, and the images in images/100k/train and .../val.
Trained on train, evaluated on val by COCO's protocol, since the labels of its test are not published. Anchors are
clustered by us at the start; `published` are those of SpursLipu's YOLOv3v4-ModelCompression-MultidatasetTraining for
640 pixels, of which BDD100K's 1280x720 images are half.
Expected: AP50 0.543 for YOLOv3 at 640 (README of that repository, from Darknet53's ImageNet weights). Not yet run.
Run: prn train --config=bdd100k:ROOT,yolov3-mobilenetv3 --workdir=runs/bdd100k
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default

ROOT, MODEL = "data/bdd100k", "yolov3"
PUBLISHED = {
  9: ((3, 7), (5, 18), (6, 9), (10, 32), (11, 14), (17, 21), (24, 36), (45, 59), (93, 132)),
  6: ((3, 7), (5, 18), (7, 10), (12, 20), (26, 38), (70, 96)),
}  # fmt: skip
"""By the number of anchors, width and height in pixels at the size at which they were trained (see above)."""


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  config, root = default.of_dataset(argument, root=ROOT, model=MODEL, anchors=PUBLISHED)
  config.data.train, config.data.valid = (
    f"bdd100k:{root}/labels/bdd100k_labels_images_train.json:{root}/images/100k/train",
    f"bdd100k:{root}/labels/bdd100k_labels_images_val.json:{root}/images/100k/val",
  )
  return config
