"""What happens in the zones of a scene: who comes and goes, who stands, and how much of the road is covered.

A track is in a zone from where its point goes over the border until it goes back over it, and both count when the point
is well beyond the border: a quarter of the box's smaller side, and at most half of the zone's own depth. So who jitters on
the border comes and goes once. A track that begins inside has come without being seen to (`seen` is false), and one that
ends inside has left so. Gaps of a track are bridged by a straight way; so is the step between two boxes.

A track stands once it is slower than the scene's `standing_kmh` (where nothing is calibrated: half its box's smaller side
in a second), and until it is twice as fast; speeds are those of one second, half before and half after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from prn_jax.track.clock import Clock
from prn_jax.track.ground import KMH, speeds_along
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.polygon import depths_px, points_inside
from prn_jax.track.scene import Scene, Zone

WELL = 0.25  # beyond the border, as a share of the smaller side of a box
STANDING_SIDES = 0.5  # smaller sides of its box in a second, where speeds in metres are not known
MOVING_AGAIN = 2.0  # times the speed below which a track stands
SAMPLE_SEC = 1.0
_MOST_STEPS = 64  # between two boxes


@dataclasses.dataclass(frozen=True)
class Visit:
  """A track in a zone; frames from 1, between two frames as fractions.

  Attributes:
    enter, leave: when.
    is_enter_seen, is_leave_seen: whether it came, and left, over the border.
  """

  enter: float
  leave: float
  is_enter_seen: bool
  is_leave_seen: bool


def visits_of(zone: Zone, frames: np.ndarray, points_px: np.ndarray, sizes_px: np.ndarray) -> list[Visit]:
  """The stays of one track in a zone.

  Args:
    zone: where.
    frames: (n,) int64, rising.
    points_px: (n, 2) float64.
    sizes_px: (n,) float64, the smaller sides of the boxes.
  """
  depth = zone.depth_px
  steps = np.ceil(np.hypot(*np.diff(points_px, axis=0).T) / (0.5 * depth)).clip(1, _MOST_STEPS).astype(int)
  rows = np.concatenate([[0.0], *(i + np.arange(1, count + 1) / count for i, count in enumerate(steps))])
  at = np.arange(len(frames))
  places = np.column_stack([np.interp(rows, at, points_px[:, axis]) for axis in (0, 1)])
  times = np.interp(rows, at, frames)
  inside = depths_px(np.array(zone.corners), places)
  well = np.minimum(WELL * np.interp(rows, at, sizes_px), 0.5 * depth)
  sides = np.where(inside > well, 1, np.where(inside < -well, -1, 0))
  sides[0] = 1 if inside[0] >= 0 else -1
  clear = np.flatnonzero(sides)
  changes = clear[1:][sides[clear[1:]] != sides[clear[:-1]]]
  borders = [_border(inside, times, int(row)) for row in changes]
  if sides[0] > 0:
    borders.insert(0, None)
  if len(borders) % 2:
    borders.append(None)
  first, last = float(frames[0]), float(frames[-1])
  return [
    Visit(first if a is None else a, last if b is None else b, a is not None, b is not None)
    for a, b in zip(borders[::2], borders[1::2], strict=True)
  ]


def _border(inside: np.ndarray, times: np.ndarray, row: int) -> float | None:
  """When the border was last passed before a row that is well on one side of it."""
  before = int(np.flatnonzero((inside[:row] > 0) != (inside[row] > 0))[-1])
  share = inside[before] / (inside[before] - inside[before + 1])
  return float(times[before] + share * (times[before + 1] - times[before]))


def events_of_track(track: BoxTable, scene: Scene, clock: Clock, base: dict[str, Any]) -> list[dict[str, Any]]:
  """Rows of the log: a track enters and leaves zones, and stops and goes in them.

  Args:
    track: boxes of one id, by frame.
    scene: with zones.
    clock: when frames are.
    base: what every row says of the track.
  """
  if not scene.zones:
    return []
  points = scene.points(track.boxes_xyxy_px)
  sizes = np.maximum(track.boxes_xywh_px[:, 2:].min(axis=1), 0)
  stands = _stands(track.frames, clock(track.frames), points, sizes, scene)
  rows = []

  def row(zone: Zone, what: str, frame: float) -> dict[str, Any]:
    place = np.array([[np.interp(frame, track.frames, points[:, axis]) for axis in (0, 1)]])
    found = {"kind": "zone", "name": zone.name, "direction": what, **base, "frame": round(frame, 3)}
    found |= {"time_sec": round(float(clock(frame)), 4), "place_px": _rounded(place[0])}
    return found | ({"place_m": _rounded(scene.ground.metres(place)[0])} if scene.ground else {})

  for zone in scene.zones:
    for visit in visits_of(zone, track.frames, points, sizes):
      enter, leave = row(zone, "enter", visit.enter), row(zone, "leave", visit.leave)
      rows.append(enter | {"seen": visit.is_enter_seen})
      for start, end in stands:
        begin, until = max(start, visit.enter), min(end, visit.leave)
        if begin < until:
          rows += [row(zone, "stop", begin), row(zone, "go", until)]
      dwell = round(leave["time_sec"] - enter["time_sec"], 4)
      is_whole = visit.is_enter_seen and visit.is_leave_seen
      rows.append(leave | {"seen": visit.is_leave_seen, "dwell_sec": dwell, "dwell_is_whole": is_whole})
  return rows


def _stands(
  frames: np.ndarray, times_sec: np.ndarray, points_px: np.ndarray, sizes_px: np.ndarray, scene: Scene
) -> list[tuple[float, float]]:
  """From which frame to which a track stands."""
  if scene.ground is not None:
    speeds = KMH * speeds_along(times_sec, scene.ground.metres(points_px))
    limit = np.full(len(frames), scene.standing_kmh)
  else:
    speeds, limit = speeds_along(times_sec, points_px), STANDING_SIDES * sizes_px
  with np.errstate(invalid="ignore"):  # where a speed is not known, nothing changes
    marks = np.where(speeds < limit, 1, np.where(speeds > MOVING_AGAIN * limit, -1, 0))
  found, since = [], None
  for frame, mark in zip(frames.tolist(), marks.tolist(), strict=True):
    if mark > 0 and since is None:
      since = float(frame)
    elif mark < 0 and since is not None:
      found.append((since, float(frame)))
      since = None
  if since is not None:
    found.append((since, float(frames[-1])))
  return found


class Cover:
  """How much of each zone boxes cover, once a second: of its road in square metres where that is calibrated, else of its
  pixels. A box hides road behind its vehicle too, which counts as covered.

  Args:
    scene: with zones.
  """

  def __init__(self, scene: Scene) -> None:
    self._second = -1
    self._zones = []
    for zone in scene.zones:
      points = points_inside(np.array(zone.corners))
      weights = np.ones(len(points)) if scene.ground is None else scene.ground.areas_m2(points)
      self._zones.append((zone.name, points, weights / weights.sum()))

  def add(self, frame: int, time_sec: float, boxes_xyxy_px: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rows of the log, if a second has begun.

    Args:
      frame, time_sec: of the frame; they rise from call to call.
      boxes_xyxy_px: (n, 4) float64, the tracks that are seen in it.
    """
    second = int((time_sec + 1e-6) // SAMPLE_SEC)
    if second <= self._second:
      return
    self._second = second
    for name, points, weights in self._zones:
      x, y = points[:, :1], points[:, 1:]
      left, top, right, bottom = boxes_xyxy_px.T
      is_covered = ((x >= left) & (x < right) & (y >= top) & (y < bottom)).any(axis=1)
      share = round(float(weights[is_covered].sum()), 4)
      yield {
        "kind": "cover",
        "name": name,
        "direction": "",
        "frame": frame,
        "time_sec": round(time_sec, 4),
        "share": share,
      }


def _rounded(values: np.ndarray) -> list[float]:
  return [round(float(value), 2) for value in values]
