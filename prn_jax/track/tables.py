"""Tables of a count by interval, from its log alone."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from prn_jax.track.event_log import COUNTED, Log
from prn_jax.track.wall_clock import WallClock

COUNTS = (
  "from_sec",
  "to_sec",
  "kind",
  "name",
  "direction",
  "class",
  "class_name",
  "count",
  "mean_kmh",
  "mean_headway_sec",
)
ZONES = (
  "from_sec", "to_sec", "name", "class", "class_name", "came", "began_inside", "left", "ended_inside", "occupied_share",
  "covered_share", "covered_of", "mean_dwell_sec", "longest_dwell_sec", "mean_queue", "longest_queue", "longest_queue_m",
)  # fmt: skip
TIMES = ("from", "to")
ALL = "all"
Span = tuple[float, float]


def names_of(log: Log) -> list[str]:
  """Names of the classes, class 1 first."""
  return list(log.header.get("class_names", []))


def class_name(names: Sequence[str], label: int) -> str:
  """The name of a class of tracks, which count from 1; empty where nobody knows it."""
  return names[label - 1] if 1 <= label <= len(names) else ""


def shown_class(name: str, label: int) -> str:
  """A class for people: its name, else its number."""
  return name or ("unknown" if label < 1 else f"class {label}")


def aligned(rows: Sequence[Sequence[str]]) -> str:
  """Rows of a table as text, columns flush left."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
  )


