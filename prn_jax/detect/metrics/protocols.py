"""The protocols of detection: how truths and detections become figures.

A new one is a function with `@register_protocol`; `prn eval --protocol` and `config.eval.protocol` then take its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from prn_jax.detect.metrics.coco import FIGURES, NO_TRUTHS, coco_metrics
from prn_jax.detect.metrics.darknet import darknet_metrics
from prn_jax.detect.metrics.data import EvalData, EvalError
from prn_jax.detect.metrics.overlap import Pixels
from prn_jax.detect.metrics.regions import without_regions
from prn_jax.detect.metrics.tables import Evaluation, defined
from prn_jax.detect.metrics.visdrone import FIGURES as VISDRONE_FIGURES
from prn_jax.detect.metrics.visdrone import visdrone_metrics
from prn_jax.detect.metrics.voc import voc_metrics
from prn_jax.errors import did_you_mean


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a protocol leaves open.

  Attributes:
    backend: library for COCO's figures; None takes the fastest that is installed.
    pixels: how wide a box is; "inclusive" for BDD100K and for VOC boxes that still count pixels from 1.
    iou_threshold: least overlap, for VOC and Darknet.
    points: 0 (area), 11 or 101, for Darknet.
    conf_threshold: score to exceed for precision, recall and F1.
  """

  backend: str | None = None
  pixels: Pixels | str = Pixels.CONTINUOUS
  iou_threshold: float = 0.5
  points: Literal[0, 11, 101] = 0
  conf_threshold: float = 0.25


Score = Callable[[EvalData, Settings], Evaluation]


@dataclasses.dataclass(frozen=True)
class Protocol:
  """A way to score detections.

  Attributes:
    name: what `--protocol` takes.
    score: detections and truths -> figures.
    ratings: figures that can decide which checkpoint is best, higher being better.
    rating: the one that decides by default.
    clips_boxes: whether boxes are cut at the border of the image first.
    takes_nms_of_cfg: whether boxes are suppressed as the cfg says; else by plain overlap, as other frameworks do.
    counts_absent_classes: whether classes without an object count as 0 in the mean; else they have no figure.
    regions: what it does with ignored regions, in words.
  """

  name: str
  score: Score
  ratings: tuple[str, ...]
  rating: str
  clips_boxes: bool
  takes_nms_of_cfg: bool
  counts_absent_classes: bool
  regions: str


_PROTOCOLS: dict[str, Protocol] = {}


def register_protocol(
  name: str,
  *,
  ratings: Sequence[str],
  rating: str = "",
  clips_boxes: bool = True,
  takes_nms_of_cfg: bool = False,
  counts_absent_classes: bool = False,
  regions: str = "this protocol does not look at them",
) -> Callable[[Score], Score]:
  """Makes a protocol known by its name.

  Args:
    name: what `--protocol` takes; not yet taken.
    ratings: figures of its `Evaluation.metrics` that can decide which checkpoint is best, higher being better.
    rating: the one that decides by default; the first where none is given.
    clips_boxes, takes_nms_of_cfg, counts_absent_classes, regions: see `Protocol`.
  """
  assert ratings, f"protocol '{name}' needs a figure that decides which checkpoint is best"
  assert name not in _PROTOCOLS, f"two protocols are called {name}"

  def register(function: Score) -> Score:
    _PROTOCOLS[name] = Protocol(
      name,
      function,
      tuple(ratings),
      rating or ratings[0],
      clips_boxes,
      takes_nms_of_cfg,
      counts_absent_classes,
      regions,
    )
    return function

  return register


def protocols() -> tuple[str, ...]:
  """The names of all protocols, in the order of their registration."""
  return tuple(_PROTOCOLS)


def get_protocol(name: str) -> Protocol:
  """A protocol by its name.

  Raises:
    EvalError: it is unknown.
  """
  if name not in _PROTOCOLS:
    known = protocols()
    raise EvalError(f"protocol '{name}' is unknown{did_you_mean(name, known)}; expected one of {', '.join(known)}")
  return _PROTOCOLS[name]


