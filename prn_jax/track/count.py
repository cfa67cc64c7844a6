"""A count from beginning to end: tracks and a scene in, a log of events and a table of totals out."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.files.disk import sha256, write_text
from prn_jax.labels import read_names
from prn_jax.track import event_log, motchallenge, scene, track_lines
from prn_jax.track.clock import FPS, Clock
from prn_jax.track.counting import events
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.scene import Scene

COLUMNS = ("from_sec", "to_sec", "kind", "name", "direction", "class", "class_name", "count", "mean_kmh")


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
  header = {"tracks_sha256": sha256(tracks), "scene_sha256": sha256(scene_file), **times}
  return Given(table, lines, read_names(names) if names else known, clock, header)


def write(given: Given, out: Path, interval_sec: float) -> dict[str, Any]:
  """Brings the log in a folder up to date and writes the totals that follow from it.

  Returns:
    "totals", a list of rows over all time; "events", "tracks", and "found_before", events that the log held already.

  Raises:
    EventLogError: the folder holds the log of another count.
  """
  log = out / event_log.NAME
  there = event_log.complete(log, given.header, events(given.tracks, given.scene, given.clock))
  found = event_log.read(log)
  write_text(out / "counts.csv", table(found, interval_sec, given.names))
  totals = [
    {"kind": kind, "name": name, "direction": direction, "class": label, "class_name": _name(given.names, label)}
    | {"count": number}
    for (kind, name, direction, label), number in sorted(event_log.totals(found).items())
  ]
  before = min(max(there - 1, 0), len(found))
  sizes = {"events": len(found), "tracks": len(np.unique(given.tracks.ids)), "found_before": before}
  return {"totals": totals, **sizes, "out": str(out)}


def table(found: list[dict[str, Any]], interval_sec: float, names: tuple[str, ...]) -> str:
  """The totals of each interval as CSV; intervals, and kinds of event in them, without any have no row. The mean of the speeds
  is empty where none is known."""
  counted: dict[tuple[int, str, str, str, int], list[float | None]] = defaultdict(list)
  for row in found:
    key = (int(row["time_sec"] // interval_sec), row["kind"], row["name"], row["direction"], row["class"])
    counted[key].append(row.get("speed_kmh"))
  buffer = io.StringIO()
  writer = csv.writer(buffer)
  writer.writerow(COLUMNS)
  for (number, kind, name, direction, label), speeds in sorted(counted.items()):
    span = [f"{number * interval_sec:g}", f"{(number + 1) * interval_sec:g}"]
    known = [speed for speed in speeds if speed is not None]
    mean = f"{statistics.fmean(known):.1f}" if known else ""
    writer.writerow([*span, kind, name, direction, label, _name(names, label), len(speeds), mean])
  return buffer.getvalue()


def _name(names: tuple[str, ...], label: int) -> str:
  return names[label - 1] if 1 <= label <= len(names) else ""


def text(done: Mapping[str, Any]) -> str:
  """The totals as a table for people."""
  rows = [("what", "name", "direction", "class", "count")]
  for row in done["totals"]:
    shown = row["class_name"] or ("unknown" if row["class"] < 1 else f"class {row['class']}")
    rows.append((row["kind"], row["name"], row["direction"], shown, str(row["count"])))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
  )
