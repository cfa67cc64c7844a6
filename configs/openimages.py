"""Open Images, all 601 labels that have boxes, 608x608. Source of the settings: cfg/yolov3-openimages.cfg of AlexeyAB/darknet.

The argument is ROOT,MODEL,ANCHORS; each may be left out (`default.of_dataset`). ROOT (default data/openimages) holds
train-annotations-bbox.csv, validation-annotations-bbox.csv and class-descriptions-boxable.csv as they are downloaded, and
the images in train/ and validation/. A shorter copy of the file of classes chooses classes, and a part of the images is a set,
too: rows without an image are passed over. All 14.6 million boxes of train are held in memory (opening took 4.7 CPU s per
200,000, docs/speed.md): choose from them where that is too much. Anchors are clustered by us at the start; those of the
cfg are COCO's (`model`). Labels that nobody verified in an image count as absent (see `sources.openimages`).
Expected: not yet run.
Run: prn train --config=openimages:ROOT,yolov3-tiny-prn --workdir=runs/openimages
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import default

ROOT, MODEL = "data/openimages", "yolov3"


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  config, root = default.of_dataset(argument, root=ROOT, model=MODEL, anchors={})
  config.width = config.height = 608
  config.data.train, config.data.valid = (
    f"openimages:{root}/{part}-annotations-bbox.csv:{root}/class-descriptions-boxable.csv:{root}/{part}"
    for part in ("train", "validation")
  )
  config.total.epochs, config.total.steps = 0.0, 500_200
  config.eval.every.epochs, config.eval.every.steps = 0.0, 10_000
  config.optim.learning_rate, config.optim.momentum = 1e-3, 0.9
  config.optim.schedule.burn_in_steps = 5_000
  return config