def evaluate(
  data: EvalData, protocol: str = "coco", settings: Settings | None = None, *, compare_regions: bool = False
) -> Evaluation:
  """Scores detections under a protocol.

  Args:
    data: the result of `collect`.
    protocol: "coco", "voc07" (11 points), "voc" (every point), "darknet", "visdrone", or another that was registered.
    settings: what the protocol leaves open.
    compare_regions: whether data with ignored regions is also scored as if nothing were ignored.

  Raises:
    EvalError: the protocol is unknown, or its library is missing.
  """
  found, settings = get_protocol(protocol), settings or Settings()
  evaluation = found.score(data, settings)
  if not len(data.region_image):
    return evaluation
  without = found.score(without_regions(data), settings).metrics if compare_regions else None
  return dataclasses.replace(
    evaluation, num_regions=len(data.region_image), regions_rule=found.regions, without_regions=without
  )


@register_protocol(
  "coco",
  ratings=FIGURES,
  rating="AP50",
  regions="as a crowd of every class; what finds no object, and of which the share of the least IoU lies in one, counts "
  "neither way",
)
def _coco(data: EvalData, settings: Settings) -> Evaluation:
  result = coco_metrics(data, backend=settings.backend, pixels=settings.pixels)
  rows = tuple(
    {"name": row.name, "truths": row.num_truths, "detections": row.num_detections}
    | {key: None if row.figures[key] == NO_TRUTHS else row.figures[key] for key in _COCO_CLASS_FIGURES}
    for row in result.per_class
  )
  metrics: dict[str, float | None] = dict(result.figures)
  return Evaluation("coco", metrics, data.num_images, data.num_detections, rows, result.backend)


_COCO_CLASS_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def _voc(protocol: str, interpolation: Literal["11", "every"]) -> Callable[[EvalData, Settings], Evaluation]:
  def run(data: EvalData, settings: Settings) -> Evaluation:
    result = voc_metrics(
      data, interpolation=interpolation, iou_threshold=settings.iou_threshold, pixels=settings.pixels
    )
    detections = np.bincount(data.det_classes, minlength=data.num_classes)
    rows = tuple(
      {"name": name, "truths": curve.num_truths, "detections": int(number), "AP": defined(ap)}
      for (name, ap), curve, number in zip(result.ap.items(), result.curves, detections, strict=True)
    )
    return Evaluation(protocol, {"mAP": defined(result.mean_ap)}, data.num_images, data.num_detections, rows)

  return run


_VOC_REGIONS = "VOC knows none; what is wrong, and of which the share of the least IoU lies in one, counts neither way"
register_protocol("voc07", ratings=("mAP",), regions=_VOC_REGIONS)(_voc("voc07", "11"))
register_protocol("voc", ratings=("mAP",), regions=_VOC_REGIONS)(_voc("voc", "every"))


@register_protocol(
  "darknet",
  ratings=("mAP", "precision", "recall", "F1", "avg_iou", "TP"),
  clips_boxes=False,
  takes_nms_of_cfg=True,
  counts_absent_classes=True,
  regions="Darknet knows none; detections in them are wrong",
)
def _darknet(data: EvalData, settings: Settings) -> Evaluation:
  result = darknet_metrics(
    data, points=settings.points, iou_threshold=settings.iou_threshold, conf_threshold=settings.conf_threshold
  )
  rows = tuple(
    {
      "name": row.name,
      "truths": row.num_truths,
      "AP": row.ap,
      "TP": row.true_positives,
      "FP": row.false_positives,
      "avg_iou": row.average_iou,
    }
    for row in result.per_class
  )
  metrics: dict[str, float | None] = {
    "mAP": result.mean_ap,
    "precision": result.precision,
    "recall": result.recall,
    "F1": result.f1,
    "avg_iou": result.average_iou,
    "TP": result.true_positives,
    "FP": result.false_positives,
    "FN": result.false_negatives,
  }
  return Evaluation("darknet", metrics, data.num_images, data.num_detections, rows)


@register_protocol(
  "visdrone",
  ratings=VISDRONE_FIGURES,
  rating="AP",
  regions="objects and detections of which half or more lies in them are taken away first",
)
def _visdrone(data: EvalData, settings: Settings) -> Evaluation:
  result = visdrone_metrics(data)
  rows = tuple(
    {"name": row.name, "truths": row.num_truths, "detections": row.num_detections}
    | {key: defined(value) for key, value in row.figures.items()}
    for row in result.per_class
  )
  metrics = {key: defined(value) for key, value in result.figures.items()}
  return Evaluation("visdrone", metrics, data.num_images, data.num_detections, rows)
