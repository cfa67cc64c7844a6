"""A scene drawn on a frame: what a look tells before hours are counted."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from prn_jax.detect.draw import class_color, text_color
from prn_jax.fonts import letters
from prn_jax.track.ground import Ground
from prn_jax.track.scene import Line, Scene, Zone

GRID_M = 5.0
_WHITE = (255, 255, 255)
_ZONE_INK = 0.2


def draw_scene(image_u8: np.ndarray, scene: Scene) -> Image.Image:
  """The lines with their names, each with an arrow in its forward direction and that direction's name; zones; a grid of 5 m on the
  road that is calibrated.

  Args:
    image_u8: (h, w, 3) uint8 RGB.
    scene: what is drawn.
  """
  picture = Image.fromarray(np.ascontiguousarray(image_u8))
  canvas = ImageDraw.Draw(picture)
  side = (picture.width * picture.height) ** 0.5
  if scene.ground is not None:
    _draw_grid(canvas, scene.ground, max(1, round(side / 600)))
  for index, zone in enumerate(scene.zones):
    picture = _draw_zone(picture, zone, class_color(index + len(scene.lines)), side)
  canvas = ImageDraw.Draw(picture)
  for index, line in enumerate(scene.lines):
    _draw_line(canvas, line, class_color(index), side, picture.size)
  return picture


def _draw_grid(canvas: ImageDraw.ImageDraw, ground: Ground, width: int) -> None:
  """Between the places that the road is known by: beyond them, small errors grow."""
  low, high = ground.places_m.min(axis=0), ground.places_m.max(axis=0)
  for axis in (0, 1):
    for at in np.arange(np.ceil(low[axis] / GRID_M), np.floor(high[axis] / GRID_M) + 1) * GRID_M:
      ends = np.array([low, high])
      ends[:, axis] = at
      canvas.line([tuple(end) for end in ground.pixels(ends).round()], fill=_WHITE, width=width)


def _draw_zone(picture: Image.Image, zone: Zone, color: tuple[int, int, int], side: float) -> Image.Image:
  """Its border and, thinly, its inside, with its name in the middle."""
  layer = picture.copy()
  ImageDraw.Draw(layer).polygon([*zone.corners], fill=color)
  picture = Image.blend(picture, layer, _ZONE_INK)
  canvas = ImageDraw.Draw(picture)
  canvas.line([*zone.corners, zone.corners[0]], fill=color, width=max(2, round(side / 300)))
  _draw_name(canvas, zone.name, np.mean(zone.corners, axis=0), True, color, side, picture.size)
  return picture


def _draw_name(
  canvas: ImageDraw.ImageDraw,
  text: str,
  place: np.ndarray,
  is_middle: bool,
  color: tuple[int, int, int],
  side: float,
  size: tuple[int, int],
) -> None:
  """A text on its colour, whole in the picture; `place` is its middle or its upper left corner."""
  font = letters(max(12, round(side / 35)))
  top, bottom = font.extent(text)
  extent = np.array((font.length(text) + 6, bottom - top + 6))
  x, y = np.clip(place - (extent / 2 if is_middle else 0), 0, np.maximum(np.array(size) - extent, 0))
  canvas.rectangle((x, y, x + extent[0], y + extent[1]), fill=color)
  font.draw(canvas, (round(x) + 3, round(y + 3 - top)), text, text_color(color))


def _draw_line(
  canvas: ImageDraw.ImageDraw, line: Line, color: tuple[int, int, int], side: float, size: tuple[int, int]
) -> None:
  start, end = np.array(line.start), np.array(line.end)
  way = (end - start) / np.linalg.norm(end - start)
  forward = np.array((-way[1], way[0]))  # to the right, as y goes down
  width, arrow = max(2, round(side / 200)), side / 16
  middle = (start + end) / 2
  tip = middle + arrow * forward
  canvas.line([*start, *end], fill=color, width=width)
  canvas.line([*middle, *tip], fill=color, width=width)
  canvas.polygon([*(tip + arrow / 2 * forward), *(tip + arrow / 4 * way), *(tip - arrow / 4 * way)], fill=color)
  _draw_name(canvas, line.name, start, False, color, side, size)
  _draw_name(canvas, line.directions[0], tip + arrow * 0.6 * forward, True, color, side, size)
