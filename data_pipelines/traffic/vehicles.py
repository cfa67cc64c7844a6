"""Cars, trucks and buses as a few tapered boxes with windows, lights and wheels on their faces.

A vehicle has its own frame: f forward, s to its right, h up, in metres, the origin on the road below its centre.
A face is seen from outside with u to the right and v up, both in [0, 1].
"""

from __future__ import annotations

import dataclasses

from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.view import CIRCLE, Color, Pen, Point, World

Patch = tuple[float, float, float, float, Color, bool]  # u0, v0, u1, v1, colour, shines by itself

GLASS: Color = (38, 48, 58)
TYRE: Color = (24, 24, 26)
RIM: Color = (120, 122, 126)
DARK: Color = (34, 34, 38)
PLATE: Color = (232, 230, 214)
RED_LIT: Color = (255, 52, 40)
RED_OFF: Color = (150, 22, 24)
LAMP_LIT: Color = (255, 250, 226)
LAMP_OFF: Color = (222, 226, 228)
AMBER: Color = (255, 176, 48)
PAINTS: tuple[Color, ...] = (
  (226, 228, 230), (196, 200, 204), (120, 124, 130), (56, 58, 64), (34, 36, 42), (176, 30, 34), (28, 70, 142),
  (52, 104, 180), (30, 96, 78), (196, 160, 60), (206, 104, 40), (120, 36, 62), (166, 186, 196), (98, 84, 70),
)  # fmt: skip
CARGO_PAINTS: tuple[Color, ...] = (
  (236, 236, 232), (214, 216, 218), (222, 196, 132), (62, 104, 156), (170, 64, 48), (88, 122, 96), (150, 152, 156),
)  # fmt: skip
BUS_PAINTS: tuple[Color, ...] = (
  (206, 42, 40), (240, 196, 52), (44, 112, 186), (60, 146, 96), (234, 236, 236), (238, 130, 44), (122, 70, 146),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Box:
  """A tapered box.

  Attributes:
    rear, front: f of its ends; half_width: s of its sides; bottom, top: h.
    rear_in, front_in, side_in: how far the upper edges lie inside the lower ones.
    paint: its colour.
    patches: face name -> what is painted on it, in order.
  """

  rear: float
  front: float
  half_width: float
  bottom: float
  top: float
  paint: Color
  rear_in: float = 0.0
  front_in: float = 0.0
  side_in: float = 0.0
  patches: dict[str, list[Patch]] = dataclasses.field(default_factory=dict)

  def corners(self) -> list[World]:
    """(f, s, h) of the lower, then the upper corners: rear left, rear right, front right, front left."""
    w, n = self.half_width, self.half_width - self.side_in
    rear, front = self.rear + self.rear_in, self.front - self.front_in
    low = [(self.rear, -w), (self.rear, w), (self.front, w), (self.front, -w)]
    high = [(rear, -n), (rear, n), (front, n), (front, -n)]
    return [(f, s, self.bottom) for f, s in low] + [(f, s, self.top) for f, s in high]


# Corner indices of each face from its lower left, counter-clockwise as seen from outside, and its normal (f, s).
FACES: dict[str, tuple[tuple[int, int, int, int], float, float]] = {
  "rear": ((0, 1, 5, 4), -1.0, 0.0),
  "front": ((2, 3, 7, 6), 1.0, 0.0),
  "right": ((1, 2, 6, 5), 0.0, 1.0),
  "left": ((3, 0, 4, 7), 0.0, -1.0),
  "top": ((4, 5, 6, 7), 0.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Vehicle:
  """A vehicle without a place.

  Attributes:
    length, width, height: outer size in metres.
    layers: boxes from the ground up; boxes of one layer stand one behind the other.
    wheels: (f, radius) of each axle.
    tail, head: (s, h) of the rear and front lights, mirrored to the other side.
  """

  length: float
  width: float
  height: float
  layers: tuple[tuple[Box, ...], ...]
  wheels: tuple[tuple[float, float], ...]
  tail: tuple[float, float]
  head: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Pose:
  """Where a thing stands: the centre on the road and the unit vector it heads to."""

  x: float
  z: float
  dx: float
  dz: float

  def world(self, f: float, s: float, h: float) -> World:
    return self.x + f * self.dx + s * self.dz, h, self.z + f * self.dz - s * self.dx


def _mirrored(u0: float, v0: float, u1: float, v1: float, color: Color, lit: bool = False) -> list[Patch]:
  return [(u0, v0, u1, v1, color, lit), (1 - u1, v0, 1 - u0, v1, color, lit)]


def _darker(color: Color, share: float) -> Color:
  return int(color[0] * share), int(color[1] * share), int(color[2] * share)


def make_car(dice: Dice, is_dark: bool) -> Vehicle:
  """A saloon, hatchback or tall estate."""
  style = dice.between(0, 2)
  length, width = dice.uniform(3.8, 4.7), dice.uniform(1.68, 1.86)
  height = dice.uniform(1.62, 1.8) if style == 2 else dice.uniform(1.36, 1.5)
  paint, half = dice.pick(PAINTS), 0.5 * length
  waist = 0.58 * height
  is_braking = is_dark or dice.chance(0.35)
  tail, head = RED_LIT if is_braking else RED_OFF, LAMP_LIT if is_dark or dice.chance(0.25) else LAMP_OFF
  sill = [(0.0, 0.0, 1.0, 0.16, _darker(paint, 0.45), False), (0.5, 0.12, 0.512, 1.0, _darker(paint, 0.6), False)]
  body = Box(-half, half, 0.5 * width, 0.24, waist, paint, 0.06, 0.14, 0.03)
  body.patches.update(
    rear=[
      (0.0, 0.0, 1.0, 0.3, _darker(paint, 0.5), False),
      (0.37, 0.4, 0.63, 0.6, PLATE, False),
      *_mirrored(0.02, 0.56, 0.22, 0.9, tail, is_braking),
    ],
    front=[
      (0.0, 0.0, 1.0, 0.2, _darker(paint, 0.5), False),
      (0.26, 0.36, 0.74, 0.66, DARK, False),
      (0.38, 0.14, 0.62, 0.3, PLATE, False),
      *_mirrored(0.02, 0.5, 0.23, 0.8, head, head == LAMP_LIT),
    ],
    left=sill,
    right=sill,
  )
  rear_gap, rear_in = ((0.62, 0.5), (0.06, 0.32), (0.05, 0.2))[style]
  cabin = Box(-half + rear_gap, half - 0.24 * length, 0.48 * width, waist, height, paint, rear_in, 0.62, 0.14)
  windows: list[Patch] = [(0.07, 0.1, 0.49, 0.86, GLASS, False), (0.54, 0.1, 0.93, 0.86, GLASS, False)]
  cabin.patches.update(
    rear=[(0.07, 0.12, 0.93, 0.88, GLASS, False)],
    front=[(0.05, 0.06, 0.95, 0.92, GLASS, False), (0.1, 0.55, 0.5, 0.88, (70, 86, 98), False)],
    left=windows,
    right=windows,
  )
  wheels = ((-0.31 * length, 0.31), (0.31 * length, 0.31))
  return Vehicle(
    length, width, height, ((body,), (cabin,)), wheels, (0.44 * width, 0.72 * waist), (0.44 * width, 0.66 * waist)
  )


def make_truck(dice: Dice, is_dark: bool) -> Vehicle:
  """A cab with a closed box, or with an open load bed."""
  length, width = dice.uniform(6.2, 9.2), dice.uniform(2.25, 2.5)
  is_open = dice.chance(0.3)
  cargo_top = dice.uniform(1.9, 2.2) if is_open else dice.uniform(3.1, 3.8)
  cab_top = dice.uniform(2.5, 2.9)
  half, side = 0.5 * length, 0.5 * width
  cab_paint, cargo_paint = dice.pick(PAINTS), dice.pick(CARGO_PAINTS)
  is_braking = is_dark or dice.chance(0.35)
  tail, head = RED_LIT if is_braking else RED_OFF, LAMP_LIT if is_dark or dice.chance(0.25) else LAMP_OFF
  chassis = Box(-half, half - 0.2, 0.94 * side, 0.5, 0.98, DARK)
  chassis.patches["rear"] = [
    (0.0, 0.0, 1.0, 0.32, (206, 206, 200), False),
    *_mirrored(0.0, 0.0, 0.14, 0.32, (190, 40, 36)),
    *_mirrored(0.03, 0.45, 0.2, 0.92, tail, is_braking),
    (0.4, 0.45, 0.6, 0.9, PLATE, False),
  ]
  cargo = Box(-half, half - 2.25, side, 0.98, cargo_top, cargo_paint)
  line, stripe = _darker(cargo_paint, 0.62), dice.pick(PAINTS)
  cargo.patches["rear"] = [
    (0.0, 0.0, 1.0, 0.03, line, False),
    *(() if is_open else ((0.485, 0.03, 0.515, 0.97, line, False), *_mirrored(0.36, 0.1, 0.39, 0.9, line))),
    *_mirrored(0.0, 0.0, 0.035, 1.0, line),
  ]
  ribs: list[Patch] = [(0.195 * i, 0.0, 0.195 * i + 0.022, 1.0, line, False) for i in range(6)]
  sides: list[Patch] = ribs if is_open or dice.chance(0.4) else [(0.0, 0.42, 1.0, 0.62, stripe, False)]
  cargo.patches.update(left=sides, right=sides)
  if is_open:
    load = dice.pick(((120, 92, 62), (98, 98, 96), (150, 128, 92)))
    cargo.patches["top"] = [(0.04, 0.02, 0.96, 0.98, load, False)]
  cab = Box(half - 2.0, half, 0.97 * side, 0.62, cab_top, cab_paint, 0.05, 0.22, 0.05)
  cab.patches.update(
    front=[
      (0.0, 0.0, 1.0, 0.14, DARK, False),
      (0.16, 0.2, 0.84, 0.42, DARK, False),
      *_mirrored(0.02, 0.16, 0.15, 0.3, head, head == LAMP_LIT),
      (0.06, 0.5, 0.94, 0.9, GLASS, False),
      (0.1, 0.68, 0.45, 0.86, (70, 86, 98), False),
    ],
    left=[(0.12, 0.52, 0.6, 0.88, GLASS, False), (0.0, 0.0, 1.0, 0.12, DARK, False)],
    right=[(0.4, 0.52, 0.88, 0.88, GLASS, False), (0.0, 0.0, 1.0, 0.12, DARK, False)],
  )
  wheels = ((half - 1.3, 0.48), (-half + 1.2, 0.48), (-half + 2.3, 0.48))
  height = max(cargo_top, cab_top)
  return Vehicle(length, width, height, ((chassis,), (cargo, cab)), wheels, (0.84 * side, 0.8), (0.86 * side, 1.05))


BUS_EDGE_M = 0.3  # from the road to where a bus begins, wheels apart


def make_bus(dice: Dice, is_dark: bool) -> Vehicle:
  """A city bus: one long box with rows of windows and a lit route display."""
  length, width, height = dice.uniform(8.6, 11.5), dice.uniform(2.4, 2.55), dice.uniform(2.85, 3.15)
  half, side = 0.5 * length, 0.5 * width
  paint, second = dice.pick(BUS_PAINTS), dice.pick(((240, 240, 238), (44, 48, 56), (214, 216, 220)))
  is_braking = is_dark or dice.chance(0.35)
  tail, head = RED_LIT if is_braking else RED_OFF, LAMP_LIT if is_dark or dice.chance(0.25) else LAMP_OFF
  glass = (206, 186, 128) if is_dark and dice.chance(0.7) else GLASS
  shines = glass != GLASS
  body = Box(-half, half, side, BUS_EDGE_M, height - 0.16, paint, 0.05, 0.1, 0.06)
  pane = 0.96 / 7
  row: list[Patch] = [(0.02 + pane * i, 0.5, 0.01 + pane * (i + 1), 0.84, glass, shines) for i in range(7)]
  skirt: list[Patch] = [(0.0, 0.0, 1.0, 0.1, DARK, False), (0.0, 0.3, 1.0, 0.4, second, False)]
  door = [(0.88, 0.06, 0.96, 0.84, _darker(GLASS, 0.9), False), (0.48, 0.06, 0.57, 0.84, _darker(GLASS, 0.9), False)]
  body.patches.update(
    rear=[
      (0.0, 0.0, 1.0, 0.1, DARK, False),
      (0.1, 0.52, 0.9, 0.86, glass, shines),
      (0.2, 0.16, 0.8, 0.38, _darker(paint, 0.45), False),
      (0.4, 0.11, 0.6, 0.17, PLATE, False),
      *_mirrored(0.02, 0.14, 0.12, 0.36, tail, is_braking),
    ],
    front=[
      (0.0, 0.0, 1.0, 0.08, DARK, False),
      (0.0, 0.2, 1.0, 0.27, second, False),
      (0.05, 0.34, 0.95, 0.84, GLASS, False),
      (0.48, 0.34, 0.52, 0.84, _darker(paint, 0.5), False),
      (0.2, 0.87, 0.8, 0.97, AMBER, True),
      *_mirrored(0.03, 0.1, 0.17, 0.2, head, head == LAMP_LIT),
    ],
    left=[*skirt, *row],
    right=[*skirt, *row, *door],
  )
  unit = Box(-0.6 * half, 0.1 * half, 0.7 * side, height - 0.16, height, _darker(second, 0.9), 0.1, 0.1, 0.1)
  wheels = ((-0.55 * half, 0.46), (0.6 * half, 0.46))
  return Vehicle(length, width, height, ((body,), (unit,)), wheels, (0.9 * side, 0.95), (0.88 * side, 0.72))


def _patch(pen: Pen, face: list[World], patch: Patch, brightness: float) -> None:
  """Paints a rectangle of a face, in the right perspective."""
  u0, v0, u1, v1, color, lit = patch
  (ax, ay, az), (bx, by, bz), (cx, cy, cz), (dx, dy, dz) = face
  corners = []
  for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1)):
    p, q, r, s = (1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v
    corners.append(
      (p * ax + q * bx + r * cx + s * dx, p * ay + q * by + r * cy + s * dy, p * az + q * bz + r * cz + s * dz)
    )
  pen.patch(corners, color, brightness, lit=lit)


def faces_camera(points: list[Point]) -> bool:
  """True if the corners run counter-clockwise on the picture."""
  area = 0
  for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
    area += x0 * y1 - x1 * y0
  return area < 0


def _draw_box(pen: Pen, box: Box, pose: Pose) -> None:
  corners = [pose.world(*corner) for corner in box.corners()]
  points = [pen.camera.project(corner) for corner in corners]
  for name, (indices, normal_f, normal_s) in FACES.items():
    outline = [points[i] for i in indices]
    if not faces_camera(outline):
      continue
    normal_x = normal_f * pose.dx + normal_s * pose.dz
    normal_z = normal_f * pose.dz - normal_s * pose.dx
    brightness = 1.08 if name == "top" else pen.light.side(normal_x, normal_z)
    pen.flat(outline, box.paint, brightness)
    for patch in box.patches.get(name, ()):
      _patch(pen, [corners[i] for i in indices], patch, brightness)


def _draw_tyres(pen: Pen, vehicle: Vehicle, pose: Pose) -> None:
  """What is seen of the wheels under a vehicle: the ends of the tyres that are turned to the camera."""
  side = 0.5 * vehicle.width
  nearer = 1.0 if pose.x * pose.dx + pose.z * pose.dz < 0 else -1.0
  for f, radius in vehicle.wheels:
    end = f + nearer * radius
    for s in (-side, side):
      inner = s - 0.24 if s > 0 else s + 0.24
      low = (pose.world(end, s, 0.0), pose.world(end, inner, 0.0))
      pen.face((*low, pose.world(end, inner, radius), pose.world(end, s, radius)), TYRE, 0.9)


def _draw_wheels(pen: Pen, vehicle: Vehicle, pose: Pose) -> None:
  """The wheels on the side that is seen."""
  for s in (-0.5 * vehicle.width, 0.5 * vehicle.width):
    x, _, z = pose.world(0.0, s, 0.0)
    if s * (x * pose.dz - z * pose.dx) >= 0:
      continue
    for f, radius in vehicle.wheels:
      pen.face([pose.world(f + radius * c, s, radius + radius * d) for c, d in CIRCLE], TYRE, 0.9)
      rim = 0.55 * radius
      pen.patch([pose.world(f + rim * c, s, radius + rim * d) for c, d in CIRCLE], RIM, 0.9)


def draw_vehicle(pen: Pen, vehicle: Vehicle, pose: Pose) -> None:
  """Draws a vehicle; `pen.points` then holds its outline."""
  pen.begin(pose.z)
  _draw_tyres(pen, vehicle, pose)
  for layer in vehicle.layers:
    middle = [pose.world(0.5 * (box.rear + box.front), 0.0, 0.0) for box in layer]
    for i in sorted(range(len(layer)), key=lambda i: -(middle[i][0] ** 2 + middle[i][2] ** 2)):
      _draw_box(pen, layer[i], pose)
    if layer is vehicle.layers[0]:
      _draw_wheels(pen, vehicle, pose)


def draw_lamps(pen: Pen, vehicle: Vehicle, pose: Pose) -> None:
  """The glow of the lights that are turned to the camera; not part of the object."""
  half = 0.5 * vehicle.length
  for f, (s, h), color, size, normal in (
    (-half, vehicle.tail, (255, 44, 34), 0.42, -1.0),
    (half, vehicle.head, (255, 246, 214), 0.85, 1.0),
  ):
    x, _, z = pose.world(f, 0.0, 0.0)
    if x * normal * pose.dx + z * normal * pose.dz >= 0:
      continue
    for lamp in (pose.world(f, -s, h), pose.world(f, s, h)):
      radius = round(size * pen.camera.focal / lamp[2])
      pen.glow(pen.camera.project(lamp), min(radius, pen.camera.height // 14), color)


def shadow_outline(vehicle: Vehicle, pose: Pose, shift: float) -> list[World]:
  """Corners of the shadow on the road; `shift` in metres to the right."""
  f, s = 0.5 * vehicle.length + 0.15, 0.5 * vehicle.width + 0.12
  outline = [pose.world(a, b, 0.0) for a, b in ((-f, -s), (-f, s), (f, s), (f, -s))]
  xs = sorted(x for x, _, _ in outline)
  middle = 0.5 * (xs[0] + xs[3])
  return [(x + (shift if (x > middle) == (shift > 0) else 0.0), y, z) for x, y, z in outline]
