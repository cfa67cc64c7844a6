"""Checks of how data suit a network: sizes of boxes at its input, its anchors, its limit of objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prn_jax.data_pipelines.doctor.anchors import score_anchors
from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.table import Floats
from prn_jax.data_pipelines.images import Resize

MIN_SIDE_PX = 2
MIN_RECALL, MIN_UNLIKE, MATCH_IOU = (
  0.98,
  10,
  0.25,
)  # an anchor four times as large, or as small, as its box has IoU 0.25
MAX_STRETCH = 2.0


def _sizes(exam: Exam) -> Floats:
  """(m, 2) widths and heights of the boxes in pixels of the network's input; 0 where the size of an image is unknown."""
  size = exam.network.size_wh
  assert size is not None
  images = exam.split.sizes_wh_px[exam.split.image_of].astype(np.float64)
  scale = np.divide(size, images, out=np.zeros_like(images), where=images > 0)
  if exam.network.resize == Resize.LETTERBOX:
    scale = np.repeat(scale.min(1, keepdims=True), 2, 1)
  return exam.split.box_sizes_wh_px * scale


def _box_spots(exam: Exam, limits_px: tuple[float, float], what: str) -> Iterator[Spot]:
  split, sizes, network = exam.split, _sizes(exam), exam.network.size_wh
  assert network is not None
  is_known = (sizes > 0).all(1) & ~split.is_crowd
  for box in np.flatnonzero(is_known & (sizes < limits_px).any(1) & ~_is_larger(sizes, limits_px)).tolist():
    wide, high = sizes[box]
    text = f"'{split.name(box)}' is {wide:.3g} x {high:.3g} pixels at {network[0]}x{network[1]}, {what}"
    yield Spot(text, image=int(split.image_of[box]), box=int(box))


def _is_larger(sizes: Floats, limits_px: tuple[float, float]) -> np.ndarray:
  """Whether only one side is small: such a box still covers several cells."""
  return np.asarray((sizes >= limits_px).any(1)) if limits_px[0] > MIN_SIDE_PX else np.zeros(len(sizes), np.bool_)


@register_check(
  "boxes.below_2_px", Severity.LOOK, "a box with a side below 2 pixels at the size of the network",
  "Use a larger input, or cut large pictures into tiles: nothing is left to see.", Needs.NETWORK,
)  # fmt: skip
def below_2_px(exam: Exam) -> Iterator[Spot]:
  yield from _box_spots(exam, (MIN_SIDE_PX, MIN_SIDE_PX), f"below {MIN_SIDE_PX} in one side")


@register_check(
  "boxes.below_cell", Severity.NOTE, "a box smaller than a cell of the finest head, in both sides",
  "Use a larger input, or a network with a finer head.", Needs.HEADS,
)  # fmt: skip
def below_cell(exam: Exam) -> Iterator[Spot]:
  cell = exam.network.cell_px
  assert cell is not None
  yield from _box_spots(exam, cell, f"smaller than a cell of {cell[0]:g} x {cell[1]:g}")


@register_check(
  "anchors.poor_fit", Severity.LOOK, "anchors that are unlike many boxes: best possible recall below 98 % at IoU 0.25",
  "Cluster anchors for these data (prn data anchors), and give them to the network.", Needs.HEADS,
)  # fmt: skip
def poor_fit(exam: Exam) -> Iterator[Spot]:
  anchors = exam.network.anchors_wh_px
  sizes = _sizes(exam)
  sizes = sizes[(sizes > 0).all(1) & ~exam.split.is_crowd]
  if anchors is None or not len(sizes):
    return
  score = score_anchors(sizes, anchors)
  recall = score.recall[MATCH_IOU]
  if recall < MIN_RECALL and (1 - recall) * len(sizes) >= MIN_UNLIKE:
    half = score.recall[0.5]
    yield Spot(
      f"the best anchor reaches IoU 0.25 for {recall:.1%} of {len(sizes):,} boxes (0.5 for {half:.1%}); mean IoU "
      f"{score.mean_iou:.3f} over {len(anchors)} anchors"
    )


@register_check(
  "images.stretched", Severity.NOTE, "a picture whose aspect the network's input changes by a factor of 2 or more",
  "Use an input of the aspect of the pictures, letterbox, or tiles.", Needs.NETWORK,
)  # fmt: skip
def stretched(exam: Exam) -> Iterator[Spot]:
  size = exam.network.size_wh
  if size is None or exam.network.resize == Resize.LETTERBOX:
    return
  for image, (width, height) in enumerate(exam.split.sizes_wh_px.tolist()):
    factor = width * size[1] / (height * size[0]) if height and width else 1.0
    if max(factor, 1 / factor) >= MAX_STRETCH:
      text = (
        f"is {width}x{height}: stretched to {size[0]}x{size[1]}, its aspect changes by {max(factor, 1 / factor):.2g}"
      )
      yield Spot(text, image=image)


@register_check(
  "images.too_many_objects", Severity.SERIOUS, "more objects on an image than a training takes",
  "Raise config.data.max_boxes (max= of a Darknet head), or cut the pictures into tiles: the rest is not learnt.",
  Needs.BOXES,
)  # fmt: skip
def too_many_objects(exam: Exam) -> Iterator[Spot]:
  most = exam.network.max_boxes
  for image in np.flatnonzero(exam.split.objects_per_image > most).tolist():
    yield Spot(f"has {exam.split.objects_per_image[image]:,} objects; a training takes {most:,}", image=image)
