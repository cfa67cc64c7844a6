"""COCO's 12 figures, by the official evaluator or a port of it that gives the same numbers.

hotcoco where it is installed (500,000 detections in a second), else faster-coco-eval, else pycocotools; a test holds
the three equal. They differ in how they are fed, not in what is computed: IoU .5:.95, 101 points, crowd regions by
intersection over the detection's area, three size classes, at most 100 detections per image and class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData, EvalError
from prn_jax.detect.metrics.overlap import Pixels
from prn_jax.detect.metrics.regions import as_crowds
from prn_jax.errors import did_you_mean

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
NO_TRUTHS = -1.0
"""COCO's value for "no object of this size or class"; not a figure, and left out of every mean."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_TOP1, _TOP10, _TOP100 = range(3)


@dataclasses.dataclass(frozen=True)
class CocoClass:
  """One class: how often it occurs, and its figures in [0, 1], or -1 where it has no truth."""

  name: str
  num_truths: int
  num_detections: int
  figures: dict[str, float]


@dataclasses.dataclass(frozen=True)
class CocoMetrics:
  """COCO's evaluation.

  Attributes:
    figures: the 12 figures by their names in `FIGURES`, in [0, 1]; -1 where no truth of that size exists.
    per_class: the same 12 figures of every class.
    backend: the library that computed them.
  """

  figures: dict[str, float]
  per_class: tuple[CocoClass, ...]
  backend: str


class _Columns(NamedTuple):
  """What the libraries need; ids from 1, since 0 means "no match" to them."""

  images: list[dict[str, Any]]
  categories: list[dict[str, Any]]
  truth_image: NDArray[np.int64]
  truth_category: NDArray[np.int64]
  truth_xywh_px: NDArray[np.float64]
  truth_area_px: NDArray[np.float64]
  truth_is_crowd: NDArray[np.int64]
  det_image: NDArray[np.int64]
  det_category: NDArray[np.int64]
  det_xywh_px: NDArray[np.float64]
  det_scores: NDArray[np.float64]


class _Accumulated(NamedTuple):
  """precision (iou 10, recall 101, class, size 4, max detections 3) and recall (without the recall axis)."""

  precision: NDArray[np.float64]
  recall: NDArray[np.float64]


def coco_metrics(
  data: EvalData, *, backend: str | None = None, pixels: Pixels | str = Pixels.CONTINUOUS
) -> CocoMetrics:
  """COCO's 12 figures, for all classes and for each.

  Args:
    data: the result of `collect`. Difficult objects count as any other: COCO knows none. An ignored region counts as a
      crowd region of every class.
    backend: "hotcoco", "faster_coco_eval" or "pycocotools"; None takes the first that is installed.
    pixels: "inclusive" measures boxes as x2-x1+1, as BDD100K's evaluation (Scalabel) does.

  Raises:
    EvalError: the backend is unknown or not installed.
  """
  name = _backend(backend)
  columns = _columns(as_crowds(data), Pixels(pixels))
  # Some of the libraries report their progress on stdout, where it would spoil the JSON of a command.
  with contextlib.redirect_stdout(io.StringIO()):
    accumulated = BACKENDS[name](columns)
  truths = np.bincount(data.truth_classes[~data.truth_is_crowd], minlength=data.num_classes)
  detections = np.bincount(data.det_classes, minlength=data.num_classes)
  per_class = tuple(
    CocoClass(label, int(truths[index]), int(detections[index]), _figures(accumulated, slice(index, index + 1)))
    for index, label in enumerate(data.names)
  )
  return CocoMetrics(_figures(accumulated, slice(None)), per_class, name)


def _figures(accumulated: _Accumulated, classes: slice) -> dict[str, float]:
  precision, recall = accumulated.precision[:, :, classes], accumulated.recall[:, classes]

  def mean(values: NDArray[np.float64]) -> float:
    present = values[values > NO_TRUTHS]
    return float(np.mean(present)) if present.size else NO_TRUTHS

  return {
    "AP": mean(precision[..., _ALL, _TOP100]),
    "AP50": mean(precision[0, ..., _ALL, _TOP100]),
    "AP75": mean(precision[5, ..., _ALL, _TOP100]),
    "APs": mean(precision[..., _SMALL, _TOP100]),
    "APm": mean(precision[..., _MEDIUM, _TOP100]),
    "APl": mean(precision[..., _LARGE, _TOP100]),
    "AR1": mean(recall[..., _ALL, _TOP1]),
    "AR10": mean(recall[..., _ALL, _TOP10]),
    "AR100": mean(recall[..., _ALL, _TOP100]),
    "ARs": mean(recall[..., _SMALL, _TOP100]),
    "ARm": mean(recall[..., _MEDIUM, _TOP100]),
    "ARl": mean(recall[..., _LARGE, _TOP100]),
  }


