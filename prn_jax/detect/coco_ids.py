"""The image ids of COCO's results format: the number that a file name holds, or one that is nobody else's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

MOST_DIGITS = 18  # fits 64 bits; more are no number of an image


def image_number(path: str) -> int | None:
  """COCO's number of an image: the digits that its name consists of, or that follow its last underscore.

  Source: pjreddie/darknet `examples/detector.c:get_coco_image_id`; differs: None where nothing but digits would do (there
  any other name is 0).
  Example: 42 of both "000000000042.jpg" and "COCO_val2014_000000000042.jpg".
  """
  found = re.fullmatch(rf"(?:.*_)?0*(\d{{1,{MOST_DIGITS}}})", PurePosixPath(path).stem, re.ASCII | re.DOTALL)
  return int(found[1]) if found else None


class ImageIds(NamedTuple):
  """Ids of images, all different.

  Attributes:
    ids: one per image.
    counted: positions of the images whose id is not in their name.
  """

  ids: tuple[int, ...]
  counted: tuple[int, ...]


def image_ids(paths: Sequence[str]) -> ImageIds:
  """An id for every image: its `image_number`; for those that have none, or share it, the next number above all.

  So an id that does not come from a name never is some other image's, whether that is among the paths or, as far as
  the names tell, in the annotations that they belong to.
  """
  numbers = [image_number(path) for path in paths]
  times = Counter(numbers)
  counted = tuple(i for i, number in enumerate(numbers) if number is None or times[number] > 1)
  first = max((number + 1 for number in numbers if number is not None), default=0)
  next_id = dict(zip(counted, range(first, first + len(counted)), strict=True))
  return ImageIds(tuple(next_id.get(i, number or 0) for i, number in enumerate(numbers)), counted)