def counts(log: Log, interval_sec: float) -> str:
  """The totals of each interval as CSV; intervals, and kinds of event in them, without any have no row.

  The mean of the speeds is empty where none is known. A headway is the time since the vehicle before, of whatever class,
  over the same line in the same direction; the first one has none.
  """
  names, headways = names_of(log), headways_of(log)
  counted: dict[tuple[int, str, str, str, int], list[dict[str, Any]]] = defaultdict(list)
  for row in log.events:
    if row["kind"] in COUNTED:
      key = (int(row["time_sec"] // interval_sec), row["kind"], row["name"], row["direction"], row["class"])
      counted[key].append(row)
  lines = []
  for (number, kind, name, direction, label), rows in sorted(counted.items()):
    span = [f"{number * interval_sec:g}", f"{(number + 1) * interval_sec:g}"]
    speed = _mean((row.get("speed_kmh") for row in rows), 1)
    headway = _mean((headways.get(row["event"]) for row in rows), 2)
    lines.append(
      [
        *span,
        *_times(log, number * interval_sec, (number + 1) * interval_sec),
        kind,
        name,
        direction,
        label,
        class_name(names, label),
        len(rows),
        speed,
        headway,
      ]
    )
  return _csv(_columns(log, COUNTS), lines)


def headways_of(log: Log) -> dict[int, float]:
  """Number of an event at a line -> seconds since the event before it at that line in that direction."""
  last: dict[tuple[str, str], float] = {}
  found = {}
  for row in sorted(
    (row for row in log.events if row["kind"] == "line"), key=lambda row: (row["time_sec"], row["event"])
  ):
    key = row["name"], row["direction"]
    if key in last:
      found[row["event"]] = round(row["time_sec"] - last[key], 4)
    last[key] = row["time_sec"]
  return found


def zones_csv(log: Log, interval_sec: float) -> str:
  """See `zones`."""
  columns = _columns(log, ZONES)
  rows = zones(log, interval_sec)
  for row in rows:
    row |= dict(zip(TIMES, _times(log, float(row["from_sec"]), float(row["to_sec"])), strict=False))
  return _csv(columns, [["" if row[key] is None else row[key] for key in columns] for row in rows])


def _columns(log: Log, columns: Sequence[str]) -> tuple[str, ...]:
  """With times of day after the seconds, where the log knows when the video began."""
  return (*columns[:2], *(TIMES if "start" in log.header else ()), *columns[2:])


def _times(log: Log, from_sec: float, to_sec: float) -> list[str]:
  if "start" not in log.header:
    return []
  wall = WallClock(datetime.fromisoformat(log.header["start"]), log.header["time_zone"])
  return [wall.at(from_sec), wall.at(to_sec)]


@dataclasses.dataclass
class _Stay:
  """Of one track in one zone."""

  label: int
  enter: float
  leave: float
  dwell_sec: float | None  # where it came and left over the border
  is_enter_seen: bool
  is_leave_seen: bool


@dataclasses.dataclass
class _Stand:
  label: int
  start: float
  end: float
  place_m: tuple[float, float] | None


def zones(log: Log, interval_sec: float) -> list[dict[str, Any]]:
  """A row for each interval, zone, and class that was in it then, and one for all classes.

  occupied_share: share of the time in which at least one vehicle (of that class) was inside; covered_share: mean share of the
  zone that boxes of all classes cover. Dwells are of vehicles that left in the interval and were seen to come and leave.
  mean_queue is of the number of standing vehicles over the time, longest_queue the most at once, longest_queue_m the longest way from the
  first to the last standing vehicle, without their own lengths. The last interval ends where the frames end.
  """
  found = []
  last = int(log.until_sec // interval_sec)
  for name in (zone["name"] for zone in log.header["scene"]["zones"]):
    stays, stands, covers = _of_zone(log, name)
    for number in range(last + 1):
      begin, bound = number * interval_sec if number else 0.0, (number + 1) * interval_sec
      if number and begin >= log.until_sec and all(stay.leave < begin for stay in stays):
        continue  # the frames end where it begins
      labels = sorted({stay.label for stay in stays if stay.enter < bound and stay.leave >= begin})
      for label in (None, *labels):
        chosen = [[one for one in many if label in (None, one.label)] for many in (stays, stands)]
        row = _row((begin, bound), log.until_sec, *chosen)  # type: ignore[arg-type]
        share = _mean((share for at, share in covers if begin <= at < bound), 4)
        of_all = {"covered_share": share, "covered_of": log.header["cover_of"]}
        row |= of_all if label is None else dict.fromkeys(of_all)
        row |= {
          "from_sec": f"{begin:g}",
          "to_sec": f"{min(bound, log.until_sec):g}",
          "name": name,
          "class": ALL if label is None else label,
        }
        found.append(row | {"class_name": "" if label is None else class_name(names_of(log), label)})
  return found


def _of_zone(log: Log, name: str) -> tuple[list[_Stay], list[_Stand], list[tuple[float, float]]]:
  """Stays and stands of a zone, and the share of it that is covered at times; events of each track are in order."""
  stays, stands, covers = [], [], []
  inside: dict[int, dict[str, Any]] = {}
  standing: dict[int, dict[str, Any]] = {}
  for row in log.events:
    if row["name"] != name:
      continue
    if row["kind"] == "cover":
      covers.append((row["time_sec"], row["share"]))
    if row["kind"] != "zone":
      continue
    match row["direction"]:
      case "enter":
        inside[row["track"]] = row
      case "leave":
        came = inside.pop(row["track"])
        dwell = row["dwell_sec"] if row["dwell_is_whole"] else None
        stays.append(_Stay(row["class"], came["time_sec"], row["time_sec"], dwell, came["seen"], row["seen"]))
      case "stop":
        standing[row["track"]] = row
      case "go":
        began = standing.pop(row["track"])
        place = tuple(began["place_m"]) if "place_m" in began else None
        stands.append(_Stand(row["class"], began["time_sec"], row["time_sec"], place))
  return stays, stands, covers


def _row(interval: Span, until_sec: float, stays: list[_Stay], stands: list[_Stand]) -> dict[str, Any]:
  span = interval[0], min(interval[1], until_sec)
  length = span[1] - span[0]
  came, left = (
    [stay for stay in stays if interval[0] <= at(stay) < interval[1]] for at in (lambda s: s.enter, lambda s: s.leave)
  )
  dwells = [s.dwell_sec for s in left if s.dwell_sec is not None]
  inside = _clipped(((s.enter, s.leave) for s in stays), span)
  standing = sum(b - a for a, b in _clipped(((s.start, s.end) for s in stands), span))
  most, longest = _longest([s for s in stands if s.start < span[1] and s.end > span[0]], span)
  return {
    "came": sum(s.is_enter_seen for s in came),
    "began_inside": sum(not s.is_enter_seen for s in came),
    "left": sum(s.is_leave_seen for s in left),
    "ended_inside": sum(not s.is_leave_seen for s in left),
    "occupied_share": round(_length_of_union(inside) / length, 4) if length else 0.0,
    "mean_dwell_sec": _mean(dwells, 2),
    "longest_dwell_sec": max(dwells, default=None),
    "mean_queue": round(standing / length, 3) if length else 0.0,
    "longest_queue": most,
    "longest_queue_m": longest,
  }


def _longest(stands: list[_Stand], span: Span) -> tuple[int, float | None]:
  """The most that stand at once, and the longest queue in metres; both are reached when somebody stops."""
  most, longest = 0, None
  for one in stands:
    at = max(one.start, span[0])
    queue = [other for other in stands if other.start <= at < other.end]
    most = max(most, len(queue))
    places = np.array([other.place_m for other in queue if other.place_m is not None])
    if len(places):
      reach = float(np.hypot(*(places[:, None] - places[None]).reshape(-1, 2).T).max())
      longest = max(longest or 0.0, round(reach, 1))
  return most, longest


def _clipped(spans: Iterable[Span], to: Span) -> list[Span]:
  return [(max(a, to[0]), min(b, to[1])) for a, b in spans if min(b, to[1]) > max(a, to[0])]


def _length_of_union(spans: list[Span]) -> float:
  total, reached = 0.0, -math.inf
  for a, b in sorted(spans):
    total += max(0.0, b - max(a, reached))
    reached = max(reached, b)
  return total


def _mean(values: Iterable[float | None], digits: int) -> float | None:
  known = [value for value in values if value is not None]
  return round(statistics.fmean(known), digits) if known else None


def _csv(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
  buffer = io.StringIO()
  writer = csv.writer(buffer)
  writer.writerow(columns)
  writer.writerows(lines)
  return buffer.getvalue()