def _columns(data: EvalData, pixels: Pixels) -> _Columns:
  extra = np.array([0.0, 0.0, 1.0, 1.0] if pixels is Pixels.INCLUSIVE else [0.0] * 4)
  truth_xywh = data.truth_boxes_xywh_px + extra
  area = np.where(np.isnan(data.truth_area_px), truth_xywh[:, 2] * truth_xywh[:, 3], data.truth_area_px)
  return _Columns(
    images=[{"id": index + 1} for index in range(data.num_images)],
    categories=[{"id": index + 1, "name": name} for index, name in enumerate(data.names)],
    truth_image=data.truth_image + 1,
    truth_category=data.truth_classes + 1,
    truth_xywh_px=truth_xywh,
    truth_area_px=area,
    truth_is_crowd=data.truth_is_crowd.astype(np.int64),
    det_image=data.det_image + 1,
    det_category=data.det_classes + 1,
    det_xywh_px=data.det_boxes_xywh_px + extra,
    det_scores=data.det_scores,
  )


def _hotcoco(columns: _Columns) -> _Accumulated:
  import hotcoco

  images = [{**image, "width": 0, "height": 0} for image in columns.images]
  truths = hotcoco.COCO.from_arrays(
    images,
    columns.categories,
    columns.truth_image,
    columns.truth_category,
    columns.truth_xywh_px,
    area=columns.truth_area_px,
    iscrowd=columns.truth_is_crowd,
  )
  rows = np.column_stack([columns.det_image, columns.det_xywh_px, columns.det_scores, columns.det_category])
  evaluator = hotcoco.COCOeval(truths, truths.load_res(rows), "bbox")
  evaluator.evaluate()
  evaluator.accumulate()
  return _accumulated(evaluator.eval)


def _faster_coco_eval(columns: _Columns) -> _Accumulated:
  from faster_coco_eval import COCO, COCOeval_faster

  truths, detections = COCO(_truth_dict(columns)), COCO(_detection_dict(columns))
  evaluator = COCOeval_faster(truths, detections, "bbox", print_function=lambda *_: None)
  evaluator.evaluate()
  evaluator.accumulate()
  return _accumulated(evaluator.eval)


def _pycocotools(columns: _Columns) -> _Accumulated:
  from pycocotools.coco import COCO
  from pycocotools.cocoeval import COCOeval

  pair = []
  for content in (_truth_dict(columns), _detection_dict(columns)):
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    pair.append(coco)
  evaluator = COCOeval(*pair, "bbox")
  evaluator.evaluate()
  evaluator.accumulate()
  return _accumulated(evaluator.eval)


BACKENDS: dict[str, Callable[[_Columns], _Accumulated]] = {
  "hotcoco": _hotcoco,
  "faster_coco_eval": _faster_coco_eval,
  "pycocotools": _pycocotools,
}
"""Fastest first."""


def _accumulated(content: Any) -> _Accumulated:
  return _Accumulated(np.asarray(content["precision"], np.float64), np.asarray(content["recall"], np.float64))


def _truth_dict(columns: _Columns) -> dict[str, Any]:
  rows = zip(
    columns.truth_image.tolist(),
    columns.truth_category.tolist(),
    columns.truth_xywh_px.tolist(),
    columns.truth_area_px.tolist(),
    columns.truth_is_crowd.tolist(),
    strict=True,
  )
  annotations = [
    {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": is_crowd}
    for number, (image, category, box, area, is_crowd) in enumerate(rows, 1)
  ]
  return {"images": columns.images, "categories": columns.categories, "annotations": annotations}


def _detection_dict(columns: _Columns) -> dict[str, Any]:
  rows = zip(
    columns.det_image.tolist(),
    columns.det_category.tolist(),
    columns.det_xywh_px.tolist(),
    columns.det_scores.tolist(),
    strict=True,
  )
  annotations = [
    {
      "id": number,
      "image_id": image,
      "category_id": category,
      "bbox": box,
      "area": box[2] * box[3],
      "iscrowd": 0,
      "score": score,
    }
    for number, (image, category, box, score) in enumerate(rows, 1)
  ]
  return {"images": columns.images, "categories": columns.categories, "annotations": annotations}


def _backend(name: str | None) -> str:
  if name is not None and name not in BACKENDS:
    raise EvalError(
      f"COCO backend '{name}' is unknown{did_you_mean(name, BACKENDS)}; expected one of {', '.join(BACKENDS)}"
    )
  installed = [backend for backend in BACKENDS if importlib.util.find_spec(backend) is not None]
  if name is None and installed:
    return installed[0]
  if name is None or name not in installed:
    wanted = name or " or ".join(BACKENDS)
    raise EvalError(f"COCO's figures need {wanted}, which is not installed; try `pip install hotcoco`")
  return name
