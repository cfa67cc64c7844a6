"""Everything that is not an object: sky, skyline, road, pavements, houses, trees and street lamps."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.view import SCALE, Camera, Color, Light, Pen, World

FAR = 140.0  # metres: where the road ends in haze
LANE = 3.3  # metres
WALLS: tuple[Color, ...] = (
  (178, 150, 128), (150, 98, 80), (196, 188, 174), (134, 140, 148), (108, 104, 100), (206, 178, 138), (122, 132, 120),
)  # fmt: skip
LEAVES: tuple[Color, ...] = ((62, 104, 52), (84, 122, 56), (48, 86, 58), (128, 118, 52), (152, 96, 44))
VERGES: tuple[Color, ...] = ((104, 134, 72), (132, 142, 88), (156, 144, 116), (128, 126, 122), (88, 118, 72))


@dataclasses.dataclass(frozen=True)
class Weather:
  """Colours of a scene before its light.

  Attributes:
    sky_top, sky_low: sky above and at the horizon.
    road, verge, pavement, paint: colours of the ground; `paint` is that of the markings.
  """

  sky_top: Color
  sky_low: Color
  road: Color
  verge: Color
  pavement: Color
  paint: Color


@dataclasses.dataclass(frozen=True)
class Road:
  """The street along z, and perhaps one across it.

  Attributes:
    left, right: kerbs as x in metres.
    lanes: x of each lane's middle and its direction, 1 away from the camera or -1 towards it.
    pavement: width of the pavements in metres; 0 for none.
    crossing_z: depth of a zebra crossing, or None.
    junction_z: depth of the middle of a street across, or None; it is two lanes wide.
  """

  left: float
  right: float
  lanes: tuple[tuple[float, int], ...]
  pavement: float
  crossing_z: float | None
  junction_z: float | None


def roll_light(dice: Dice) -> tuple[Light, Weather]:
  """Night in 3 of 10 scenes, dusk in 1; else sun, cloud or fog."""
  kind = dice.weighted((0.3, 0.1, 0.34, 0.18, 0.08))
  shade = dice.uniform(0.9, 1.1)
  grey = dice.between(74, 112)
  road = (grey, grey, grey + dice.between(0, 6))
  verge, pavement = dice.pick(VERGES), dice.pick(((168, 164, 158), (148, 146, 146), (182, 170, 156)))
  sun_x, sun_z = (-0.8 if dice.chance(0.5) else 0.8), (-0.6 if dice.chance(0.7) else 0.6)
  if kind == 0:
    moon = dice.uniform(0.32, 0.46)
    light = Light((moon * 0.92, moon * 0.96, moon * 1.16), (20, 22, 38), 0.008, sun_x, sun_z, True)
    weather = Weather((6, 8, 18), (26, 26, 44), road, verge, pavement, (236, 236, 228))
  elif kind == 1:
    dusk = dice.uniform(0.5, 0.64)
    light = Light((dusk * 1.12, dusk * 0.94, dusk * 0.92), (168, 118, 108), 0.005, sun_x, sun_z, True)
    weather = Weather((60, 70, 116), (232, 150, 106), road, verge, pavement, (240, 236, 222))
  elif kind == 2:
    light = Light((shade * 1.03, shade, shade * 0.95), (190, 210, 226), 0.0035, sun_x, sun_z, False)
    top = dice.pick(((84, 138, 206), (104, 158, 218), (70, 120, 190)))
    weather = Weather(top, (206, 224, 236), road, verge, pavement, (244, 244, 238))
  elif kind == 3:
    cloud = 0.8 * shade
    light = Light((cloud * 0.97, cloud, cloud * 1.04), (178, 184, 190), 0.006, 0.3 * sun_x, 0.3 * sun_z, False)
    weather = Weather((150, 158, 168), (196, 202, 206), road, verge, pavement, (232, 232, 228))
  else:
    light = Light((0.84, 0.85, 0.87), (192, 196, 198), 0.019, 0.2 * sun_x, 0.2 * sun_z, dice.chance(0.4))
    weather = Weather((190, 194, 198), (194, 198, 200), road, verge, pavement, (228, 228, 226))
  return light, weather


def roll_road(dice: Dice, camera: Camera) -> Road:
  """Two to four lanes below the camera, one-way or two-way."""
  count = dice.weighted((0.0, 0.0, 0.45, 0.35, 0.2))
  left = -dice.uniform(0.2, 0.8) * count * LANE
  is_two_way, keeps_right = dice.chance(0.75), dice.chance(0.8)
  away = dice.between(1, count - 1) if is_two_way else (count if dice.chance(0.5) else 0)
  directions = [-1] * (count - away) + [1] * away
  if not keeps_right:
    directions.reverse()
  lanes = tuple((left + (i + 0.5) * LANE, d) for i, d in enumerate(directions))
  near, kind = camera.near_z, dice.weighted((0.45, 0.25, 0.3))
  crossing = dice.uniform(1.15, 2.0) * near if kind == 1 else None
  junction = dice.uniform(1.7, 2.4) * near + LANE if kind == 2 else None
  return Road(left, left + count * LANE, lanes, dice.uniform(1.8, 3.2), crossing, junction)


def backdrop(camera: Camera, light: Light, weather: Weather) -> Image.Image:
  """Sky and verge as smooth gradients; RGB picture of the camera's size."""
  horizon = min(camera.height - 1, max(1, round(camera.horizon_y)))
  column = np.empty((camera.height, 1, 3), np.uint8)
  t = np.arange(horizon, dtype=np.int64)[:, None, None]
  top, low = np.array(weather.sky_top), np.array(weather.sky_low)
  column[:horizon] = (top * (horizon - t) + low * t) // horizon
  for y in range(horizon, camera.height, 2 * SCALE):
    column[y : y + 2 * SCALE] = light.tint(weather.verge, min(FAR, camera.ground_z(y + 0.5)))
  return Image.fromarray(column).resize((camera.width, camera.height), Image.Resampling.NEAREST)


