"""Camera, light and pen: from metres in the world to polygons on the canvas.

World: x to the right, y up, z away from the camera, in metres, the road at y = 0. The canvas is `SCALE` times
the image, for smooth edges. Only + - * / and rounding are used, so that coordinates are equal on every platform.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

SCALE = 2
Color = tuple[int, int, int]
Point = tuple[int, int]
World = tuple[float, float, float]

# A unit circle without sin and cos, whose last bits differ between C libraries.
CIRCLE = (
  (1.0, 0.0), (0.866, 0.5), (0.5, 0.866), (0.0, 1.0), (-0.5, 0.866), (-0.866, 0.5),
  (-1.0, 0.0), (-0.866, -0.5), (-0.5, -0.866), (0.0, -1.0), (0.5, -0.866), (0.866, -0.5),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Camera:
  """A pinhole camera that looks along z; pitch is a shift of the horizon, so verticals stay vertical.

  Attributes:
    width, height: canvas size in canvas pixels.
    focal: focal length in canvas pixels.
    centre_x, horizon_y: vanishing point in canvas pixels.
    eye_height: metres above the road.
  """

  width: int
  height: int
  focal: float
  centre_x: float
  horizon_y: float
  eye_height: float

  def project(self, point: World) -> Point:
    """Canvas position of a point with z > 0."""
    x, y, z = point
    k = self.focal / z
    return round(self.centre_x + x * k), round(self.horizon_y + (self.eye_height - y) * k)

  def ground_z(self, y: float) -> float:
    """Depth of the road at a canvas row below the horizon."""
    return self.focal * self.eye_height / (y - self.horizon_y)

  @property
  def near_z(self) -> float:
    """Depth of the road at the lower edge of the canvas."""
    return self.ground_z(self.height)


@dataclasses.dataclass(frozen=True)
class Light:
  """What turns the colour of a thing into the colour on the picture.

  Attributes:
    ambient: factor per channel.
    haze: colour that distance fades to.
    haze_per_m: share of the haze per metre of depth.
    sun_x, sun_z: direction that brightens faces turned to it.
    is_dark: lamps are lit.
  """

  ambient: tuple[float, float, float]
  haze: Color
  haze_per_m: float
  sun_x: float
  sun_z: float
  is_dark: bool

  def tint(self, color: Color, z: float, brightness: float = 1.0) -> Color:
    """Colour of a lit surface at depth `z`."""
    share = min(0.85, z * self.haze_per_m)
    keep = (1.0 - share) * brightness
    ambient, haze = self.ambient, self.haze
    r = int(color[0] * ambient[0] * keep + haze[0] * share)
    g = int(color[1] * ambient[1] * keep + haze[1] * share)
    b = int(color[2] * ambient[2] * keep + haze[2] * share)
    return (r if r < 255 else 255, g if g < 255 else 255, b if b < 255 else 255)

  def side(self, normal_x: float, normal_z: float) -> float:
    """Brightness of an upright face with this outward normal."""
    return 0.84 + 0.16 * (self.sun_x * normal_x + self.sun_z * normal_z)


@dataclasses.dataclass(frozen=True)
class Pool:
  """A soft patch of light on the road: its middle and half size in metres, and coverage 0 to 255 in the middle."""

  x: float
  z: float
  half_width: float
  half_length: float
  strength: int


class Pen:
  """Draws on the canvas and remembers where: `points` outline the object since `begin`.

  Args:
    canvas: RGB picture of the camera's size.
    camera: how the world is seen.
    light: how colours look.
  """

  def __init__(self, canvas: Image.Image, camera: Camera, light: Light) -> None:
    self.canvas = canvas
    self.camera = camera
    self.light = light
    self.draw = ImageDraw.Draw(canvas)
    self.points: list[Point] = []
    self._z = 0.0

  def begin(self, z: float) -> None:
    """Starts an object at depth `z`."""
    self._z = z
    self.points = []

  def flat(self, points: Sequence[Point], color: Color, brightness: float = 1.0, *, lit: bool = False) -> None:
    """A polygon in canvas pixels, all corners included; `lit` means that it shines by itself."""
    self.points.extend(points)
    self.draw.polygon(points, fill=color if lit else self.light.tint(color, self._z, brightness))

  def patch(self, corners: Iterable[World], color: Color, brightness: float = 1.0, *, lit: bool = False) -> None:
    """A flat polygon inside what is drawn already: it adds nothing to the outline."""
    points = [self.camera.project(corner) for corner in corners]
    self.draw.polygon(points, fill=color if lit else self.light.tint(color, self._z, brightness))

  def face(self, corners: Iterable[World], color: Color, brightness: float = 1.0, *, lit: bool = False) -> None:
    """A flat polygon in the world."""
    self.flat([self.camera.project(corner) for corner in corners], color, brightness, lit=lit)

  def ellipse(self, box: tuple[int, int, int, int], color: Color, brightness: float = 1.0) -> None:
    """An upright ellipse that fills `box` = (left, top, right, bottom), all included, in canvas pixels."""
    left, top, right, bottom = box
    self.points.extend(((left, top), (right, bottom)))
    self.draw.ellipse(box, fill=self.light.tint(color, self._z, brightness))

  def glow(self, centre: Point, radius: int, color: Color) -> None:
    """A soft light, not part of the object."""
    if radius >= 1:
      self.canvas.paste(color, (centre[0] - radius, centre[1] - radius), glow_mask(radius))

  def light_road(self, pools: Iterable[Pool], color: Color) -> None:
    """Soft patches of light on the road, not part of any object; drawn small, then enlarged."""
    coarse, sky = 8, max(0, round(self.camera.horizon_y))
    size = (self.camera.width // coarse, (self.camera.height - sky) // coarse)
    patches = Image.new("L", size)
    for pool in pools:
      near_z, far_z = max(0.7 * self.camera.near_z, pool.z - pool.half_length), pool.z + pool.half_length
      left, top = self.camera.project((pool.x - pool.half_width * far_z / pool.z, 0.0, far_z))
      right, bottom = self.camera.project((pool.x + pool.half_width * near_z / pool.z, 0.0, near_z))
      box = (left // coarse, (top - sky) // coarse, right // coarse, (bottom - sky) // coarse)
      if near_z < far_z and box[0] < box[2] and box[1] < box[3] and box[2] > 0 and box[0] < size[0]:
        patch = _full_glow(pool.strength).resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR)
        patches.paste(ImageChops.lighter(patches.crop(box), patch), box)
    mask = patches.resize((self.camera.width, self.camera.height - sky), Image.Resampling.BILINEAR)
    self.canvas.paste(color, (0, sky), mask)


@functools.lru_cache(maxsize=16)
def _full_glow(coverage: int = 230) -> Image.Image:
  """A round light that fades to its rim, 128 x 128 pixels of at most this coverage."""
  odd = np.arange(1 - 128, 128, 2, dtype=np.int64)
  inside = np.maximum(0, 128 * 128 - odd[:, None] ** 2 - odd[None, :] ** 2)
  return Image.fromarray((coverage * inside * inside // 128**4).astype(np.uint8))


@functools.lru_cache(maxsize=256)
def glow_mask(radius: int) -> Image.Image:
  """A round light of (2 * radius)^2 pixels."""
  return _full_glow().resize((2 * radius, 2 * radius), Image.Resampling.BILINEAR)
