"""Events of tracks at the lines of a scene, each exactly once.

A track has crossed a line when it was well on one side and then is well on the other: farther than half its box's smaller
side. So who waits on a line and jitters is not counted again and again, and who turns round behind it counts once in each
direction. Where a track begins and ends a tenth of that side is enough: who gets another id near a line is counted by the
track that was seen on both sides, be it the old one or the new one, and by one of them alone. A track that begins on a
line has to come well away from it first, which is no crossing. What passes by an end of the line does not count. Gaps of
a track are bridged by a straight way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from prn_jax.track.clock import Clock
from prn_jax.track.ground import speed_at
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.scene import Line, Scene

WELL, BEYOND = 0.5, 0.1
"""Distances as shares of the smaller side of a box: to be well on a side, and to be on one in the first and the last box."""

_ORDER = (("time_sec", 0.0), ("track", 0), ("kind", ""), ("name", ""), ("direction", ""))


@dataclasses.dataclass(frozen=True)
class Crossing:
  """A track over a line.

  Attributes:
    line: the name of the line.
    direction: the name of the direction.
    frame: when, in frames from 1, between two frames as a fraction.
    place_px: where, x and y.
    before, after: the last point on one side and the first on the other: frame, x and y.
  """

  line: str
  direction: str
  frame: float
  place_px: tuple[float, float]
  before: tuple[float, float, float]
  after: tuple[float, float, float]


def events(tracks: BoxTable, scene: Scene, clock: Clock) -> list[dict[str, Any]]:
  """All events at lines, by time: a row of the log for each.

  Args:
    tracks: boxes with ids.
    scene: lines and movements.
    clock: when frames are.
  """
  found = [row for one in by_track(tracks) for row in events_of_track(one, scene, clock, base_of(one))]
  return sorted(found, key=in_order)


def in_order(row: dict[str, Any]) -> tuple[Any, ...]:
  """A key that sorts rows of the log by time."""
  return tuple(row.get(key, default) for key, default in _ORDER)


def by_track(tracks: BoxTable) -> Iterator[BoxTable]:
  """The boxes of each id, by frame; ids ascend."""
  order = np.lexsort((tracks.frames, tracks.ids))
  ids, starts = np.unique(tracks.ids[order], return_index=True)
  ends = [*starts[1:].tolist(), len(order)]
  for start, end in zip(starts.tolist(), ends[: len(ids)], strict=True):
    yield tracks[order[start:end]]


def base_of(track: BoxTable) -> dict[str, Any]:
  """What every row of the log says of a track."""
  label, votes = vote(track)
  return {"track": int(track.ids[0]), "class": label, "votes": votes}


def events_of_track(track: BoxTable, scene: Scene, clock: Clock, base: dict[str, Any]) -> list[dict[str, Any]]:
  """Rows of the log: a track crosses lines, and ends movements.

  Args:
    track: boxes of one id, by frame.
    scene: lines and movements.
    clock: when frames are.
    base: see `base_of`.
  """
  found = []
  places_m = scene.ground.metres(scene.points(track.boxes_xyxy_px)) if scene.ground else None
  for crossing, movements in _of_track(track, scene):
    evidence = {"before": _rounded(crossing.before), "after": _rounded(crossing.after)}
    when = {"frame": round(crossing.frame, 3), "time_sec": round(float(clock(crossing.frame)), 4)}
    what = {"kind": "line", "name": crossing.line, "direction": crossing.direction}
    speed = _speed(crossing, track, places_m, clock, scene.speed_factors.get(base["class"], 1.0))
    found.append(what | base | when | {"place_px": _rounded(crossing.place_px)} | evidence | speed)
    found += [{"kind": "movement", "name": name, "direction": ""} | base | when for name in movements]
  return found


def _speed(
  crossing: Crossing, track: BoxTable, places_m: np.ndarray | None, clock: Clock, factor: float
) -> dict[str, float | None]:
  """Of a crossing, times a factor, where the road is calibrated; None where the track is too short to tell."""
  if places_m is None:
    return {}
  speed = speed_at(float(clock(crossing.frame)), clock(track.frames), places_m)
  if speed is None:
    return {"speed_kmh": None, "speed_error_kmh": None}
  return {"speed_kmh": round(factor * speed.kmh, 2), "speed_error_kmh": round(factor * speed.error_kmh, 2)}


def vote(track: BoxTable) -> tuple[int, dict[str, float]]:
  """The class that a track's boxes speak for, each with its score, and the sums; of two alike the smaller number."""
  sums = {int(label): float(track.scores[track.classes == label].sum()) for label in np.unique(track.classes)}
  best = max(sums, key=lambda label: (sums[label], -label))
  return best, {str(label): round(total, 4) for label, total in sums.items()}