def draw_skyline(pen: Pen, dice: Dice, weather: Weather) -> None:
  """A far row of houses, or of hills and trees, in the haze."""
  horizon, width = round(pen.camera.horizon_y), pen.camera.width
  pen.begin(70.0)
  unit = pen.camera.height // 48
  if dice.chance(0.6):
    x = 0
    while x < width:
      w, h = dice.between(3, 8) * unit, dice.between(2, 9) * unit
      color = dice.pick(WALLS)
      pen.flat([(x, horizon - h), (x + w, horizon - h), (x + w, horizon), (x, horizon)], color, 0.8)
      if pen.light.is_dark:
        for _ in range(dice.between(1, 5)):
          a, b = x + dice.between(1, max(1, w - 3)), horizon - dice.between(2, max(2, h - 2))
          pen.draw.rectangle((a, b, a + 2, b + 2), fill=(214, 178, 108))
      x += w
    return
  points, x = [(0, horizon)], 0
  while x < width:
    points.append((x, horizon - dice.between(1, 6) * unit))
    x += dice.between(4, 12) * unit
  pen.flat([*points, (width, horizon - 2 * unit), (width, horizon)], dice.pick(LEAVES), 0.8)


def _ground(pen: Pen, x0: float, x1: float, z0: float, z1: float, color: Color) -> None:
  pen.begin(0.5 * (z0 + z1) if z1 < FAR else z0)
  pen.face(((x0, 0.0, z0), (x1, 0.0, z0), (x1, 0.0, z1), (x0, 0.0, z1)), color)


def _strip(pen: Pen, x0: float, x1: float, color: Color) -> None:
  """A band along z, in pieces that fade into the haze."""
  z = 0.8 * pen.camera.near_z
  while z < FAR:
    _ground(pen, x0, x1, z, min(FAR, 1.6 * z) * 1.01, color)
    z *= 1.6


def draw_road(pen: Pen, dice: Dice, road: Road, weather: Weather) -> None:
  """Pavements, carriageway and markings."""
  kerb = (weather.pavement[0] - 40, weather.pavement[1] - 40, weather.pavement[2] - 40)
  _strip(pen, road.left - road.pavement, road.left, weather.pavement)
  _strip(pen, road.right, road.right + road.pavement, weather.pavement)
  _strip(pen, road.left - 0.18, road.right + 0.18, kerb)
  _strip(pen, road.left, road.right, weather.road)
  if road.junction_z is not None:
    reach = pen.camera.width / pen.camera.focal * road.junction_z * 1.5
    near, far = road.junction_z - LANE, road.junction_z + LANE
    _ground(pen, -reach, reach, near - 0.15, far + 0.15, kerb)
    _ground(pen, -reach, reach, near, far, weather.road)
  _draw_lines(pen, road, weather)
  for _ in range(dice.between(2, 7)):  # repairs and stains
    x, z = dice.uniform(road.left, road.right - 1.2), dice.uniform(0.9, 4.0) * pen.camera.near_z
    stain = dice.between(-12, 6)
    color = (weather.road[0] + stain, weather.road[1] + stain, weather.road[2] + stain)
    _ground(pen, x, x + dice.uniform(0.3, 1.2), z, z + dice.uniform(0.5, 4.0), color)
  if road.crossing_z is not None:
    x = road.left + 0.4
    while x < road.right - 0.5:
      _ground(pen, x, x + 0.5, road.crossing_z - 1.5, road.crossing_z + 1.5, weather.paint)
      x += 1.0


