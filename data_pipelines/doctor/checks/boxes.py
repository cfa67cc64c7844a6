"""Checks of boxes, without their pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.split import Split, box_text
from prn_jax.data_pipelines.doctor.summary import TINY_SIDE_PX
from prn_jax.data_pipelines.doctor.table import Floats
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.records import EDGE_TOLERANCE_PX

NEAR_IOU = 0.95
WHOLE_IMAGE = 0.98  # of its area
MAX_ASPECT = 25
MAX_IGNORED = 0.2  # of all objects
_NESTED_IOU = 0.7


def pairs_above(split: Split, min_iou: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
  """Pairs of boxes of one image whose IoU is above a limit (at least 0.5): first, second (later in the data), IoU.

  Boxes are sorted by image and left edge and each is compared with the next, then the next but one, ... as long as the
  left edges are near enough: two boxes of IoU t differ there by at most (1 - t) / t of the narrower one's width.
  """
  boxes = split.boxes_xyxy_px
  order = np.lexsort([boxes[:, 0], split.image_of])
  image, x1, width = split.image_of[order], boxes[order, 0], split.box_sizes_wh_px[order, 0]
  reach = width * (1 - min_iou) / min_iou + 1e-6
  firsts, seconds, ious = [], [], []
  left = np.arange(len(order))
  for step in range(1, len(order)):
    left = left[left + step < len(order)]
    left = left[(image[left] == image[left + step]) & (x1[left + step] - x1[left] <= reach[left])]
    if not len(left):
      break
    a, b = order[left], order[left + step]
    iou = iou_of(boxes[a], boxes[b])
    is_pair = iou > min_iou
    firsts.append(np.minimum(a, b)[is_pair])
    seconds.append(np.maximum(a, b)[is_pair])
    ious.append(iou[is_pair])
  if not firsts:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
  first, second, iou = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(ious)
  place = np.lexsort([second, first])
  return first[place], second[place], iou[place]


def iou_of(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
  """Overlap of boxes row by row, (k, 4) and (k, 4) to (k,)."""
  size = np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - np.maximum(a_xyxy[:, :2], b_xyxy[:, :2])
  inter = size.clip(0).prod(1)
  union = (a_xyxy[:, 2:] - a_xyxy[:, :2]).prod(1) + (b_xyxy[:, 2:] - b_xyxy[:, :2]).prod(1) - inter
  return np.asarray(inter / np.maximum(union, 1e-12), np.float64)


def _spot(split: Split, box: int, text: str) -> Spot:
  return Spot(text, image=int(split.image_of[box]), box=int(box))


def _named(split: Split, box: int) -> str:
  return f"'{split.name(box)}' {box_text(split.boxes_xyxy_px[box])}"


@register_check(Check.BOX_REPEATED, Severity.LOOK, needs=Needs.BOXES)
def repeated(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  first, second, _ = pairs_above(split, NEAR_IOU)
  is_equal = (split.boxes_xyxy_px[first] == split.boxes_xyxy_px[second]).all(1)
  is_equal &= split.classes[first] == split.classes[second]
  original = dict(zip(second[is_equal][::-1].tolist(), first[is_equal][::-1].tolist(), strict=True))
  for box in sorted(original):
    number = original[box] - int(split.starts[split.image_of[box]]) + 1
    yield _spot(split, box, f"{_named(split, box)} repeats box {number} of {split.image_name(split.image_of[box])}")


@register_check(
  "boxes.near_duplicate", Severity.LOOK, "two boxes of one class that are nearly the same (IoU above 0.95)",
  "Delete one of the two, if they are around one object.", Needs.BOXES,
)  # fmt: skip
def near_duplicates(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for a, b, iou in zip(*pairs_above(split, NEAR_IOU), strict=True):
    if split.classes[a] == split.classes[b] and (split.boxes_xyxy_px[a] != split.boxes_xyxy_px[b]).any():
      yield _spot(split, b, f"{_named(split, b)} has IoU {iou:.3f} with {box_text(split.boxes_xyxy_px[a])}")


@register_check(
  "boxes.two_classes", Severity.LOOK, "two boxes of different classes around the same thing (IoU above 0.95)",
  "Decide for one class, unless the object is of both.", Needs.BOXES,
)  # fmt: skip
def two_classes(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for a, b, iou in zip(*pairs_above(split, NEAR_IOU), strict=True):
    if split.classes[a] != split.classes[b]:
      yield _spot(split, b, f"{_named(split, b)} has IoU {iou:.3f} with {_named(split, a)}")


@register_check(
  "boxes.nested", Severity.NOTE, "a box inside another of its class that is little larger (IoU 0.7 to 0.95)",
  "Look whether one object was labelled twice, tightly and loosely.", Needs.BOXES,
)  # fmt: skip
def nested(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  boxes = split.boxes_xyxy_px
  for a, b, iou in zip(*pairs_above(split, _NESTED_IOU), strict=True):
    margins = (boxes[b] - boxes[a]) * (1, 1, -1, -1)
    is_nested = (margins > 0).all() or (margins < 0).all()
    if iou <= NEAR_IOU and is_nested and split.classes[a] == split.classes[b] and not split.is_crowd[[a, b]].any():
      yield _spot(split, b, f"{_named(split, b)} and {box_text(boxes[a])} lie in each other (IoU {iou:.2f})")


@register_check(Check.BOX_TINY, Severity.LOOK, needs=Needs.BOXES)
def tiny(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for box in np.flatnonzero(split.box_sizes_wh_px.min(1, initial=np.inf) < TINY_SIDE_PX).tolist():
    width, height = split.box_sizes_wh_px[box]
    yield _spot(split, box, f"{_named(split, box)} is {width:.3g} x {height:.3g} pixels")


@register_check(
  "boxes.whole_image", Severity.NOTE, "a box that covers nearly the whole image (98 % of its area)",
  "Look whether the label is of the image instead of an object.", Needs.BOXES,
)  # fmt: skip
def whole_image(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  area = split.sizes_wh_px[split.image_of].prod(1)
  share = split.box_sizes_wh_px.prod(1) / np.maximum(area, 1)
  for box in np.flatnonzero((share >= WHOLE_IMAGE) & (area > 0)).tolist():
    yield _spot(split, box, f"{_named(split, box)} covers {min(share[box], 1):.1%} of its image")


@register_check(
  "boxes.thin", Severity.NOTE, "a box with one side 25 times as long as the other",
  "Look whether it is a slip of the mouse.", Needs.BOXES,
)  # fmt: skip
def thin(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  wide, high = split.box_sizes_wh_px.T
  for box in np.flatnonzero(np.maximum(wide, high) > MAX_ASPECT * np.minimum(wide, high)).tolist():
    yield _spot(split, box, f"{_named(split, box)} is {wide[box]:.3g} x {high[box]:.3g} pixels")


@register_check(
  "boxes.outside_file", Severity.SERIOUS, "a box outside its image file, whose size the annotations do not state",
  "Compare the image with the one that was labelled.", Needs.BOXES,
)  # fmt: skip
def outside_file(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  is_unknown = (split.stated_wh_px[split.image_of] == 0).any(1) & (split.sizes_wh_px[split.image_of] > 0).all(1)
  sizes = split.sizes_wh_px[split.image_of]
  reach = np.concatenate([-split.boxes_xyxy_px[:, :2], split.boxes_xyxy_px[:, 2:] - sizes], 1).max(1, initial=-np.inf)
  for box in np.flatnonzero(is_unknown & (reach > EDGE_TOLERANCE_PX)).tolist():
    wide, high = sizes[box]
    yield _spot(split, box, f"{_named(split, box)} reaches {reach[box]:g} px outside its {wide}x{high} image")


@register_check(
  "boxes.mostly_ignored", Severity.LOOK, "a fifth of all objects or of the area, or more, is marked as crowd, difficult or ignored",
  "Look whether the flag is meant: such objects are not learnt, or need not be found.", Needs.BOXES,
)  # fmt: skip
def mostly_ignored(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  ignored = split.is_crowd | split.is_difficult
  if len(ignored) and ignored.mean() >= MAX_IGNORED:
    crowd, difficult = int(split.is_crowd.sum()), int(split.is_difficult.sum())
    yield Spot(f"{ignored.mean():.0%} of {len(ignored):,} objects: {crowd:,} crowds, {difficult:,} difficult")
  areas = split.sizes_wh_px.astype(np.float64).prod(1)
  share = float(np.minimum(split.ignored_areas_px, areas).sum() / max(areas.sum(), 1))
  if share >= MAX_IGNORED:
    yield Spot(f"regions in which nothing is annotated cover {share:.0%} of the images")
