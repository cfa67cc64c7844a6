"""Lays out a road scene and draws it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.traffic import street
from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.people import draw_person, make_person
from prn_jax.data_pipelines.traffic.vehicles import (
  Pose,
  Vehicle,
  draw_lamps,
  draw_vehicle,
  make_bus,
  make_car,
  make_truck,
  shadow_outline,
)
from prn_jax.data_pipelines.traffic.view import SCALE, Camera, Color, Light, Pen, Point, Pool, World
from prn_jax.data_pipelines.traffic.visible import visible_shares

CLASS_NAMES = ("car", "truck", "bus", "person")
CAR, TRUCK, BUS, PERSON = range(4)
MIN_VISIBLE = 0.25
MIN_VEHICLE_SIDE, MIN_PERSON_HEIGHT = 1 / 16, 1 / 10  # shares of the picture's height
_MAKERS = {CAR: make_car, TRUCK: make_truck, BUS: make_bus}
_VEHICLE_WEIGHTS = (0.44, 0.3, 0.26)
_TURNS = (0.0, 0.0, 0.0, 0.0, 0.03, -0.03, 0.06, -0.06)  # tangent of half the angle to the lane

Footprint = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Thing:
  """Anything that stands on the ground.

  Attributes:
    z: depth in metres; far things are drawn first.
    paint: draws it, so that the pen's points outline what it hides.
    label: index in `CLASS_NAMES`, or None for a house, tree or lamp.
    footprint: x0, x1, z0, z1 in metres.
    shadow: corners of its shadow on the road, or ().
    pools: light that it throws on the road in the dark.
  """

  z: float
  paint: Callable[[Pen], None]
  label: int | None = None
  footprint: Footprint = (0.0, 0.0, 0.0, 0.0)
  shadow: tuple[World, ...] = ()
  pools: tuple[Pool, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
  """A scene before it is drawn; `things` from far to near."""

  camera: Camera
  light: Light
  weather: street.Weather
  road: street.Road
  things: tuple[Thing, ...]


def roll_camera(dice: Dice, width: int, height: int) -> Camera:
  """From the height of a driver to that of a bridge; sizes are of the image in pixels."""
  w, h = width * SCALE, height * SCALE
  eye = dice.uniform(2.4, 3.6) if dice.chance(0.35) else dice.uniform(3.6, 6.8)
  return Camera(w, h, dice.uniform(1.0, 1.45) * h, dice.uniform(0.32, 0.68) * w, dice.uniform(0.2, 0.4) * h, eye)


def roll_layout(dice: Dice, width: int, height: int) -> Layout:
  """Everything about a scene but its pixels."""
  camera = roll_camera(dice, width, height)
  light, weather = street.roll_light(dice)
  road = street.roll_road(dice, camera)
  placed: list[Thing] = []
  for _ in range(dice.between(2, 7)):
    _place(placed, camera, lambda: _roll_vehicle(dice, camera, light, road))
  for _ in range(dice.weighted((0.28, 0.24, 0.2, 0.16, 0.12))):
    _place(placed, camera, lambda: _roll_person(dice, camera, road))
  things = placed + list(roll_furniture(dice, camera, road))
  things.sort(key=lambda thing: -thing.z)
  return Layout(camera, light, weather, road, tuple(things))


def _place(placed: list[Thing], camera: Camera, roll: Callable[[], Thing | None], tries: int = 5) -> None:
  """Adds the first thing that stands free of those already there; gives up after some tries."""
  for _ in range(tries):
    thing = roll()
    if thing is None:
      continue
    x0, x1, z0, z1 = thing.footprint
    if all(x1 < a0 or x0 > a1 or z1 < c0 or z0 > c1 for a0, a1, c0, c1 in (other.footprint for other in placed)):
      placed.append(thing)
      return


def _roll_depth(dice: Dice, near: float, far: float) -> float:
  """Half evenly on the road, half evenly on the picture."""
  if dice.chance(0.5):
    return dice.uniform(near, far)
  return 1.0 / dice.uniform(1.0 / far, 1.0 / near)


def roll_vehicle_kind(dice: Dice, light: Light) -> tuple[int, Vehicle]:
  """A car, truck or bus: its index in `CLASS_NAMES`, and what it looks like."""
  label = dice.weighted(_VEHICLE_WEIGHTS)
  return label, _MAKERS[label](dice, light.is_dark)


def _roll_vehicle(dice: Dice, camera: Camera, light: Light, road: street.Road) -> Thing | None:
  label, vehicle = roll_vehicle_kind(dice, light)
  smallest = min(vehicle.width, vehicle.height)
  far = camera.focal * smallest / (MIN_VEHICLE_SIDE * camera.height) - 0.5 * vehicle.length
  if road.junction_z is not None and dice.chance(0.4):
    direction = dice.pick((-1, 1))
    reach = 0.5 * camera.width / camera.focal * road.junction_z
    x, z = dice.uniform(-reach, reach), road.junction_z - 0.5 * direction * street.LANE
    pose = Pose(x, z, float(direction), 0.0)
  else:
    x, heading = dice.pick(road.lanes)
    near = 0.92 * camera.near_z + 0.5 * vehicle.length
    if far <= near:
      return None
    t = dice.pick(_TURNS)
    scale = 1.0 / (1.0 + t * t)
    z = _roll_depth(dice, near, far)
    pose = Pose(x + dice.uniform(-0.35, 0.35), z, 2 * t * scale, heading * (1 - t * t) * scale)
  if pose.z > far or not _is_seen(camera, vehicle, pose):
    return None
  return vehicle_thing(vehicle, pose, label, light)


def vehicle_thing(vehicle: Vehicle, pose: Pose, label: int, light: Light) -> Thing:
  """A vehicle at its place, with its shadow and the light that it throws."""
  shift = 0.0 if light.is_dark else -light.sun_x * 0.5 * vehicle.height
  outline = shadow_outline(vehicle, pose, shift)
  f, s = 0.5 * vehicle.length, 0.5 * vehicle.width
  ground = [pose.world(a, b, 0.0) for a, b in ((-f, -s), (-f, s), (f, s), (f, -s))]
  xs, zs = [x for x, _, _ in ground], [z for _, _, z in ground]

  def paint(pen: Pen) -> None:
    draw_vehicle(pen, vehicle, pose)
    if light.is_dark:
      draw_lamps(pen, vehicle, pose)

  x, _, z = pose.world(f + 2.2, 0.0, 0.0)
  across, along = 1.9 + 1.6 * abs(pose.dx), 1.9 + 1.6 * abs(pose.dz)
  beam = Pool(x, z, across, along, 100)
  footprint = (min(xs) - 0.1, max(xs) + 0.1, min(zs) - 0.6, max(zs) + 0.6)
  return Thing(pose.z, paint, label, footprint, tuple(outline), (beam,))


def _is_seen(camera: Camera, vehicle: Vehicle, pose: Pose) -> bool:
  """True if the middle of the vehicle's bounding box is on the picture, and all of it before the camera."""
  f, s = 0.5 * vehicle.length, 0.5 * vehicle.width
  corners = [pose.world(a, b, h) for a in (-f, f) for b in (-s, s) for h in (0.0, vehicle.height)]
  if min(z for _, _, z in corners) < 2.0:
    return False
  points = [camera.project(corner) for corner in corners]
  xs, ys = [x for x, _ in points], [y for _, y in points]
  return 0 < min(xs) + max(xs) < 2 * camera.width and 0 < min(ys) + max(ys) < 2 * camera.height


