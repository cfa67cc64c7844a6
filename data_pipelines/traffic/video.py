"""Videos of the drawn road: vehicles that move, with what is true of every frame and of the whole.

The camera stands above a straight road. A line lies across it; a vehicle is counted where the middle of the lower edge of its
box goes over that line, which is the end of it that is nearest to the camera.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import field

import numpy as np
from PIL import Image, ImageDraw

from prn_jax.data_pipelines.traffic import street
from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.motion import STEP_SEC, Driver, Traffic
from prn_jax.data_pipelines.traffic.scene import (
  Layout,
  Thing,
  box_of,
  draw_layout,
  noisy,
  roll_furniture,
  vehicle_thing,
)
from prn_jax.data_pipelines.traffic.vehicles import Pose
from prn_jax.data_pipelines.traffic.view import SCALE, Camera, Light
from prn_jax.data_pipelines.traffic.visible import visible_shares
from prn_jax.errors import PrnError
from prn_jax.ranges import at_least, between, check

FAR = 75.0  # metres: where lanes begin or end
LINE = (
  0.6  # place of the line on the way from the near edge of the picture to `FAR`, in rows: tracked on both sides of it
)
_LANES, _FURNITURE, _SKYLINE, _TRAFFIC, _GRAIN, _SHAKE, _RAIN, _LIGHT = range(8)  # streams of random numbers
_DROPS = 220
_TRIES = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSettings:
  """What is filmed.

  Attributes:
    width, height: size of the frames in pixels.
    fps: frames per second, a divisor of 25.
    seconds: length.
    flow: vehicles per minute that come to each lane.
    night, rain: how it looks.
    shake_px: the camera trembles by up to so many pixels.
    stop_and_go: a traffic light, at which vehicles wait.
  """

  width: int = field(default=640, metadata=between(64, 4096, "pixels"))
  height: int = field(default=360, metadata=between(64, 4096, "pixels"))
  fps: float = field(default=12.5, metadata=between(0.1, 25, "frames per second"))
  seconds: float = field(default=20.0, metadata=between(0.1, 3600, "seconds"))
  flow: float = field(default=15.0, metadata=between(0, 60, "vehicles per minute and lane"))
  night: bool = False
  rain: bool = False
  shake_px: float = field(default=0.0, metadata=at_least(0, "pixels"))
  stop_and_go: bool = False

  def __post_init__(self) -> None:
    check(self, PrnError)
    steps = 1 / (self.fps * STEP_SEC)
    if abs(steps - round(steps)) > 1e-9:
      raise PrnError(f"fps is {self.fps:g}; expected a divisor of 25, such as 25, 12.5, 6.25, 5 or 2.5.")

  @property
  def steps_per_frame(self) -> int:
    """Of the motion, `motion.STEP_SEC` each."""
    return round(1 / (self.fps * STEP_SEC))

  @property
  def num_frames(self) -> int:
    """Of the whole video."""
    return max(1, int(self.seconds * self.fps))


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
  """One frame and what is true of it, a row for each vehicle of which a pixel is in the picture.

  Attributes:
    image: (height, width, 3) uint8 RGB.
    ids: (n,) int64, of the vehicle in the whole video, from 1.
    boxes_xyxy_px: (n, 4) float32, clipped to the picture.
    classes: (n,) int64, index in `scene.CLASS_NAMES`.
    visible: (n,) float64, the share of it that is in the picture and behind nothing.
    speeds: (n,) float64, metres per second.
  """

  image: np.ndarray
  ids: np.ndarray
  boxes_xyxy_px: np.ndarray
  classes: np.ndarray
  visible: np.ndarray
  speeds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Crossing:
  """A vehicle that goes over the line.

  Attributes:
    id, label: see `Frame`.
    time_sec: since the first frame.
    heading: 1 away from the camera, -1 towards it.
    speed: metres per second at that time.
  """

  id: int
  label: int
  time_sec: float
  heading: int
  speed: float


class Video:
  """A video that is drawn frame by frame; equal seeds and settings give equal ones.

  Attributes:
    crossings: those of the line, so far.
  """

  def __init__(self, seed: int, settings: VideoSettings) -> None:
    self.settings, self._seed = settings, seed
    self.crossings: list[Crossing] = []
    dice = Dice(seed, _LANES)
    w, h = settings.width * SCALE, settings.height * SCALE
    eye = dice.uniform(6.5, 8.5)
    self.camera = Camera(
      w, h, dice.uniform(1.0, 1.25) * h, dice.uniform(0.42, 0.58) * w, dice.uniform(0.16, 0.26) * h, eye
    )
    self.light, self.weather = _roll_light(seed, settings.night)
    count, left = dice.between(2, 4), 0.0
    left = -0.5 * count * street.LANE + dice.uniform(-1.0, 1.0)
    away = dice.between(1, count - 1)
    lanes = tuple((left + (i + 0.5) * street.LANE, 1 if i >= count - away else -1) for i in range(count))
    self.road = street.Road(left, left + count * street.LANE, lanes, 2.4, None, None)
    near = self.camera.near_z
    # By rows of the picture: far metres are few pixels.
    self.line_z = 1.0 / (LINE / FAR + (1.0 - LINE) / near)
    length = FAR - near + 16.0  # begins and ends outside of the picture on the near side
    stop = 0.62 * length if settings.stop_and_go else None
    self.traffic = Traffic(Dice(seed, _TRAFFIC), lanes, self.light, length, settings.flow / 60, stop)
    self._begin = near - 16.0
    for _ in range(round(8.0 / STEP_SEC)):  # the road is not empty when the film begins
      self.traffic.step()
    self._start_sec = self.traffic.seconds

  def line_px(self) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of the line across the road in pixels, from left to right: away from the camera is to its left."""
    (x0, y0), (x1, y1) = (self._pixel(x, self.line_z) for x in (self.road.left, self.road.right))
    return (x0, y0), (x1, y1)

  def ground_points(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Four places on the road: (x, y) in pixels, and (to the right, away from the camera) in metres."""
    far = 1.0 / (0.75 / FAR + 0.25 / self.camera.near_z)
    near = 1.05 * self.camera.near_z
    places = [(self.road.left, near), (self.road.right, near), (self.road.right, far), (self.road.left, far)]
    return [(self._pixel(x, z), (x, z)) for x, z in places]

  def _pixel(self, x: float, z: float) -> tuple[float, float]:
    """Image position of a place on the road, not rounded."""
    c = self.camera
    return (c.centre_x + x * c.focal / z) / SCALE, (c.horizon_y + c.eye_height * c.focal / z) / SCALE

  def frames(self) -> Iterator[Frame]:
    """All frames, in order. Going through them again would go on with the traffic: make another `Video`."""
    for number in range(self.settings.num_frames):
      yield self._frame(number)
      for _ in range(self.settings.steps_per_frame):
        before = {driver.number: self._near_z(driver) for driver in self.traffic.drivers}
        self.traffic.step()
        self._note_crossings(before)

  def _z(self, driver: Driver) -> float:
    return self._begin + driver.along if driver.heading > 0 else FAR - driver.along

  def _near_z(self, driver: Driver) -> float:
    return self._z(driver) - 0.5 * driver.vehicle.length

  def _note_crossings(self, before: dict[int, float]) -> None:
    now = self.traffic.seconds - self._start_sec
    for driver in self.traffic.drivers:
      z1 = self._near_z(driver)
      z0 = before.get(driver.number, z1)
      if (z0 - self.line_z) * (z1 - self.line_z) < 0 or (z1 == self.line_z and z0 != z1):
        share = (self.line_z - z0) / (z1 - z0)
        time_sec = now - STEP_SEC * (1 - share)
        self.crossings.append(Crossing(driver.number, driver.label, time_sec, driver.heading, driver.speed))

  def _frame(self, number: int) -> Frame:
    camera = self._shaken(number)
    drivers = [driver for driver in self.traffic.drivers if self._near_z(driver) > 2.0]
    things: list[tuple[Thing, Driver | None]] = [
      (vehicle_thing(d.vehicle, Pose(d.x, self._z(d), 0.0, float(d.heading)), d.label, self.light), d) for d in drivers
    ]
    furniture = roll_furniture(Dice(self._seed, _FURNITURE), self.camera, self.road)
    things += [(thing, None) for thing in furniture]
    things.sort(key=lambda pair: -pair[0].z)
    layout = Layout(camera, self.light, self.weather, self.road, tuple(thing for thing, _ in things))
    canvas, outlines = draw_layout(layout, Dice(self._seed, _SKYLINE))
    if self.settings.rain:
      self._rain(canvas, number)
    return self._labelled(canvas, [driver for _, driver in things], outlines, number)

  def _labelled(
    self, canvas: Image.Image, drivers: list[Driver | None], outlines: list[list[tuple[int, int]]], number: int
  ) -> Frame:
    width, height = self.settings.width, self.settings.height
    shares = visible_shares(outlines, width, height)
    rows = [
      (driver, np.clip(box_of(outline), 0, [width, height, width, height]), share)
      for driver, outline, share in zip(drivers, outlines, shares, strict=True)
      if driver is not None and share > 0
    ]
    rows.sort(key=lambda row: row[0].number)
    grain = Dice(self._seed, _GRAIN, number)
    image = noisy(np.asarray(canvas.reduce(SCALE)), grain, 4 if self.light.is_dark else 3)
    return Frame(
      image,
      np.array([driver.number for driver, _, _ in rows], np.int64),
      np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
      np.array([driver.label for driver, _, _ in rows], np.int64),
      np.array([share for _, _, share in rows]),
      np.array([driver.speed for driver, _, _ in rows]),
    )

  def _shaken(self, number: int) -> Camera:
    """The camera of one frame: it trembles about its place."""
    reach = self.settings.shake_px * SCALE
    if not reach:
      return self.camera
    dice = Dice(self._seed, _SHAKE, number)
    shift_x, shift_y = dice.uniform(-reach, reach), dice.uniform(-reach, reach)
    camera = self.camera
    return dataclasses.replace(camera, centre_x=camera.centre_x + shift_x, horizon_y=camera.horizon_y + shift_y)

  def _rain(self, canvas: Image.Image, number: int) -> None:
    """Streaks in front of everything; they hide nothing."""
    dice, draw = Dice(self._seed, _RAIN, number), ImageDraw.Draw(canvas)
    color = (96, 98, 108) if self.light.is_dark else (206, 210, 216)
    length = canvas.height // 18
    for _ in range(_DROPS):
      x, y = dice.between(0, canvas.width - 1), dice.between(-length, canvas.height - 1)
      draw.line([(x, y), (x - length // 6, y + length)], fill=color, width=1)


def _roll_light(seed: int, night: bool) -> tuple[Light, street.Weather]:
  """The first light, of many that are rolled, that is dark or not."""
  for attempt in range(_TRIES):
    light, weather = street.roll_light(Dice(seed, _LIGHT, attempt))
    if light.is_dark == night:
      return light, weather
  raise PrnError(f"no {'dark' if night else 'bright'} light in {_TRIES} tries of seed {seed}.")
