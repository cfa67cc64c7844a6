"""VisDrone-DET, ten classes seen by drones, 640x640. Source of the settings: cfg/yolov4.cfg of AlexeyAB/darknet.

The argument is ROOT,MODEL,ANCHORS; each may be left out (`default.of_dataset`). ROOT (default data/visdrone) holds
VisDrone2019-DET-train and VisDrone2019-DET-val as they are unpacked. Ignored regions teach nothing. Anchors are clustered
by us at the start: published networks have COCO's (`model`), and a list for YOLOv3-tiny with an anchor of no width.
Expected: AP50 0.311 for YOLOv3 and 0.348 for YOLOv3 with MobileNetV3 at 640 (README of SpursLipu's
YOLOv3v4-ModelCompression-MultidatasetTraining, which does not say on which split). Not yet run.
Run: prn train --config=visdrone:ROOT,yolov3-mobilenetv3 --workdir=runs/visdrone
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default

ROOT, MODEL = "data/visdrone", "yolov3"


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  config, root = default.of_dataset(argument, root=ROOT, model=MODEL, anchors={})
  config.data.train, config.data.valid = (
    f"visdrone:{root}/VisDrone2019-DET-train",
    f"visdrone:{root}/VisDrone2019-DET-val",
  )
  config.data.max_boxes = 500  # up to 900 objects and regions an image
  config.eval.protocol = "visdrone"
  return config
