"""What is likely to disappoint, said before a run starts; and why a figure of an evaluation is 0, said after it."""

from __future__ import annotations

from typing import Any

import numpy as np

from prn_jax.detect.metrics import EvalData
from prn_jax.train.defaults import has_batch_norm, settled
from prn_jax.train.evaluation import Figures
from prn_jax.train.experiment import Experiment
from prn_jax.zoo import manifest as zoo

FILE = "why_zero.txt"
_SHOWN = 5
_MATCH = 0.5  # overlap from which AP50, VOC's and Darknet's mAP count a box


def warnings(experiment: Experiment) -> list[str]:
  """One line for each thing that a first training usually gets wrong; empty for a run that is taken up again."""
  config, images = experiment.config, len(experiment.dataset)
  found = []
  if config.batch_size > images:
    found.append(
      f"the batch ({config.batch_size}) is larger than the data ({images} images): every step repeats images. Give "
      "--config.batch_size=0 (chosen by the data), or more images."
    )
  random_bn = [layer for layer in experiment.start.random if has_batch_norm(experiment.graph, layer)]
  needed = settled(config.bn_momentum)
  if random_bn and experiment.total_steps < needed:
    found.append(
      f"{experiment.total_steps:,} steps are few: the averages of batch norm follow the weights after about {needed:,} "
      f"(5 / (1 - bn_momentum {config.bn_momentum:g})), and the evaluation, which uses them, may find nothing before. "
      "Lengthen config.total, or start from weights."
    )
  entry = zoo.ENTRIES.get(experiment.graph.name.replace("_", "-"))
  if not experiment.start.source and entry is not None:
    found.append(
      f"all weights start random, although published ones of {entry.model} exist: 'prn models --download {entry.model}' "
      "fetches them, and --config.weights=FILE starts from them. On little data that decides what is learned."
    )
  return found


def why_zero(experiment: Experiment, figures: Figures, metric: str, step: int) -> str:
  """Why the figure that rates a checkpoint is 0 or undefined; "" where it is neither.

  Args:
    experiment: the experiment of the run.
    figures: the figures of an evaluation.
    metric: name of the figure.
    step: updates done.
  """
  value = figures.values.get(metric, 0.0)
  if value > 0 or not isinstance(figures.scored, tuple):
    return ""
  data: EvalData = figures.scored[0]
  config, name = experiment.config, f"{metric} is {'undefined' if np.isnan(value) or value < 0 else 0}"
  if not len(data.truth_classes):
    return f"{name}: the {data.num_images:,} images of config.data.valid have no box at all."
  young = _young(experiment, step)
  if not data.num_detections:
    return (
      f"{name}: no box is more certain than config.eval.conf={config.eval.conf:g} in any of {data.num_images:,} images. "
      f"{young or 'The network has not learned to be certain yet, or the learning rate is too small or too large.'}"
    )
  with_truth, found = set(data.truth_classes.tolist()), set(data.det_classes.tolist())
  if not with_truth & found:
    return (
      f"{name}: the classes that were found ({_names(data, found)}) have no box in config.data.valid, which has "
      f"{_names(data, with_truth)}. {young}"
    ).rstrip()
  best = best_overlap(data)
  text = (
    f"{name}: of {data.num_detections:,} detections none is right; the best overlaps a box of its class by {best:.2f}"
  )
  if best >= _MATCH:
    return f"{text}, but metric {metric} asks for more. {young}".rstrip()
  return f"{text}, {_MATCH} counts. {young or 'Train longer, or see what it learns from (train_samples.jpg).'}"


def _young(experiment: Experiment, step: int) -> str:
  """Whether the averages of batch norm explain it."""
  needed = settled(experiment.config.bn_momentum)
  if step >= needed or not any(has_batch_norm(experiment.graph, layer) for layer in experiment.start.random):
    return ""
  return (
    f"The averages of batch norm, which evaluations use, have seen {step:,} of about {needed:,} updates that they need to "
    "follow the weights: wait, or start the next run with a smaller config.bn_momentum."
  )


def best_overlap(data: EvalData) -> float:
  """The largest overlap (IoU) of a detection and a truth of its image and class; 0 without any."""
  best = 0.0
  truths, dets = data.truth_boxes_xyxy_px, data.det_boxes_xyxy_px
  for image in np.unique(data.det_image):
    mine, theirs = np.flatnonzero(data.det_image == image), np.flatnonzero(data.truth_image == image)
    same = data.det_classes[mine][:, None] == data.truth_classes[theirs][None, :]
    if not same.any():
      continue
    a, b = dets[mine][:, None, :], truths[theirs][None, :, :]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides[..., 0] * sides[..., 1]
    area = [(x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b)]
    union = np.maximum(area[0] + area[1] - common, 1e-9)
    best = max(best, float(np.where(same, common / union, 0.0).max()))
  return best


def _names(data: EvalData, classes: set[int]) -> str:
  names: list[Any] = [data.names[index] for index in sorted(classes)]
  rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return f"{', '.join(names[:_SHOWN])}{rest}"
