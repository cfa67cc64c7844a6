"""Checks of what numbers mean, by all numbers of a data set together. None of them judges by a single box."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.split import Split
from prn_jax.data_pipelines.doctor.table import Floats
from prn_jax.data_pipelines.doctor.written import Layout, Written

MIN_BOXES = 8  # fewer numbers prove nothing
MIN_MISFITS = 0.1  # of the boxes do not fit as the format is read
_TOUCHING = 5  # boxes at the edge from which a count begins
_EDGE = 1e-3  # of the image, for relative numbers
_MIN_IMAGES, _MIN_BOXES_EACH = 5, 3


def _known(split: Split) -> tuple[Written, Floats] | None:
  """The boxes that are written as such, and the (k, 2) sizes of their images; None where there are too few, or sizes are
  unknown."""
  if split.written is None:
    return None
  written = split.written.plain()
  if len(written.numbers) < MIN_BOXES:
    return None
  stated = np.where(split.stated_wh_px > 0, split.stated_wh_px, split.sizes_wh_px)
  sizes = stated[written.image_of].astype(np.float64)
  return (written, sizes) if (sizes > 0).all() else None


def _fits(corners: Floats, limits: Floats, tolerance: float) -> NDArray[np.bool_]:
  """Which corners x1, y1, x2, y2 are a box of some size within 0 and the limits."""
  has_size = (corners[:, 2:] > corners[:, :2]).all(1)
  is_inside = (corners[:, :2] >= -tolerance).all(1) & (corners[:, 2:] <= limits + tolerance).all(1)
  return np.asarray(has_size & is_inside)


@register_check(
  "labels.other_layout", Severity.SERIOUS, "boxes that do not fit as their format is read, and all fit if read otherwise",
  "Write the numbers that the format wants: COCO x, y, width, height; VOC corners; YOLO and Darknet centre and size.",
  Needs.BOXES,
)  # fmt: skip
def other_layout(exam: Exam) -> Iterator[Spot]:
  known = _known(exam.split)
  if known is None:
    return
  written, sizes = known
  numbers = written.numbers
  corners, sized = numbers, np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], 1)
  limits, tolerance = (np.ones_like(sizes), _EDGE) if written.layout is Layout.CXCYWH_REL else (sizes, 1.0)
  readings = {"corners x1, y1, x2, y2": corners, "left, top, width, height": sized}
  if written.layout is Layout.CXCYWH_REL:
    a, b = numbers[:, :2], numbers[:, 2:]
    own = np.concatenate([a - b / 2, a + b / 2], 1)
  else:
    own = readings.pop("left, top, width, height" if written.layout is Layout.XYWH_PX else "corners x1, y1, x2, y2")
  misfits = ~_fits(own, limits, tolerance)
  if misfits.mean() < MIN_MISFITS:
    return
  for name, reading in readings.items():
    if _fits(reading, limits, tolerance).all():
      text = f"{misfits.sum():,} of {len(misfits):,} boxes do not fit as {written.layout}; as {name} all of them fit"
      yield Spot(text)
      return


@register_check(
  "labels.counted_from_1", Severity.LOOK, "pixels counted from 1 in a format that counts from 0",
  "Subtract 1 from x and y.", Needs.BOXES,
)  # fmt: skip
def counted_from_1(exam: Exam) -> Iterator[Spot]:
  known = _known(exam.split)
  if known is None or known[0].layout is not Layout.XYWH_PX:
    return
  numbers = known[0].numbers
  if (numbers != numbers.round()).any() or (numbers[:, :2] < 1).any():
    return
  # Boxes that the edge of the image cuts off begin at its first pixel. Were that 0, some would begin there.
  at_1, at_2 = ((numbers[:, :2] == start).sum(0) for start in (1, 2))
  if (at_1 >= _TOUCHING).all() and (at_1 >= 3 * at_2).all():
    yield Spot(f"no box begins at 0, but {at_1[0]:,} at x = 1 and {at_1[1]:,} at y = 1 ({at_2[0]} and {at_2[1]} at 2)")


@register_check(
  "labels.counted_from_0", Severity.LOOK, "pixels counted from 0 in a format that counts from 1",
  "Add 1 to xmin and ymin, and to xmax and ymax if they are counted from 0 too.", Needs.BOXES,
)  # fmt: skip
def counted_from_0(exam: Exam) -> Iterator[Spot]:
  known = _known(exam.split)
  if known is None or known[0].layout is not Layout.XYXY_FROM_1:
    return
  starts = known[0].numbers[:, :2]
  at_0, at_1 = (starts == 0).any(1).sum(), (starts == 1).any(1).sum()
  if at_0 >= _TOUCHING and (starts >= 0).all() and at_0 >= 3 * at_1:
    yield Spot(f"{at_0:,} boxes begin at 0 and {at_1:,} at 1, which VOC's files call the first pixel")


@register_check(
  "labels.two_tools", Severity.NOTE, "images with boxes in whole pixels beside images with fractions",
  "Look whether two tools, or two people, labelled by different rules.", Needs.BOXES,
)  # fmt: skip
def two_tools(exam: Exam) -> Iterator[Spot]:
  known = _known(exam.split)
  if known is None or known[0].layout is Layout.CXCYWH_REL:
    return
  written = known[0]
  is_whole = (written.numbers == written.numbers.round()).all(1)
  images, first, counts = np.unique(written.image_of, return_index=True, return_counts=True)
  whole = np.add.reduceat(is_whole, first)
  enough = counts >= _MIN_BOXES_EACH
  all_whole, none_whole = enough & (whole == counts), enough & (whole == 0)
  if min(all_whole.sum(), none_whole.sum()) < max(_MIN_IMAGES, 0.05 * enough.sum()):
    return
  names = [exam.split.image_name(int(images[np.flatnonzero(chosen)[0]])) for chosen in (all_whole, none_whole)]
  text = f"{all_whole.sum():,} images have whole pixels alone, as {names[0]}; {none_whole.sum():,} none, as {names[1]}"
  yield Spot(text)
