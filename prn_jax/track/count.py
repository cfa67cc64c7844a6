"""A count from beginning to end: tracks and a scene in, a log of events and a table of totals out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.files.disk import sha256, write_text
from prn_jax.labels import read_names
from prn_jax.track import event_log, motchallenge, report, scene, tables, track_lines, zones
from prn_jax.track.clock import FPS, Clock
from prn_jax.track.counting import base_of, by_track, events_of_track, in_order
from prn_jax.track.event_log import Writer
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.scene import Scene
from prn_jax.track.zones import Cover

PATH_STEP_SEC = 1.0  # between the places of a track that the log keeps
_SIZES = {"events": event_log.COUNTED, "tracks": ("track",)}


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
  """What is counted.

  Attributes:
    tracks: boxes with ids.
    scene: lines and movements.
    names: names of the classes, class 1 first; may be empty.
    clock: when frames are.
    header: the first line of the log.
  """

  tracks: BoxTable
  scene: Scene
  names: tuple[str, ...]
  clock: Clock
  header: dict[str, Any]


def read(tracks: Path, scene_file: Path, names: Path | None, fps: float | None) -> Given:
  """Reads all that is counted.

  Args:
    tracks: MOTChallenge text, or JSON lines, which have times of their own.
    scene_file: see `scene.read`.
    names: a file of class names, in place of those of JSON lines.
    fps: frames a second of MOTChallenge text; None is `FPS`.

  Raises:
    PrnError: a file cannot be read; see `motchallenge.read`, `track_lines.read` and `scene.read`; an id is twice in a frame; `fps`
      is given for tracks that have times.
  """
  if tracks.name.endswith(track_lines.SUFFIX):
    if fps is not None:
      raise PrnError(f"--fps {fps:g}: the frames of '{tracks}' have times of their own; leave it out.")
    table, clock, known = track_lines.read(tracks)
    times: dict[str, Any] = {"times": "of the tracks"}
  else:
    table, clock, known = motchallenge.read(tracks), Clock(fps or FPS), ()
    times = {"fps": clock.fps}
  lines = scene.read(scene_file)
  table.check_ids()
  labels = read_names(names) if names else known
  header = {"tracks_sha256": sha256(tracks), "scene_sha256": sha256(scene_file), **times}
  lines = lines.of_classes(labels)
  return Given(table, lines, labels, clock, header | said_of(lines, labels))


def said_of(lines: Scene, labels: Sequence[str]) -> dict[str, Any]:
  """What the first line of a log says of scene and classes, for tables to be made of the log alone."""
  wall = {"start": lines.wall.start.isoformat(), "time_zone": lines.wall.zone} if lines.wall else {}
  return {"class_names": list(labels), "cover_of": lines.cover_of, "scene": lines.to_dict(), **wall}


def write(given: Given, out: Path, interval_sec: float) -> dict[str, Any]:
  """Brings the log in a folder up to date and writes the totals that follow from it.

  Returns:
    see `totals`.

  Raises:
    EventLogError: the folder holds the log of another count.
  """
  times, rows = rows_of_all(given)
  with Writer(out / event_log.NAME, given.header) as log:
    for row in rows:
      log.add(given.scene.timed(row))
    log.end(times[-1] if len(times) else 0.0)
  return totals(out, interval_sec, log.found_before)


def rows_of_all(given: Given) -> tuple[np.ndarray, list[dict[str, Any]]]:
  """The times of the frames, and all rows of the log, by time."""
  tracks, clock = given.tracks, given.clock
  frames = np.arange(1, int(tracks.frames.max(initial=0)) + 1) if clock.frames is None else clock.frames.astype(int)
  times = np.asarray(clock(frames), float)
  rows = [row for one in by_track(tracks) for row in rows_of_track(one, given.scene, clock)]
  if given.scene.zones:
    cover, order = Cover(given.scene), np.argsort(tracks.frames, kind="stable")
    starts, ends = (np.searchsorted(tracks.frames[order], frames, side=side) for side in ("left", "right"))
    boxes = tracks.boxes_xyxy_px[order]
    for frame, time_sec, start, end in zip(frames.tolist(), times.tolist(), starts, ends, strict=True):
      rows += cover.add(frame, time_sec, boxes[start:end])
  return times, sorted(rows, key=in_order)


def rows_of_track(track: BoxTable, scene: Scene, clock: Clock) -> list[dict[str, Any]]:
  """The rows of the log that one track gives, by time; the last says where it was, once a second."""
  base = base_of(track)
  rows = events_of_track(track, scene, clock, base) + zones.events_of_track(track, scene, clock, base)
  times, points = np.asarray(clock(track.frames), float), scene.points(track.boxes_xyxy_px)
  seconds = np.arange(times[0], times[-1] + 1e-9, PATH_STEP_SEC)
  path = np.column_stack([np.interp(seconds, times, points[:, axis]) for axis in (0, 1)]).round(1)
  when = {"frame": int(track.frames[-1]), "time_sec": round(float(times[-1]), 4), "from_sec": round(float(times[0]), 4)}
  rows.append({"kind": "track", "name": "", "direction": ""} | base | when | {"path_px": path.tolist()})
  return sorted(rows, key=in_order)


def totals(out: Path, interval_sec: float, found_before: int = 0) -> dict[str, Any]:
  """Writes the tables and the page that follow from the log in a folder.

  Returns:
    "totals", a list of rows over all time; "zones", one row for each zone; "events", "tracks", and "found_before", events that the log
    held already.
  """
  log = event_log.read(out / event_log.NAME)
  write_text(out / "counts.csv", tables.counts(log, interval_sec))
  zone_rows = tables.zones(log, float("inf"))
  if zone_rows:
    write_text(out / "zones.csv", tables.zones_csv(log, interval_sec))
  write_text(out / report.FILE, report.page(log, interval_sec))
  names = tables.names_of(log)
  counted = [
    {"kind": kind, "name": name, "direction": direction, "class": label, "class_name": tables.class_name(names, label)}
    | {"count": number}
    for (kind, name, direction, label), number in sorted(event_log.totals(log.events).items())
  ]
  sizes = {kind: sum(row["kind"] in kinds for row in log.events) for kind, kinds in _SIZES.items()}
  return {"totals": counted, "zones": zone_rows, **sizes, "found_before": found_before, "out": str(out)}


def text(done: Mapping[str, Any]) -> str:
  """The totals as a table for people."""
  rows = [("what", "name", "direction", "class", "count")]
  for row in done["totals"]:
    shown = tables.shown_class(row["class_name"], row["class"])
    rows.append((row["kind"], row["name"], row["direction"], shown, str(row["count"])))
  return tables.aligned(rows)
