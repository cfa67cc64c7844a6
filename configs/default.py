"""What every configuration starts from: all keys, locked, with the defaults of `prn_jax.train.config.TrainConfig`.

A configuration changes what differs, and says in its docstring where the numbers come from, how to run it, and what
to expect. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import ml_collections

from prn_jax.data_pipelines.feed.pipeline import darknet_sizes
from prn_jax.train.config import default_config


def get_config(task: str = "detect") -> ml_collections.ConfigDict:
  """The defaults of a task, "detect" or "classify". It names no data and no model: not a run by itself."""
  return default_config(task)


def coco() -> ml_collections.ConfigDict:
  """What the COCO configurations share: data, Darknet's colours, and an evaluation of val2017 ten times in a run.

  The images are expected under data/coco as the archives of cocodataset.org unpack; `prn data prepare` makes them fit
  for fast reading, after which --config.data.train=arrayrecord:DIR:train takes their place.
  """
  config = get_config("detect")
  config.data.train = "coco:data/coco/annotations/instances_train2017.json:data/coco/train2017"
  config.data.valid = "coco:data/coco/annotations/instances_val2017.json:data/coco/val2017"
  config.data.on_bad_data = "skip"  # train2017 holds boxes without size
  config.data.max_boxes = 90  # Darknet's limit when these networks were published
  config.batch_size = 64
  config.dtype = "bfloat16"
  config.eval.conf = 0.001
  config.eval.metric = "AP"
  config.augment.jitter = 0.3
  config.augment.saturation, config.augment.exposure, config.augment.hue = 1.5, 1.5, 0.1
  config.loss.head.update({"ignore_thresh": 0.7})
  config.optim.learning_rate, config.optim.momentum, config.optim.weight_decay = 1e-3, 0.9, 5e-4
  steps_schedule(config, total_steps=500_200, steps=(400_000, 450_000))
  config.eval.every.steps = 50_000
  config.checkpoint_every.steps = 2_000
  return config


def multi_scale(config: ml_collections.ConfigDict, side: int) -> None:
  """Darknet's `random=1` around square inputs of `side` pixels: another size every 10 updates.

  Each is compiled once, so that a shorter list starts sooner.
  """
  config.sizes = tuple(size for size in darknet_sizes(side, side) if size != (side, side))


def steps_schedule(config: ml_collections.ConfigDict, *, total_steps: int, steps: tuple[int, ...]) -> None:
  """Darknet's usual course: burn-in over 1,000 updates with power 4, then a tenth at each of `steps`."""
  schedule = config.optim.schedule
  schedule.policy, schedule.burn_in_steps = "steps", 1_000
  schedule.steps, schedule.scales = tuple(float(s) for s in steps), (0.1,) * len(steps)
  config.total.steps = total_steps


def imagenet() -> ml_collections.ConfigDict:
  """What the ImageNet configurations share: data, Darknet's angles, aspects and colours, evaluation every 5 epochs.

  data/imagenet/train and data/imagenet/val hold one folder per class, as `imagefolder:` reads them: at every start every
  host opens each of the 1.28 million files to read its size. Prepared data start at once:

    prn data prepare imagefolder:data/imagenet/train data/imagenet448 --min-side 448
    prn data prepare imagefolder:data/imagenet/val data/imagenet448 --min-side 448 --split val
    prn train --config=NAME --config.data.train=arrayrecord:data/imagenet448:train \
      --config.data.valid=arrayrecord:data/imagenet448:val --workdir=...

  448 is the largest `augment.max_crop` of these configurations, so that crops are as sharp as those of the files.
  """
  config = get_config("classify")
  config.data.train = "imagefolder:data/imagenet/train"
  config.data.valid = "imagefolder:data/imagenet/val"
  config.dtype = "bfloat16"
  config.augment.angle, config.augment.aspect = 7.0, 0.75
  config.augment.saturation, config.augment.exposure, config.augment.hue = 0.75, 0.75, 0.1
  config.eval.every.epochs = 5.0
  config.checkpoint_every.epochs = 1.0
  return config
