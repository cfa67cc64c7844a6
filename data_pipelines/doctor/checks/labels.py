"""Checks of label files, and of labels that contradict each other on the same picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.split import Split
from prn_jax.data_pipelines.doctor.table import Floats
from prn_jax.data_pipelines.doctor.written import Layout
from prn_jax.data_pipelines.findings import Check

MOSTLY_EMPTY = 0.9
MANY_OBJECTS = 5
SAME_PICTURE = 0.997
"""Likeness from which two pictures must have the same labels: 48 photos that were stored anew (JPEG of quality 30 and 70, WebP
of 60, half the size) had 0.9976 and more, frames of two fixed cameras, on which cars had moved, up to 0.9955."""
_MATCH_IOU = 0.5
_MIN_MARGIN = 0.02  # of the larger box, on every side
_MIN_LOOSE = 3


def _without_file(split: Split) -> set[int]:
  """Images without a label file, where most have one."""
  written = split.written
  if written is None or written.layout is not Layout.CXCYWH_REL:
    return set()
  missing = {image for image, file in enumerate(written.files) if file is None}
  return missing if 2 * len(missing) < len(split) else set()


def _with_empty_file(split: Split) -> set[int]:
  written = split.written
  if written is None or written.layout is not Layout.CXCYWH_REL:
    return set()
  no_objects = np.flatnonzero(split.objects_per_image == 0).tolist()
  return {image for image in no_objects if (file := written.files[image]) and not file.read_bytes().strip()}


@register_check(
  "labels.no_file", Severity.LOOK, "an image without a label file where most images have one",
  "Look whether the file is lost; write an empty one if the image shows no object.", Needs.BOXES,
)  # fmt: skip
def no_file(exam: Exam) -> Iterator[Spot]:
  for image in sorted(_without_file(exam.split)):
    yield Spot("has no label file, as most images have; it counts as an image without objects", image=image)


@register_check(
  "labels.empty_file", Severity.NOTE, "a label file without a label",
  "Nothing, if the image shows no object; else label it.", Needs.BOXES,
)  # fmt: skip
def empty_file(exam: Exam) -> Iterator[Spot]:
  written = exam.split.written
  for image in sorted(_with_empty_file(exam.split)):
    assert written is not None
    yield Spot(f"holds no label for {exam.split.image_name(image)}", image=image, place=str(written.files[image]))


@register_check(Check.IMAGE_EMPTY, Severity.NOTE, needs=Needs.BOXES)
def without_objects(exam: Exam) -> Iterator[Spot]:
  told = _without_file(exam.split) | _with_empty_file(exam.split)
  for image in np.flatnonzero(exam.split.objects_per_image == 0).tolist():
    if image not in told:
      yield Spot("has no labelled object", image=image)


@register_check(
  "images.mostly_empty", Severity.LOOK, "nine of ten images, or more, have no labelled object",
  "Look whether labels are lost, or take a part of the empty images out.", Needs.BOXES,
)  # fmt: skip
def mostly_empty(exam: Exam) -> Iterator[Spot]:
  empty = int((exam.split.objects_per_image == 0).sum())
  if len(exam.split) and empty >= MOSTLY_EMPTY * len(exam.split):
    yield Spot(f"{empty:,} of {len(exam.split):,} images have no labelled object")


# -- the same picture, labelled twice ----------------------------------------------------------------------------------


def _pairs(exam: Exam) -> Iterator[tuple[int, int, float]]:
  """Images that show the same: two positions, and the likeness (1 of equal files, 0 of frames of one film)."""
  yield from ((pair.first, pair.second, pair.likeness) for pair in exam.copies)
  yield from ((a, b, 0.0) for a, b in exam.scenes)


def _matched(split: Split, first: int, second: int) -> tuple[Floats, Floats]:
  """Boxes of one class of two images that are best for each other, scaled to the second: (k, 4) and (k, 4)."""
  a, b = split.boxes_of(first), split.boxes_of(second)
  scale = np.tile(split.sizes_wh_px[second] / np.maximum(split.sizes_wh_px[first], 1), 2)
  theirs, ours = split.boxes_xyxy_px[a] * scale, split.boxes_xyxy_px[b]
  iou = _iou(theirs, ours) * (split.classes[a][:, None] == split.classes[b][None])
  if not iou.size:
    return theirs[:0], ours[:0]
  rows = np.arange(len(theirs))
  best = iou.argmax(1)
  is_mutual = (iou.argmax(0)[best] == rows) & (iou[rows, best] >= _MATCH_IOU)
  return theirs[is_mutual], ours[best[is_mutual]]


def _iou(a: Floats, b: Floats) -> Floats:
  low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
  inter = (high - low).clip(0).prod(2)
  union = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)[None] - inter
  return np.asarray(inter / np.maximum(union, 1e-12), np.float64)


def _looser(a: Floats, b: Floats) -> NDArray[np.int64]:
  """1 where the box of `a` lies around that of `b` with a margin on every side, -1 the reverse, 0 neither."""
  margins = (b - a) * (1, 1, -1, -1)
  wide = np.tile(np.maximum(a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]), 2)
  around = (margins > _MIN_MARGIN * wide).all(1).astype(np.int64)
  return np.asarray(around - (margins < -_MIN_MARGIN * wide).all(1).astype(np.int64), np.int64)


@register_check(
  "labels.copies_differ", Severity.LOOK, "copies of one picture with different objects",
  "Delete one of the two images, and label the other in full.", Needs.PIXELS,
)  # fmt: skip
def copies_differ(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for first, second, likeness in _pairs(exam):
    if likeness < SAME_PICTURE:
      continue
    there, here = (int(split.objects_per_image[one]) for one in (first, second))
    if split.is_classification:
      names = [split.names[split.labels[one]] for one in (first, second)]
      if names[0] != names[1]:
        text = f"is labelled '{names[1]}', its copy {split.image_name(first)} '{names[0]}'"
        yield Spot(text, image=second, partner=(0, first))
    elif min(there, here) and (alone := there + here - 2 * len(_matched(split, first, second)[0])):
      text = f"{here} objects, and {there} on its copy {split.image_name(first)}: {alone} are only on one of the two"
      yield Spot(text, image=second, partner=(0, first))


@register_check(
  "labels.scene_without_labels", Severity.LOOK, "an image without objects beside the same scene with many",
  "Look whether it was left unlabelled: the network would learn that nothing is there.", Needs.PIXELS,
)  # fmt: skip
def scene_without_labels(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  told: set[int] = set()
  for pair in _pairs(exam) if not split.is_classification else ():
    for empty, full in (pair[:2], pair[1::-1]):
      number = int(split.objects_per_image[full])
      if not split.objects_per_image[empty] and number >= MANY_OBJECTS and empty not in told:
        told.add(empty)
        text = f"has no object, and {split.image_name(full)}, which shows the same scene, {number}"
        yield Spot(text, image=empty, partner=(0, full))


@register_check(
  "labels.tight_and_loose", Severity.LOOK, "the same objects boxed tightly on one picture and loosely on its copy",
  "Agree on one rule: boxes touch the visible outline.", Needs.PIXELS,
)  # fmt: skip
def tight_and_loose(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for first, second, _ in _pairs(exam) if not split.is_classification else ():
    theirs, ours = _matched(split, first, second)
    sides = _looser(theirs, ours)
    loose = max((sides == 1).sum(), (sides == -1).sum())
    if loose >= _MIN_LOOSE and 2 * loose > len(sides):
      said = "smaller" if (sides == 1).sum() == loose else "larger"
      text = f"{loose} of {len(sides)} boxes are {said} on every side than on {split.image_name(first)}, the same scene"
      yield Spot(text, image=second, partner=(0, first))
