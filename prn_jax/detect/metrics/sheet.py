"""A contact sheet of the worst mistakes: the images with the most confident wrong detections, and with the largest
objects that were missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prn_jax.detect.metrics.data import ImageId
from prn_jax.detect.metrics.mistakes import Assignment, Mistake, Verdict, missed_objects, wrong_detections
from prn_jax.errors import PrnError
from prn_jax.fonts import letters

ReadImage = Callable[[ImageId], NDArray[np.uint8]]

_TILE_WIDTH, _TILE_HEIGHT, _CAPTION, _GAP, _HEADING = 360, 270, 40, 14, 64
_WRONG, _MISSED, _TRUTH = "#E4002B", "#FF9F1C", "#12B76A"
_INK, _GREY, _PAPER = "#1A1D21", "#5B626C", "#FFFFFF"


@dataclasses.dataclass(frozen=True)
class SheetEntry:
  """One image of the sheet and the mistakes that put it there, the worst first."""

  image_id: ImageId
  mistakes: tuple[Mistake, ...]


@dataclasses.dataclass(frozen=True)
class Sheet:
  """What the contact sheet shows.

  Attributes:
    wrong: images by their most confident wrong detection.
    missed: images by their largest missed object.
    unreadable: images that could not be read, with the reason; their tiles are empty.
  """

  wrong: tuple[SheetEntry, ...]
  missed: tuple[SheetEntry, ...]
  unreadable: dict[ImageId, str]

  def to_json(self) -> dict[str, Any]:
    """Both lists, with every mistake of the images shown."""

    def listed(entries: Sequence[SheetEntry]) -> list[dict[str, Any]]:
      return [
        {"image_id": entry.image_id, "mistakes": [mistake.to_json() for mistake in entry.mistakes]} for entry in entries
      ]

    return {
      "wrong_detections": listed(self.wrong),
      "missed_objects": listed(self.missed),
      "unreadable": {str(image_id): reason for image_id, reason in self.unreadable.items()},
    }


def contact_sheet(
  assignment: Assignment, read_image: ReadImage, *, images_per_part: int = 12, columns: int = 4
) -> tuple[Image.Image, Sheet]:
  """Draws the images with the worst mistakes.

  Args:
    assignment: the result of `assign`.
    read_image: gives an image by its id as (h, w, 3) uint8 RGB, upright; a `PrnError` or `OSError` leaves its tile
      empty.
    images_per_part: at most so many images for wrong detections, and for missed objects.
    columns: tiles side by side.

  Returns:
    The picture, and what it shows. An image may occur in both parts.
  """
  parts = (
    ("Most confident wrong detections", _WRONG, _by_image(wrong_detections(assignment), images_per_part)),
    ("Largest missed objects", _MISSED, _by_image(missed_objects(assignment), images_per_part)),
  )
  rows = [max(-(-len(entries) // columns), 1) for _, _, entries in parts]
  height = sum(_HEADING + count * (_TILE_HEIGHT + _CAPTION + _GAP) for count in rows) + _GAP
  sheet = Image.new("RGB", (columns * (_TILE_WIDTH + _GAP) + _GAP, height), _PAPER)
  unreadable: dict[ImageId, str] = {}
  top = 0
  for (title, color, entries), count in zip(parts, rows, strict=True):
    _heading(sheet, top, title, color, len(entries), assignment)
    for number, entry in enumerate(entries):
      left = _GAP + number % columns * (_TILE_WIDTH + _GAP)
      tile = _tile(assignment, entry, read_image, unreadable, color)
      sheet.paste(tile, (left, top + _HEADING + number // columns * (_TILE_HEIGHT + _CAPTION + _GAP)))
    top += _HEADING + count * (_TILE_HEIGHT + _CAPTION + _GAP)
  return sheet, Sheet(parts[0][2], parts[1][2], unreadable)


def _by_image(mistakes: Sequence[Mistake], limit: int) -> tuple[SheetEntry, ...]:
  grouped: dict[ImageId, list[Mistake]] = {}
  for mistake in mistakes:
    grouped.setdefault(mistake.image_id, []).append(mistake)
  return tuple(SheetEntry(image_id, tuple(group)) for image_id, group in list(grouped.items())[:limit])


def _heading(sheet: Image.Image, top: int, title: str, color: str, number: int, assignment: Assignment) -> None:
  draw = ImageDraw.Draw(sheet)
  draw.rectangle((_GAP, top + 16, _GAP + 6, top + 50), fill=color)
  letters(22).draw(draw, (_GAP + 16, top + 12), title, _INK)
  what = f"confidence above {assignment.conf_threshold:g}, IoU {assignment.iou_threshold:g}; green: the true boxes"
  letters(13).draw(draw, (_GAP + 16, top + 38), what if number else f"none ({what})", _GREY)


def _tile(
  assignment: Assignment, entry: SheetEntry, read_image: ReadImage, unreadable: dict[ImageId, str], color: str
) -> Image.Image:
  tile = Image.new("RGB", (_TILE_WIDTH, _TILE_HEIGHT + _CAPTION), _PAPER)
  draw = ImageDraw.Draw(tile)
  draw.rectangle((0, 0, _TILE_WIDTH - 1, _TILE_HEIGHT - 1), fill="#F1F2F4")
  try:
    photo = Image.fromarray(np.asarray(read_image(entry.image_id), np.uint8))
  except (PrnError, OSError, KeyError) as error:
    unreadable[entry.image_id] = str(error)
    letters(14).draw(draw, (12, _TILE_HEIGHT // 2 - 8), "the image cannot be read", _GREY)
  else:
    _photo(tile, photo, assignment, entry, color)
  worst = entry.mistakes[0]
  more = f" (+{len(entry.mistakes) - 1} more)" if len(entry.mistakes) > 1 else ""
  letters(14).draw(draw, (0, _TILE_HEIGHT + 4), _fit(_sentence(worst) + more, 14), _INK)
  letters(12).draw(draw, (0, _TILE_HEIGHT + 22), _fit(str(entry.image_id), 12, keep_end=True), _GREY)
  return tile


def _photo(tile: Image.Image, photo: Image.Image, assignment: Assignment, entry: SheetEntry, color: str) -> None:
  """The photo in the middle of the tile, true boxes thin and green, mistakes thick, the worst with its label."""
  scale = min(_TILE_WIDTH / photo.width, _TILE_HEIGHT / photo.height)
  size = (max(round(photo.width * scale), 1), max(round(photo.height * scale), 1))
  left, top = (_TILE_WIDTH - size[0]) // 2, (_TILE_HEIGHT - size[1]) // 2
  picture = photo.resize(size, Image.Resampling.BILINEAR)
  draw = ImageDraw.Draw(picture)
  data = assignment.data
  is_here = data.truth_image == data.image_ids.index(entry.image_id)
  for box in data.truth_boxes_xyxy_px[is_here]:
    _box(draw, box * scale, size, _TRUTH, 1)
  for mistake in reversed(entry.mistakes[:10]):
    _box(draw, np.array(mistake.box_xyxy_px) * scale, size, color, 2 if mistake is not entry.mistakes[0] else 3)
  worst = entry.mistakes[0]
  label = worst.name if worst.is_missed else f"{worst.name} {worst.score:.2f}"
  _label(draw, label, np.array(worst.box_xyxy_px) * scale, size, color)
  tile.paste(picture, (left, top))


def _box(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], size: tuple[int, int], color: str, width: int) -> None:
  x1, y1 = (float(np.clip(value, 0, limit - 1)) for value, limit in zip(box[:2], size, strict=True))
  x2, y2 = (float(np.clip(value, 0, limit - 1)) for value, limit in zip(box[2:], size, strict=True))
  draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=width)


def _label(draw: ImageDraw.ImageDraw, text: str, box: NDArray[np.float64], size: tuple[int, int], color: str) -> None:
  """The text on a plate above the box, or inside where there is no room above."""
  font = letters(14)
  width, height = font.length(text) + 8, 19
  x = float(np.clip(box[0], 0, max(size[0] - width, 0)))
  y = float(box[1]) - height if box[1] >= height else float(np.clip(box[1], 0, max(size[1] - height, 0)))
  draw.rectangle((x, y, x + width, y + height), fill=color)
  font.draw(draw, (x + 4, y + 1), text, _PAPER if color == _WRONG else _INK)


def _sentence(mistake: Mistake) -> str:
  """What went wrong, in a few words."""
  score = "" if mistake.score is None else f" {mistake.score:.2f}"
  if mistake.is_missed:
    return f"{mistake.name}: " + (f"taken for {mistake.other_name}{score}" if mistake.other_name else "not found")
  found = f"{mistake.name}{score}: "
  if mistake.verdict is Verdict.WRONG_CLASS:
    return f"{found}is {mistake.other_name}"
  if mistake.verdict is Verdict.DUPLICATE:
    return f"{found}found twice, IoU {mistake.iou:.2f}"
  if mistake.verdict is Verdict.LOOSE_BOX:
    return f"{found}box off, IoU {mistake.iou:.2f}"
  return f"{found}nothing there"


def _fit(text: str, size: int, keep_end: bool = False) -> str:
  """The text, shortened to the width of a tile."""
  font = letters(size)
  if font.length(text) <= _TILE_WIDTH:
    return text
  while text and font.length(text + "...") > _TILE_WIDTH:
    text = text[1:] if keep_end else text[:-1]
  return f"...{text}" if keep_end else f"{text}..."