def _draw_lines(pen: Pen, road: Road, weather: Weather) -> None:
  """Edge lines, dashes between lanes of one direction, a full line between the directions."""
  gap = (FAR, FAR)
  if road.junction_z is not None:
    gap = (road.junction_z - LANE, road.junction_z + LANE)
  for i in range(len(road.lanes) + 1):
    x = road.left + i * LANE
    is_edge = i in (0, len(road.lanes))
    is_full = is_edge or road.lanes[i - 1][1] != road.lanes[i][1]
    x += 0.25 if i == 0 else -0.25 if i == len(road.lanes) else 0.0
    z, step = 0.8 * pen.camera.near_z, 5.0 if is_full else 3.0
    while z < 60.0:
      if not (gap[0] < z < gap[1]):
        _ground(pen, x - 0.07, x + 0.07, z, min(z + step, gap[0] if z < gap[0] else FAR), weather.paint)
      z += step if is_full else 7.0


def draw_house(pen: Pen, dice: Dice, x: float, depth: tuple[float, float], outward: int) -> None:
  """A house beside the street: the wall along it, the wall that faces the camera, and windows.

  Args:
    x: the place of the wall along the street.
    depth: z of its near and far end.
    outward: -1 for a house on the left, 1 on the right.
  """
  near, far = depth
  height, wall = dice.uniform(5.0, 15.0), dice.pick(WALLS)
  back = x + outward * dice.uniform(8.0, 14.0)
  pen.begin(near)
  across, along = pen.light.side(0.0, -1.0), pen.light.side(-outward, 0.0)
  pen.face(((x, 0, near), (back, 0, near), (back, height, near), (x, height, near)), wall, across)
  pen.begin(0.5 * (near + far))
  pen.face(((x, 0, near), (x, 0, far), (x, height, far), (x, height, near)), wall, along)
  floors, columns = max(1, int(height / 3.4)), max(2, int((far - near) / 3.5))
  lit_share = dice.uniform(0.2, 0.6) if pen.light.is_dark else 0.0
  glass: Color = (64, 78, 92)
  for floor in range(floors):
    y = 1.0 + floor * height / floors
    for column in range(columns):
      a = near + (column + 0.28) * (far - near) / columns
      b = near + (column + 0.78) * (far - near) / columns
      lit = lit_share > 0 and dice.chance(lit_share)
      corners: tuple[World, ...] = ((x, y, a), (x, y, b), (x, y + 1.5, b), (x, y + 1.5, a))
      pen.patch(corners, (212, 176, 104) if lit else glass, along, lit=lit)


def draw_tree(pen: Pen, dice: Dice, x: float, z: float) -> None:
  """A trunk with three balls of leaves."""
  pen.begin(z)
  height, leaves = dice.uniform(4.0, 7.5), dice.pick(LEAVES)
  trunk: Color = (84, 66, 52)  # too thin to hide anything, so not part of the outline
  pen.patch(((x - 0.14, 0, z), (x + 0.14, 0, z), (x + 0.1, 0.55 * height, z), (x - 0.1, 0.55 * height, z)), trunk)
  for share, brightness in ((0.0, 0.72), (0.5, 0.88), (1.0, 1.05)):
    radius = height * dice.uniform(0.17, 0.25)
    left, top = pen.camera.project((x + dice.uniform(-0.8, 0.8) - radius, height * (0.62 + 0.16 * share) + radius, z))
    size = round(2 * radius * pen.camera.focal / z)
    pen.ellipse((left, top, left + size, top + size), leaves, brightness)


def draw_lamp(pen: Pen, x: float, z: float, reach: float) -> None:
  """A street lamp, lit in the dark; too thin to hide anything, so its outline stays empty."""
  pen.begin(z)
  metal: Color = (96, 98, 102)
  pen.patch(((x - 0.08, 0, z), (x + 0.08, 0, z), (x + 0.05, 6.5, z), (x - 0.05, 6.5, z)), metal)
  pen.patch(((x, 6.5, z), (x + reach, 6.7, z), (x + reach, 6.55, z), (x, 6.35, z)), metal)
  head = pen.camera.project((x + reach, 6.55, z))
  size = max(1, round(0.24 * pen.camera.focal / z))
  color = (255, 236, 190) if pen.light.is_dark else pen.light.tint((210, 208, 200), z)
  pen.draw.ellipse((head[0] - size, head[1] - size // 2, head[0] + size, head[1] + size // 2), fill=color)
  if pen.light.is_dark:
    pen.glow(head, 4 * size, (255, 224, 160))