def _roll_person(dice: Dice, camera: Camera, road: street.Road) -> Thing | None:
  person = make_person(dice)
  far = camera.focal * person.height / (MIN_PERSON_HEIGHT * camera.height)
  near = 1.05 * camera.near_z
  if far <= near:
    return None
  if road.crossing_z is not None and abs(road.crossing_z) < far and dice.chance(0.6):
    x, z = dice.uniform(road.left, road.right), road.crossing_z + dice.uniform(-1.3, 1.3)
  else:
    z = _roll_depth(dice, near, far)
    offset = dice.uniform(-0.5, road.pavement)
    x = road.right + offset if dice.chance(0.5) else road.left - offset
  centre = camera.project((x, 0.5 * person.height, z))
  if not (0 < centre[0] < camera.width and 0 < centre[1] < camera.height):
    return None
  radius = 0.13 * person.height
  shadow = tuple(
    (x + dx, 0.0, z + dz) for dx, dz in ((-radius, -0.15), (radius, -0.15), (radius, 0.15), (-radius, 0.15))
  )
  paint = partial(draw_person, person=person, x=x, z=z)
  return Thing(z, paint, PERSON, (x - 0.3, x + 0.3, z - 0.3, z + 0.3), shadow)


def roll_furniture(dice: Dice, camera: Camera, road: street.Road) -> Iterator[Thing]:
  """Houses or trees along both sides, and a row of street lamps along one."""
  near = camera.near_z
  blocks = [(1.25 * near, 30.0 + near)]
  if road.junction_z is not None:
    gap = street.LANE + road.pavement
    blocks = [(0.9 * near, road.junction_z - gap), (road.junction_z + gap, road.junction_z + gap + 25.0)]
  for outward, kerb in ((-1, road.left - road.pavement), (1, road.right + road.pavement)):
    is_town = dice.chance(0.5)
    for start, end in blocks:
      z = start
      while z < end - 3.0:
        far = min(end, z + dice.uniform(7.0, 12.0))
        own = Dice(dice.between(0, 2**31 - 1))
        if is_town:  # drawn at its far end: what stands on the street beside it comes later
          house = partial(street.draw_house, dice=own, x=kerb + outward * 0.6, depth=(z, far), outward=outward)
          yield Thing(far, house)
        else:
          x, at = kerb + outward * dice.uniform(0.8, 4.0), dice.uniform(z, far)
          yield Thing(at, partial(street.draw_tree, dice=own, x=x, z=at))
        z = far
  side = dice.pick((-1, 1))
  z = dice.uniform(1.1, 1.6) * near
  while dice.chance(0.8) and z < 60.0:
    x = road.left - 0.4 if side < 0 else road.right + 0.4
    if road.junction_z is None or abs(z - road.junction_z) > street.LANE + 0.5:
      pool = Pool(x - side * 1.5, z, 4.5, 4.5, 110)
      yield Thing(z, partial(street.draw_lamp, x=x, z=z, reach=-side * 1.2), pools=(pool,))
    z += 14.0