def _of_track(track: BoxTable, scene: Scene) -> Iterator[tuple[Crossing, list[str]]]:
  """Crossings of one track in the order of time, each with the movements that it ends."""
  points = scene.points(track.boxes_xyxy_px)
  sides_px = np.maximum(track.boxes_xywh_px[:, 2:].min(axis=1), 0)
  crossings = [c for line in scene.lines for c in crossings_of(line, track.frames, points, sides_px)]
  passed: list[Crossing] = []
  counted: set[str] = set()
  for crossing in sorted(crossings, key=lambda c: (c.frame, c.line)):
    ended = [
      movement.name
      for movement in scene.movements
      if movement.name not in counted
      and _is_at(crossing, movement.destination)
      and any(_is_at(earlier, movement.origin) for earlier in passed)
    ]
    counted.update(ended)
    passed.append(crossing)
    yield crossing, ended


def _is_at(crossing: Crossing, side: tuple[str, str | None]) -> bool:
  return crossing.line == side[0] and side[1] in (None, crossing.direction)


def crossings_of(line: Line, frames: np.ndarray, points_px: np.ndarray, sizes_px: np.ndarray) -> list[Crossing]:
  """Crossings of one track over one line.

  Args:
    line: the line.
    frames: (n,) int64, rising.
    points_px: (n, 2) float64.
    sizes_px: (n,) float64, the smaller sides of the boxes.
  """
  start, way = np.array(line.start), np.subtract(line.end, line.start)
  offsets = points_px - start
  length = float(np.hypot(*way))
  across = (way[0] * offsets[:, 1] - way[1] * offsets[:, 0]) / length  # above 0: right of the line, as y goes down
  along = offsets @ way / length**2
  found: list[Crossing] = []
  side = 0
  last = 0  # where the track was last well on a side
  for i, distance in enumerate(across.tolist()):
    is_edge = i == 0 or (i == len(across) - 1 and side != 0)
    if abs(distance) <= (BEYOND if is_edge else WELL) * sizes_px[i]:
      continue
    now = 1 if distance > 0 else -1
    if side == -now and (crossing := _over(line, now, frames, points_px, across, along, last, i)):
      found.append(crossing)
    side, last = now, i
  return found


def _over(
  line: Line,
  now: int,
  frames: np.ndarray,
  points: np.ndarray,
  across: np.ndarray,
  along: np.ndarray,
  low: int,
  high: int,
) -> Crossing | None:
  """The crossing between two rows, at the last change of sides between them; None if that is beside the line."""
  b = low + 1 + int(np.flatnonzero(np.sign(across[low:high]) != now)[-1])
  a = b - 1
  share = abs(across[a]) / (abs(across[a]) + abs(across[b]))
  if not 0 <= along[a] + share * (along[b] - along[a]) <= 1:
    return None
  place = points[a] + share * (points[b] - points[a])
  before, after = ((float(frames[i]), float(points[i, 0]), float(points[i, 1])) for i in (a, b))
  when = float(frames[a] + share * (frames[b] - frames[a]))
  direction = line.directions[0 if now > 0 else 1]
  return Crossing(line.name, direction, when, (float(place[0]), float(place[1])), before, after)


def _rounded(values: tuple[float, ...]) -> list[float]:
  return [round(value, 2) for value in values]
