"""What a format cannot hold, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum


class Loss(StrEnum):
  """Something of the data that is not in the converted set, or not as it was."""

  CROWD = "crowd"
  DIFFICULT = "difficult"
  AREA = "area"
  POLYGON = "polygon"
  IGNORED_REGION = "ignored_region"
  TOO_SMALL = "too_small"
  ROUNDED = "rounded"
  IMAGE_ID = "image_id"
  RENAMED = "renamed"
  TURNED = "turned"


TEXTS = {
  Loss.CROWD: "crowd regions, which {to} does not know (left out)",
  Loss.DIFFICULT: "difficult objects, a mark that {to} does not know ({difficult})",
  Loss.AREA: "areas of segmentations ({to} has the boxes alone)",
  Loss.POLYGON: "outlines of objects ({to} gets the boxes alone)",
  Loss.IGNORED_REGION: "ignored regions, which {to} does not know (they look as if nothing were there)",
  Loss.TOO_SMALL: "boxes whose numbers would mean something else in {to} ({small}; left out)",
  Loss.ROUNDED: "boxes whose numbers come back with another last digit",
  Loss.IMAGE_ID: "image ids that are others in {to} (file names tell the images apart)",
  Loss.RENAMED: "images whose files have another name (two were equal, or {to} could not hold it)",
  Loss.TURNED: "images that EXIF turns (written upright and encoded anew, since many programs do not turn them)",
}
"""What is said of each, before its number."""


def loss_texts(lost: Mapping[str, int], to: str, words: Mapping[str, str]) -> list[str]:
  """A line for every loss: what it is, what became of it, and its number.

  Args:
    lost: the result of `Losses.to_json`.
    to: the format.
    words: its own words for {difficult} and {small}.
  """
  return [f"{TEXTS[Loss(loss)].format(to=to, **words)}: {number:,}" for loss, number in lost.items()]


class Losses:
  """Counts what is lost, in the order of `Loss`."""

  def __init__(self) -> None:
    self._counts: Counter[Loss] = Counter()

  def add(self, loss: Loss, number: int = 1) -> None:
    self._counts[loss] += int(number)

  def __iter__(self) -> Iterator[tuple[Loss, int]]:
    return ((loss, self._counts[loss]) for loss in Loss if self._counts[loss])

  def to_json(self) -> dict[str, int]:
    """The id of every loss and its number."""
    return {str(loss): number for loss, number in self}