def draw_layout(layout: Layout, dice: Dice) -> tuple[Image.Image, list[list[Point]]]:
  """Draws a scene.

  Returns:
    The canvas, and for each thing the canvas points whose extent is exactly that of what was drawn.
  """
  canvas = street.backdrop(layout.camera, layout.light, layout.weather)
  pen = Pen(canvas, layout.camera, layout.light)
  street.draw_skyline(pen, dice, layout.weather)
  street.draw_road(pen, dice, layout.road, layout.weather)
  road = layout.weather.road
  shade: Color = (int(road[0] * 0.5), int(road[1] * 0.5), int(road[2] * 0.52))
  if layout.light.is_dark:
    pen.light_road((pool for thing in layout.things for pool in thing.pools), (220, 198, 150))
  for thing in layout.things:
    if thing.shadow:
      pen.begin(thing.z)
      pen.face([(x, y, max(z, 1.0)) for x, y, z in thing.shadow], shade)
  outlines = []
  for thing in layout.things:
    thing.paint(pen)
    outlines.append(pen.points)
  return canvas, outlines


def box_of(outline: list[Point]) -> tuple[float, float, float, float]:
  """Extent of an object in image pixels, not clipped; canvas corners belong to the object."""
  xs, ys = [x for x, _ in outline], [y for _, y in outline]
  return min(xs) / SCALE, min(ys) / SCALE, (max(xs) + 1) / SCALE, (max(ys) + 1) / SCALE


def draw_scene(dice: Dice, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws a scene and labels what is seen of it.

  Args:
    dice: the scene's random numbers.
    width, height: size of the image in pixels.

  Returns:
    Image uint8 (height, width, 3) RGB; boxes float32 (n, 4) as x1, y1, x2, y2 in pixels, clipped to the image;
    classes int32 (n,). Objects of which less than a quarter is seen are not among them.
  """
  layout = roll_layout(dice, width, height)
  canvas, outlines = draw_layout(layout, dice)
  shares = visible_shares(outlines, width, height)
  boxes, classes = [], []
  for thing, outline, share in zip(layout.things, outlines, shares, strict=True):
    if thing.label is None or share < MIN_VISIBLE:
      continue
    x1, y1, x2, y2 = box_of(outline)
    boxes.append((max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)))
    classes.append(thing.label)
  image = noisy(np.asarray(canvas.reduce(SCALE)), dice, 4 if layout.light.is_dark else 3)
  return image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int32)


def noisy(image: np.ndarray, dice: Dice, strength: int) -> np.ndarray:
  """Adds the grain of a sensor: the same to the three channels, triangular within +/- 2 * strength."""
  height, width, _ = image.shape
  grain = dice.bytes(2 * height * width).reshape(2, height, width, 1).astype(np.int16)
  grain = ((grain[0] + grain[1] - 255) * strength) >> 8
  return np.clip(image + grain, 0, 255).astype(np.uint8)
