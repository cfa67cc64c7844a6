"""What is counted in a view: lines across roads, movements from one line to another, and zones. Read from a YAML file.

```yaml
point: bottom            # of a box: bottom (default), where a vehicle stands on the road, or center
lines:
  - name: north
    from: [100, 200]     # pixels; forward is from the left of the line to its right, as seen from `from` towards `to`
    to: [500, 200]
    forward: in          # names of the two directions (default: forward, backward)
    backward: out
movements:
  - name: north to east
    from: north in       # a line, and a direction of it (default: either)
    to: east out
zones:                   # for occupancy, queues and how long vehicles stay
  - {name: before the light, corners: [[100, 210], [500, 210], [560, 300], [60, 300]]}
standing_kmh: 5          # slower vehicles stand (default 5; needs the calibration)
start: 2026-05-01T08:00:00  # of the first frame, for times of day in log and tables; with +02:00 at its end, or
time_zone: Europe/Berlin
calibration:             # for speeds: at least four places on the road, in pixels and in metres
  - {pixel: [100, 200], metres: [0, 0]}
  - {pixel: [500, 200], metres: [7, 0]}
  - {pixel: [620, 400], metres: [7, -20]}
  - {pixel: [20, 400], metres: [0, -20]}
camera_height_m: 7       # above the road; with the next key
lower_edge_m:            # how high above the road the lower edge of a class's boxes is, where that is no place on the road
  bus: 0.3               # (a bumper before the wheels): speeds are corrected for it
```
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.structured import read_yaml
from prn_jax.files.values import Node
from prn_jax.track.ground import Ground, ground_of
from prn_jax.track.polygon import crosses_itself, depths_px, points_inside
from prn_jax.track.wall_clock import WallClock, check_zone, wall_clock

POINTS = ("bottom", "center")
_KEYS = {
  "": (
    "point",
    "lines",
    "movements",
    "zones",
    "standing_kmh",
    "calibration",
    "start",
    "time_zone",
    "camera_height_m",
    "lower_edge_m",
  ),
  "calibration": ("pixel", "metres"),
  "lines": ("name", "from", "to", "forward", "backward"),
}
_KEYS["movements"] = ("name", "from", "to")
_KEYS["zones"] = ("name", "corners")
STANDING_KMH = 5.0
_FARTHEST_PX = 1e6
_STANDING_RANGE_KMH = (0.1, 50.0)
_HIGHEST_CAMERA_M = 1000.0


class SceneError(PrnError):
  """A scene file that cannot be read, or does not say what it should."""


@dataclasses.dataclass(frozen=True)
class Line:
  """A line across a road.

  Attributes:
    name: what counts call it.
    start, end: its ends, x and y in pixels.
    directions: names of crossing it from left to right, as seen from start to end, and back.
  """

  name: str
  start: tuple[float, float]
  end: tuple[float, float]
  directions: tuple[str, str] = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class Movement:
  """A way through the view: over one line, then over another.

  Attributes:
    name: what counts call it.
    origin, destination: a line's name and one of its directions, or None for either.
  """

  name: str
  origin: tuple[str, str | None]
  destination: tuple[str, str | None]


@dataclasses.dataclass(frozen=True)
class Zone:
  """A part of the view.

  Attributes:
    name: what tables call it.
    corners: at least three, x and y in pixels, of a polygon that does not cross itself.
  """

  name: str
  corners: tuple[tuple[float, float], ...]

  @functools.cached_property
  def depth_px(self) -> float:
    """How far from its border the innermost point is."""
    corners = np.array(self.corners)
    return float(depths_px(corners, points_inside(corners)).max())


@dataclasses.dataclass(frozen=True)
class Scene:
  """All that is counted in a view.

  Attributes:
    lines: may be empty where there are zones.
    movements: pairs of lines; may be empty.
    point: the point of a box that crosses lines, one of `POINTS`.
    ground: the road in metres; None where nothing is calibrated.
    zones: may be empty.
    standing_kmh: slower vehicles stand, where the road is calibrated.
    wall: times of day; None where nobody said when the video began.
    lower_edges: (name of a class, factor of its speeds): boxes whose lower edge is h above the road look as if it were on the road
      farther away, so that what a camera at height H sees goes H / (H - h) times as fast. The factor is the inverse.
    speed_factors: the same by numbers of classes, 1 first; see `of_classes`.
  """

  lines: tuple[Line, ...]
  movements: tuple[Movement, ...] = ()
  point: str = "bottom"
  ground: Ground | None = None
  zones: tuple[Zone, ...] = ()
  standing_kmh: float = STANDING_KMH
  wall: WallClock | None = None
  lower_edges: tuple[tuple[str, float], ...] = ()
  speed_factors: Mapping[int, float] = dataclasses.field(default_factory=dict)

  @property
  def cover_of(self) -> str:
    """What the shares of zones that are covered are of: "road" (square metres) where that is calibrated, else "pixels"."""
    return "pixels" if self.ground is None else "road"

  def timed(self, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the log with its time of day ("time"), where that is known."""
    return row | {"time": self.wall.at(row["time_sec"])} if self.wall else row

  def of_classes(self, names: Sequence[str]) -> Scene:
    """With factors of speeds by the numbers that classes of these names have, the first 1.

    Raises:
      SceneError: a class of `lower_edge_m` is not among the names.
    """
    factors = {}
    for name, factor in self.lower_edges:
      if name not in names:
        why = f"which is no class here{did_you_mean(name, names)}" if names else "but nothing here names the classes"
        raise SceneError(f"lower_edge_m of the scene holds '{name}', {why}; --names FILE names them.")
      factors[names.index(name) + 1] = factor
    return dataclasses.replace(self, speed_factors=factors)

  def to_dict(self) -> dict[str, list[dict[str, Any]]]:
    """JSON values: lines, movements and zones with their places in pixels."""
    lines = [{"name": one.name, "from": one.start, "to": one.end, "directions": one.directions} for one in self.lines]
    movements = [{"name": one.name, "from": one.origin, "to": one.destination} for one in self.movements]
    return {"lines": lines, "movements": movements, "zones": [dataclasses.asdict(zone) for zone in self.zones]}

  def points(self, boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """(n, 2) float64: the points of boxes, (n, 4), that cross lines."""
    middle = (boxes_xyxy_px[:, 0] + boxes_xyxy_px[:, 2]) / 2
    below = boxes_xyxy_px[:, 3] if self.point == "bottom" else (boxes_xyxy_px[:, 1] + boxes_xyxy_px[:, 3]) / 2
    return np.column_stack((middle, below))


def read(path: Path) -> Scene:
  """The scene of a file.

  Raises:
    SceneError: with the file, the line and the key: an unknown key, a line without length, a name twice, a movement between lines
      that are not there, a zone that crosses itself, neither lines nor zones.
  """
  root = read_yaml(path, SceneError)
  _check_keys(root, "")
  point = root.get("point", "bottom")
  if point.text() not in POINTS:
    raise point.fault(f"is '{point.text()}'; expected one of {', '.join(POINTS)}")
  lines = [_line(node) for node in (root.get("lines", []) if "zones" in root else root["lines"]).items()]
  zones = [_zone(node) for node in root.get("zones", []).items()]
  if not lines and not zones:
    raise root["zones" if "zones" in root else "lines"].fault("is empty; expected at least one line, or one zone")
  movements = [_movement(node, lines) for node in root.get("movements", []).items()]
  for key, found in (("lines", lines), ("movements", movements), ("zones", zones)):
    _check_names(root.get(key, []), [one.name for one in found])
  ground = _ground(root["calibration"]) if "calibration" in root else None
  if ground is not None and point.text() != "bottom":
    raise point.fault("is 'center', which is no place on the road; speeds need 'bottom'")
  if ground is not None:
    _check_is_road(root.get("zones", []), zones, ground)
  standing = root.get("standing_kmh", STANDING_KMH)
  if "standing_kmh" in root and ground is None:
    raise standing.fault("needs speeds in km/h; add the calibration, or leave it out")
  return Scene(
    tuple(lines),
    tuple(movements),
    point.text(),
    ground,
    tuple(zones),
    standing.number(*_STANDING_RANGE_KMH),
    _wall(root),
    _lower_edges(root),
  )


def _lower_edges(root: Node) -> tuple[tuple[str, float], ...]:
  keys = ("camera_height_m", "lower_edge_m")
  if not any(key in root for key in keys):
    return ()
  for key, other in (keys, keys[::-1]):
    if key not in root:
      raise root[other].fault(f"stands without {key}; give both, or neither")
  if "calibration" not in root:
    raise root["lower_edge_m"].fault("corrects speeds, which need the calibration; add it, or leave it out")
  height = root["camera_height_m"].number(0.1, _HIGHEST_CAMERA_M)
  edges = {name: node.number(0.0, _HIGHEST_CAMERA_M) for name, node in root["lower_edge_m"].mapping().items()}
  for name, edge in edges.items():
    if edge > 0.5 * height:
      raise root["lower_edge_m"][name].fault(f"is {edge:g}, more than half of the camera's height of {height:g}")
  return tuple((name, 1 - edge / height) for name, edge in edges.items())


def _wall(root: Node) -> WallClock | None:
  if "start" not in root and "time_zone" not in root:
    return None
  zone = root["time_zone"].text() if "time_zone" in root else None
  if zone is not None:
    try:
      check_zone(zone)
    except ValueError as error:
      raise root["time_zone"].fault(str(error)) from None
  if "start" not in root:
    raise root["time_zone"].fault("stands without start, when the first frame was; give both")
  try:
    return wall_clock(root["start"].text(), zone)
  except ValueError as error:
    raise root["start"].fault(str(error)) from None


def _check_names(nodes: Node, names: list[str]) -> None:
  for index, name in enumerate(names):
    if name in names[:index]:
      raise nodes.items()[index]["name"].fault(
        f"is '{name}', which {nodes.key.removeprefix('.')}[{names.index(name)}] has already; every name stands once"
      )


def _check_is_road(nodes: Node, zones: list[Zone], ground: Ground) -> None:
  for node, zone in zip(nodes.items(), zones, strict=True):
    if np.isnan(ground.metres(np.array(zone.corners))).any():
      raise node["corners"].fault("reaches above the horizon of the calibration, where no road is")


def _zone(node: Node) -> Zone:
  _check_keys(node, "zones")
  corners = tuple(_place(corner) for corner in node["corners"].items())
  if len(corners) < 3:
    raise node["corners"].fault(f"has {len(corners)} corners; expected at least 3, [x, y] in pixels each")
  if len(set(corners)) < len(corners):
    raise node["corners"].fault("has a corner twice; the last one need not repeat the first")
  array = np.array(corners)
  if crosses_itself(array):
    raise node["corners"].fault("is a polygon that crosses itself; give the corners in their order round the zone")
  if not len(points_inside(array)):
    raise node["corners"].fault("has no room inside; expected corners that are no line")
  return Zone(node["name"].text(), corners)


def _ground(node: Node) -> Ground:
  places = node.items()
  for place in places:
    _check_keys(place, "calibration")
  what = {"pixel": "x and y in pixels", "metres": "two distances in metres"}
  pixels, metres = (
    np.array([_place(place[key], text) for place in places]).reshape(-1, 2) for key, text in what.items()
  )
  try:
    return ground_of(pixels, metres)
  except PrnError as error:
    raise node.fault(f"cannot be used: {error}") from None


def _check_keys(node: Node, kind: str) -> None:
  known = _KEYS[kind]
  for key, value in node.mapping().items():
    if key not in known:
      raise value.fault(f"is no key of a scene{did_you_mean(key, known)}; expected {', '.join(known)}")


def _line(node: Node) -> Line:
  _check_keys(node, "lines")
  start, end = _place(node["from"]), _place(node["to"])
  if start == end:
    raise node["to"].fault(f"is {list(end)}, where the line begins; expected another place")
  directions = node.get("forward", "forward").text(), node.get("backward", "backward").text()
  if directions[0] == directions[1]:
    raise node.fault(f"calls both directions '{directions[0]}'; expected two names")
  return Line(node["name"].text(), start, end, directions)


def _place(node: Node, what: str = "x and y in pixels") -> tuple[float, float]:
  values = [value.number(-_FARTHEST_PX, _FARTHEST_PX) for value in node.items()]
  if len(values) != 2:
    raise node.fault(f"has {len(values)} numbers; expected {what}")
  return values[0], values[1]


def _movement(node: Node, lines: list[Line]) -> Movement:
  _check_keys(node, "movements")
  return Movement(node["name"].text(), _side(node["from"], lines), _side(node["to"], lines))


def _side(node: Node, lines: list[Line]) -> tuple[str, str | None]:
  """ "north in" -> ("north", "in"); the name of a line may hold blanks."""
  text = node.text()
  known: dict[str, tuple[str, str | None]] = {line.name: (line.name, None) for line in lines}
  known |= {f"{line.name} {direction}": (line.name, direction) for line in lines for direction in line.directions}
  if text not in known:
    raise node.fault(f"is '{text}', which is no line{did_you_mean(text, known)}; expected one of {', '.join(known)}")
  return known[text]
