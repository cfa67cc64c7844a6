"""COCO's segmentations, lists of polygons and run-length codes: the boxes around them, and the polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from prn_jax.data_pipelines.records import Box, Rings
from prn_jax.files.values import Misfit, whole_of

MAX_SIDE_PX = 2**31 - 1


def box_around(segmentation: Any) -> Box | None:
  """The smallest box around a segmentation, as x, y, width, height in pixels.

  Args:
    segmentation: COCO's `segmentation`: a list of polygons [x1, y1, x2, y2, ...], one such polygon, or
      {"size": [height, width], "counts": numbers or text}.

  Returns:
    The box; None where there is no segmentation, or nothing is in it.

  Raises:
    Misfit: it is no segmentation; the text says why.
  """
  if segmentation is None or segmentation == [] or segmentation == {}:
    return None
  if isinstance(segmentation, dict):
    return _box_of_runs(segmentation)
  if not isinstance(segmentation, list):
    raise Misfit("is neither a list of polygons nor a run-length code")
  polygons = segmentation if isinstance(segmentation[0], list | dict) else [segmentation]
  flat = [_checked(polygon) for polygon in polygons if polygon]
  if not flat:
    return None
  xs, ys = [x for polygon in flat for x in polygon[::2]], [y for polygon in flat for y in polygon[1::2]]
  x1, y1 = float(min(xs)), float(min(ys))
  return x1, y1, float(max(xs)) - x1, float(max(ys)) - y1


def rings_of(segmentation: Any) -> Rings | None:
  """The polygons of a segmentation; () where there is none, None of a run-length code, which stays one.

  Raises:
    Misfit: it is no segmentation; the text says why.
  """
  if isinstance(segmentation, dict):
    return None
  if not segmentation:
    return ()
  if not isinstance(segmentation, list):
    raise Misfit("is neither a list of polygons nor a run-length code")
  polygons = segmentation if isinstance(segmentation[0], list | dict) else [segmentation]
  return tuple(np.array(_checked(polygon), np.float64).reshape(-1, 2) for polygon in polygons if polygon)


def _checked(polygon: Any) -> list[float]:
  """One polygon, whose numbers are finite and make points."""
  is_numbers = isinstance(polygon, list) and all(type(value) in (int, float) for value in polygon)
  if not is_numbers or len(polygon) < 6 or len(polygon) % 2:
    raise Misfit("holds a polygon that is not x1, y1, x2, y2, x3, y3, ... in numbers")
  try:
    is_finite = math.isfinite(math.fsum(polygon))
  except (OverflowError, ValueError):  # hundreds of digits; infinities of both signs
    is_finite = False
  if not is_finite:
    raise Misfit("holds a polygon with points that are not finite")
  return list(polygon)


def _box_of_runs(code: dict[str, Any]) -> Box | None:
  """The box of a run-length code: pixels column by column, in runs that are in turn outside and inside.

  Source: the format of COCO's `maskApi.c`.
  """
  size = code.get("size")
  if not isinstance(size, list) or len(size) != 2:
    raise Misfit("has a run-length code without size [height, width]")
  height, width = (whole_of(side, 1, MAX_SIDE_PX) for side in size)
  given = code.get("counts")
  if isinstance(given, str):
    counts = _unpacked(given)
  elif isinstance(given, list):
    counts = [whole_of(count, 0) for count in given]
  else:
    raise Misfit("has a run-length code without counts")
  if min(counts, default=0) < 0 or sum(counts) != height * width:
    raise Misfit(f"has runs of {sum(counts):,} pixels in all, but its size is {width}x{height}")
  ends = np.cumsum(np.array([0, *counts], np.int64))
  starts, stops = ends[1:-1:2], ends[2::2]  # the odd runs are inside
  starts, stops = starts[stops > starts], stops[stops > starts]
  if not len(starts):
    return None
  first, last = starts // height, (stops - 1) // height
  is_within = first == last  # a run that goes on in the next column touches the top and the bottom
  top = int(np.where(is_within, starts % height, 0).min())
  bottom = int(np.where(is_within, (stops - 1) % height, height - 1).max()) + 1
  left, right = int(first.min()), int(last.max()) + 1
  return float(left), float(top), float(right - left), float(bottom - top)


def _unpacked(text: str) -> list[int]:
  """Counts from COCO's text: six bits a character, the lowest first, each count from the third on as the difference to
  the one two before it."""
  counts: list[int] = []
  value = shift = 0
  for char in text:
    bits = ord(char) - 48
    if not 0 <= bits < 64 or shift > 60:
      raise Misfit("has a run-length code that is not COCO's text")
    value |= (bits & 31) << shift
    shift += 5
    if bits & 32:
      continue
    if bits & 16:
      value -= 1 << shift
    counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    value = shift = 0
  if shift:
    raise Misfit("has a run-length code that ends in the middle of a number")
  return counts


def usable_box(annotation: dict[str, Any]) -> tuple[Sequence[Any] | None, bool]:
  """The box of an annotation, and whether it is that of the segmentation: where `bbox` is missing or has no size.

  Raises:
    Misfit: there is no usable box, and the segmentation is none; the text goes on after "segmentation".
  """
  box = annotation.get("bbox")
  if isinstance(box, list) and len(box) == 4 and box[2] and box[3]:  # nearly always
    return box, False
  is_numbers = isinstance(box, list) and all(type(value) in (int, float) for value in box)
  has_none = box is None or box == [] or (is_numbers and len(box) == 4 and (box[2] == 0 or box[3] == 0))
  around = box_around(annotation.get("segmentation")) if has_none else None
  return (box, False) if around is None else (around, True)
