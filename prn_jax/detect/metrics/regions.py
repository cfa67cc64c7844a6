"""Ignored regions: places where objects of any class are not annotated, and what becomes of detections there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from prn_jax.detect.metrics.data import EvalData
from prn_jax.detect.metrics.overlap import Pixels, pair_overlap

_PAIRS_AT_ONCE = 1 << 20  # bounds the memory


def best_share(data: EvalData, pixels: Pixels) -> NDArray[np.float64]:
  """(d,) the largest share of each detection that lies in one region, as of a crowd region; 0 without regions."""
  share = np.zeros(data.num_detections)
  for det, region in _pairs(data.det_image, data.region_image):
    overlap = pair_overlap(
      data.det_boxes_xywh_px[det], data.region_boxes_xywh_px[region], np.ones(len(det), np.bool_), pixels
    )
    np.maximum.at(share, det, overlap)
  return share


def share_of_all(image: NDArray[np.int64], boxes_xywh_px: NDArray[np.float64], data: EvalData) -> NDArray[np.float64]:
  """(n,) the share of each box that lies in any of its image's regions; a place in two of them counts once.

  Args:
    image: (n,) image of each box, rising.
    boxes_xywh_px: (n, 4) corner and size; a box without area has the share 0.
    data: its regions.
  """
  parts_image, parts = _without_overlap(data)
  covered = np.zeros(len(image))
  for box, part in _pairs(image, parts_image):
    low = np.maximum(boxes_xywh_px[box, :2], parts[part, :2])
    high = np.minimum(boxes_xywh_px[box, :2] + boxes_xywh_px[box, 2:], parts[part, 2:])
    np.add.at(covered, box, np.prod(np.maximum(high - low, 0), axis=1))
  area = np.prod(boxes_xywh_px[:, 2:], axis=1)
  return np.divide(covered, area, out=np.zeros_like(covered), where=area > 0)


def drop_inside(data: EvalData, least_share: float) -> EvalData:
  """The data without truths and detections of which at least this share lies in the regions, and without these."""
  if not len(data.region_image):
    return data
  truths = share_of_all(data.truth_image, data.truth_boxes_xywh_px, data) < least_share
  detections = share_of_all(data.det_image, data.det_boxes_xywh_px, data) < least_share
  return without_regions(data.with_truths(truths).with_detections(detections))


def without_regions(data: EvalData) -> EvalData:
  """The same truths and detections as if nothing were ignored."""
  return dataclasses.replace(
    data, region_image=data.region_image[:0], region_boxes_xywh_px=data.region_boxes_xywh_px[:0]
  )


def as_crowds(data: EvalData) -> EvalData:
  """The same with a crowd region of each class instead of every region; only of classes detected in the image, since no
  other can matter."""
  if not len(data.region_image):
    return data
  detected = np.unique(np.stack([data.det_image, data.det_classes], axis=1), axis=0).reshape(-1, 2)
  rows = [(detected[one, 1], region) for one, region in _pairs(detected[:, 0], data.region_image)]
  classes = np.concatenate([row[0] for row in rows] or [np.zeros(0, np.int64)])
  region = np.concatenate([row[1] for row in rows] or [np.zeros(0, np.int64)])
  count = len(region)
  image = np.concatenate([data.truth_image, data.region_image[region]])
  order = np.argsort(image, kind="stable")

  def joined(column: NDArray[np.generic], more: NDArray[np.generic]) -> NDArray:
    return np.concatenate([column, more])[order]

  return dataclasses.replace(
    without_regions(data),
    truth_image=image[order],
    truth_boxes_xywh_px=joined(data.truth_boxes_xywh_px, data.region_boxes_xywh_px[region]),
    truth_classes=joined(data.truth_classes, classes),
    truth_is_crowd=joined(data.truth_is_crowd, np.ones(count, np.bool_)),
    truth_is_difficult=joined(data.truth_is_difficult, np.zeros(count, np.bool_)),
    truth_area_px=joined(data.truth_area_px, np.full(count, np.nan)),
  )


def _pairs(image: NDArray[np.int64], other: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
  """All pairs of rows of the same image, some at a time; both columns rise."""
  start = np.searchsorted(other, image, side="left")
  count = np.searchsorted(other, image, side="right") - start
  rows = np.flatnonzero(count)
  ends = np.cumsum(count[rows])
  first = 0
  while first < len(rows):
    done = ends[first - 1] if first else 0
    last = max(first + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
    chosen = rows[first:last]
    row = np.repeat(chosen, count[chosen])
    before = np.repeat(ends[first:last] - count[chosen] - done, count[chosen])
    yield row, start[row] + np.arange(len(row)) - before
    first = last


def _without_overlap(data: EvalData) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """The regions of every image as rectangles that do not overlap: image (m,), and corners (m, 4)."""
  corners = data.region_boxes_xywh_px.copy()
  corners[:, 2:] += corners[:, :2]
  images, first = np.unique(data.region_image, return_index=True)
  parts: list[tuple[float, ...]] = []
  numbers: list[int] = []
  ends = np.append(first, len(corners))[1:]
  for image, start, end in zip(images.tolist(), first, ends, strict=True):
    rows = corners[start:end].tolist()
    found = rows if len(rows) == 1 else list(_rectangles(rows))
    parts += found
    numbers += [image] * len(found)
  return np.array(numbers, np.int64), np.array(parts, np.float64).reshape(-1, 4)


def _rectangles(boxes: Sequence[Sequence[float]]) -> Iterator[tuple[float, float, float, float]]:
  """Rectangles without overlap that cover what some boxes cover: strips between all their upper and lower edges."""
  edges = sorted({y for box in boxes for y in (box[1], box[3])})
  for top, bottom in itertools.pairwise(edges):
    reach = None
    for x1, x2 in sorted((box[0], box[2]) for box in boxes if box[1] <= top and box[3] >= bottom):
      if reach is None or x1 > reach[1]:
        if reach is not None:
          yield reach[0], top, reach[1], bottom
        reach = (x1, x2)
      else:
        reach = (reach[0], max(reach[1], x2))
    if reach is not None:
      yield reach[0], top, reach[1], bottom
