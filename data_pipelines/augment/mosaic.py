"""Four images in one picture (docs/darknet.md e11, mosaic)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prn_jax.data_pipelines.augment.resample import Window
from prn_jax.data_pipelines.augment.sample import Sample, annotated_in_all
from prn_jax.data_pipelines.augment.view import Boxes, Margins, View, place_boxes, render

_MIN_PART = 0.2  # of the width or height that every quarter has at least


def mosaic(
  samples: Sequence[Sample],
  views: Sequence[View],
  size: tuple[int, int],
  bound: bool,
  rng: np.random.Generator,
) -> Sample:
  """One picture of four quarters that meet in a random point of the middle.

  Each quarter shows the part of its augmented image that lies towards the cut; a border beyond the image is passed
  over. With probability 1/2 a crop is first moved outwards until it starts with its image, so that the border lies
  towards the cut. Only the pixels of the four quarters are computed, so a mosaic costs as much as one image.

  Args:
    samples: four; for the quarters at the top left, top right, bottom left and bottom right.
    views: what was drawn for each.
    size: width and height of the picture.
    bound: whether boxes end at their quarter. The width of the border is measured at the scale of the whole image,
      as in Darknet, which passes over a little too much where a crop is larger than its image: unless bound, boxes
      at that edge reach over the cut by as much.
    rng: draws the cut and which crops are moved.

  Returns:
    The picture and the boxes of all four quarters. A box of which the quarter shows less than a pixel is dropped, even
    where `bound` is False (Darknet keeps those).

  Source: Darknet `src/data.c:load_data_detection, blend_truth_mosaic`; differs as said above.
  """
  width, height = size
  cut_x, cut_y = (int(rng.integers(int(n * _MIN_PART), int(n * (1 - _MIN_PART)) + 1)) for n in size)
  picture = np.empty((height, width, 3), np.uint8)
  boxes_xyxy_px, classes = [], []
  for quarter, (sample, view) in enumerate(zip(samples, views, strict=True)):
    is_left, is_top = quarter % 2 == 0, quarter < 2
    margins = view.margins
    if rng.random() < 0.5:
      margins = _moved_outwards(margins, is_left != view.flip, is_top)
    image_height, image_width = sample.image.shape[:2]
    crop = margins.crop(image_width, image_height, view.flip)
    inner = margins.left if view.flip == is_left else margins.right  # flipping exchanges the two sides
    part_x = _part(cut_x, width, is_left, inner, image_width)
    part_y = _part(cut_y, height, is_top, margins.bottom if is_top else margins.top, image_height)
    seen = Window(part_x[0], part_y[0], part_x[1], part_y[1])
    place = Window(
      0 if is_left else cut_x, 0 if is_top else cut_y, cut_x if is_left else width, cut_y if is_top else height
    )
    picture[place.top : place.bottom, place.left : place.right] = render(sample, view, crop, size, seen, rng)
    boxes = _move(place_boxes(sample, crop, size), seen, place, Window(0, 0, *size), bound)
    boxes_xyxy_px.append(boxes.xyxy_px.astype(np.float32))
    classes.append(sample.classes[boxes.rows].astype(np.int32))
  return Sample(picture, np.concatenate(boxes_xyxy_px), np.concatenate(classes), annotated=annotated_in_all(samples))


def _moved_outwards(margins: Margins, to_left: bool, to_top: bool) -> Margins:
  """A crop of the same size that starts in a corner of the image."""
  across, down = margins.left + margins.right, margins.top + margins.bottom
  return Margins(
    0 if to_left else across,
    0 if to_top else down,
    across if to_left else 0,
    down if to_top else 0,
  )


def _part(cut: int, extent: int, is_first: bool, inner_margin: int, image_extent: int) -> tuple[int, int]:
  """The pixels of an augmented image, along one axis, that its quarter shows: those at the cut, less the border."""
  border = max(0, int(-inner_margin * extent / image_extent))
  if is_first:  # left or top: the last pixels
    border = min(border, extent - cut)
    return extent - cut - border, extent - border
  border = min(border, cut)
  return border, border + extent - cut


def _move(boxes: Boxes, seen: Window, place: Window, picture: Window, bound: bool) -> Boxes:
  """Boxes of the augmented image -> boxes of the picture."""
  moved = Boxes(boxes.xyxy_px + [place.left - seen.left, place.top - seen.top] * 2, boxes.rows)
  if bound:
    return moved.clip(place)
  shown = moved.clip(place)
  kept = moved.clip(picture)
  is_shown = np.isin(kept.rows, shown.rows)
  return Boxes(kept.xyxy_px[is_shown], kept.rows[is_shown])
