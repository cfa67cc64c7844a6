"""What every configuration starts from: all keys, locked, with the defaults of `prn_jax.train.config.TrainConfig`.

A configuration changes what differs, and says in its docstring where the numbers come from, how to run it, and what
to expect. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import ml_collections

from prn_jax.data_pipelines.feed.pipeline import darknet_sizes
from prn_jax.errors import did_you_mean
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


def of_dataset(
  argument: str, *, root: str, model: str, anchors: Mapping[int, Sequence[tuple[float, float]]]
) -> tuple[ml_collections.ConfigDict, str]:
  """What the configurations of the public data sets share: YOLOv4's augmentation and losses, 100 epochs at 640x640.

  Args:
    argument: "ROOT,MODEL,ANCHORS", of which the last ones may be missing and any may be empty. ANCHORS is `own`
      (clustered from the training boxes at the start, the default), `published`, or `model` (the network's).
    root, model: what stands for an empty ROOT or MODEL.
    anchors: the published ones by their number, in pixels of the network's input.

  Returns:
    The configuration, without its data; ROOT.

  Raises:
    ValueError: the argument cannot be understood, or there are no published anchors for that network.
  """
  given = [part.strip() for part in argument.split(",")]
  if len(given) > 3:
    raise ValueError(f"'{argument}' has {len(given)} parts; expected ROOT,MODEL,ANCHORS")
  place, network, which = (part or usual for part, usual in zip_longest(given, (root, model, "own"), fillvalue=""))
  config = get_config("detect")
  config.model = network
  config.width = config.height = 640
  if which == "own":
    config.fit_anchors = True
  elif which == "published":
    config.anchors = _published(network, anchors)
  elif which != "model":
    raise ValueError(
      f"anchors '{which}'{did_you_mean(which, ('own', 'published', 'model'))}; expected own, published or model"
    )
  config.data.on_bad_data = "skip"
  config.data.max_boxes = 200
  config.batch_size = 64
  config.total.epochs = 100.0
  config.eval.every.epochs = 10.0
  config.eval.conf = 0.001
  config.augment.jitter, config.augment.mosaic = 0.3, True
  config.augment.saturation, config.augment.exposure, config.augment.hue = 1.5, 1.5, 0.1
  config.loss.head.update({
    "ignore_thresh": 0.7, "iou_thresh": 0.213, "iou_loss": "ciou", "iou_normalizer": 0.07, "max_delta": 5.0,
  })  # fmt: skip
  config.optim.learning_rate, config.optim.momentum, config.optim.weight_decay = 1.3e-3, 0.949, 5e-4
  config.optim.schedule.policy, config.optim.schedule.burn_in_steps = "cosine", 1_000
  config.optim.ema_decay = 0.9998
  return config, place


def _published(network: str, anchors: Mapping[int, Sequence[tuple[float, float]]]) -> tuple[tuple[float, float], ...]:
  from prn_jax.loading import load
  from prn_jax.transforms.num_classes import anchors_of

  count = len(anchors_of(load(network).graph))
  if count not in anchors:
    known = " and ".join(f"{number}" for number in sorted(anchors)) or "no number"
    raise ValueError(f"network '{network}' has {count} anchors; published are lists of {known}. Take own or model")
  return tuple((float(width), float(height)) for width, height in anchors[count])
