"""Boxes and labels on a picture, readable at any resolution."""

from __future__ import annotations

import colorsys
import functools
import logging
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from prn_jax.fonts import Letters, letters

Rgb = tuple[int, int, int]
Rect = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom lie outside

MIN_FONT_PX = 10  # smaller text of the built-in font cannot be read
MAX_HIDDEN = 0.3  # a label is left out where others would hide more of it
MAX_COVERED = 0.3  # labels stop when they cover this share of the picture


def class_color(index: int) -> Rgb:
  """A strong colour that never changes for a class id; neighbours differ much.

  Hues step by the golden ratio, so that any number of classes spreads evenly; brightness and saturation step in
  threes, so that ids with similar hues still differ.
  """
  hue = (0.58 + index * 0.61803398875) % 1
  saturation, value = ((0.9, 1.0), (1.0, 0.8), (0.55, 1.0))[index % 3]
  r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
  return round(r * 255), round(g * 255), round(b * 255)


def text_color(background: Rgb) -> Rgb:
  """Black or white, whichever has the higher contrast (WCAG's relative luminance)."""
  linear = [(v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in background]
  luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
  return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def draw_boxes(
  image_u8: np.ndarray,
  boxes_xyxy_px: np.ndarray,
  labels: Sequence[str],
  classes: Sequence[int] | np.ndarray,
  *,
  line_px: int | None = None,
  font_px: int | None = None,
) -> Image.Image:
  """Draws boxes with labels.

  Lines and text grow with the picture. A label stands above its box, or else inside or below it, always whole and
  inside the picture. Boxes are taken as sorted, best first: better ones lie on top and choose their place first, and
  where the picture is full the labels of the others are left out, so that those that are there can be read.

  Args:
    image_u8: (h, w, 3) uint8 RGB.
    boxes_xyxy_px: (n, 4) corners in pixels; may reach beyond the picture. Boxes that are not finite are left out.
    labels: n texts; "" draws a box without label. Too long ones are shortened before their last word, the score. Words
      that no font here has the letters for are told in the log, once, and replaced by "class N".
    classes: n class ids, which give the colours.
    line_px, font_px: width of lines and size of text; by default from the picture's size.

  Returns:
    A new RGB picture.

  Raises:
    ValueError: the lengths differ.
  """
  if not len(boxes_xyxy_px) == len(labels) == len(classes):
    raise ValueError(f"{len(boxes_xyxy_px)} boxes, {len(labels)} labels and {len(classes)} classes; expected equal.")
  picture = Image.fromarray(np.ascontiguousarray(image_u8))
  canvas = ImageDraw.Draw(picture)
  width, height = picture.size
  side = (width * height) ** 0.5
  line = line_px or max(1, round(side / 320))
  font = letters(font_px or max(MIN_FONT_PX, round(side / 45)))

  visible = [i for i in range(len(labels)) if np.isfinite(boxes_xyxy_px[i]).all()]
  rects = {i: _clipped(boxes_xyxy_px[i], width, height) for i in visible}
  for i in reversed(visible):
    _draw_rectangle(canvas, rects[i], class_color(int(classes[i])), line)

  texts = {i: _fitted(_drawable(labels[i], int(classes[i]), font), font, width) for i in visible if labels[i]}
  places: dict[int, Rect] = {}
  room = MAX_COVERED * width * height
  for i, text in texts.items():
    place = _free_place(rects[i], _label_size(text, font), line, picture.size, list(places.values()))
    if place and text and (not places or _area(place) <= room):
      places[i] = place
      room -= _area(place)
  for i in reversed(places):
    _draw_label(canvas, places[i], texts[i], class_color(int(classes[i])), font)
  return picture


def _drawable(label: str, class_id: int, font: Letters) -> str:
  """The label, "class N" taking the place of words with letters that no font has."""
  words = label.split()
  lost = [word for word in words if font.lacking(word)]
  if not lost:
    return " ".join(words)
  _tell_lacking(" ".join(lost), class_id)
  return " ".join([f"class {class_id}", *(word for word in words if word not in lost)])


@functools.lru_cache(maxsize=1024)  # once for each name
def _tell_lacking(name: str, class_id: int) -> None:
  logging.getLogger(__name__).warning(
    "no font of this machine has all letters of the class name '%s'; it is drawn as 'class %d'. Install a font for its "
    "script, such as Noto (Debian and Ubuntu: apt install fonts-noto), and draw again.",
    *(name.encode("utf-8", "backslashreplace").decode(), class_id),
  )


def _clipped(box_xyxy_px: np.ndarray, width: int, height: int) -> Rect:
  """The box on whole pixels inside the picture, at least one pixel wide and high."""
  left, top, right, bottom = np.clip(np.round(box_xyxy_px), 0, [width, height, width, height]).astype(int).tolist()
  left, top = min(left, width - 1), min(top, height - 1)
  return left, top, max(right, left + 1), max(bottom, top + 1)


def _draw_rectangle(canvas: ImageDraw.ImageDraw, rect: Rect, color: Rgb, line: int) -> None:
  left, top, right, bottom = rect
  if line > 1 and min(right - left, bottom - top) > 6 * line:
    # A dark inner edge keeps the line visible on any background.
    canvas.rectangle(
      (left, top, right - 1, bottom - 1), outline=(color[0] // 4, color[1] // 4, color[2] // 4), width=line + 1
    )
  canvas.rectangle((left, top, right - 1, bottom - 1), outline=color, width=line)


def _margin(font: Letters) -> int:
  return max(1, round(font.size / 6))


def _label_size(text: str, font: Letters) -> tuple[int, int]:
  """Width and height of a label with its margin; the height is the same for every text of one script."""
  top, bottom = font.extent(text)
  return round(font.length(text)) + 2 * _margin(font), round(bottom - top) + 2 * _margin(font)


def _fitted(text: str, font: Letters, width: int) -> str:
  """The text, shortened before its last word until its label is at most `width` wide; "" if nothing fits."""
  if _label_size(text, font)[0] <= width:
    return text
  name, _, score = text.rpartition(" ")
  shorter = [f"{name[:n]}.. {score}" for n in range(len(name) - 1, 0, -1)] + [score, ""]
  return next(t for t in shorter if not t or _label_size(t, font)[0] <= width)


def _free_place(
  box: Rect, label: tuple[int, int], line: int, picture: tuple[int, int], taken: Sequence[Rect]
) -> Rect | None:
  """Where a label of size `label` stands: the first place near its box that hides nothing, else the one that hides
  least; None if that is too much, or the picture is too small."""
  width, height = label
  if width > picture[0] or height > picture[1]:
    return None
  left, top, right, bottom = box
  above, inside, low_inside, below = top - height, top + line, bottom - line - height, bottom
  corners = [(x, y) for y in (above, inside, low_inside, below) for x in (left, right - width)]
  corners += [(right, top), (left - width, top)]
  best: tuple[float, Rect] | None = None
  for x, y in corners:
    x, y = min(max(x, 0), picture[0] - width), min(max(y, 0), picture[1] - height)
    place = (x, y, x + width, y + height)
    if _overlap(place, box) > _area(box) / 4:  # it would hide the very box it speaks of
      continue
    hidden = sum(_overlap(place, other) for other in taken) / _area(place)
    if hidden == 0:
      return place
    if hidden <= MAX_HIDDEN and (best is None or hidden < best[0]):
      best = hidden, place
  return best[1] if best else None


def _overlap(a: Rect, b: Rect) -> int:
  return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _area(rect: Rect) -> int:
  return (rect[2] - rect[0]) * (rect[3] - rect[1])


def _draw_label(canvas: ImageDraw.ImageDraw, place: Rect, text: str, color: Rgb, font: Letters) -> None:
  left, top, right, bottom = place
  canvas.rectangle((left, top, right - 1, bottom - 1), fill=color)
  margin = _margin(font)
  font.draw(canvas, (left + margin, top + margin - font.extent(text)[0]), text, text_color(color))
