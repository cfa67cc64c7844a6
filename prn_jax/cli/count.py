"""`prn count`: who crossed which line, and in what direction, and who stayed in which zone."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prn_jax.cli.common import (
  add_json,
  add_lenient,
  add_weights,
  output_folder,
  print_json,
  progress,
)
from prn_jax.cli.frames import NetworkFrames
from prn_jax.cli.track import add_tracking, say_margins, tracker_settings
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path
from prn_jax.track.clock import FPS

if TYPE_CHECKING:
  from prn_jax.track.count_truth import Group
  from prn_jax.track.trackers.named import TrackerSettings
  from prn_jax.track.trackers.tracker import Found

Frame = tuple["Found | None", "str | None", "float | None"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = (
    "prn count MODEL VIDEO OUT --scene FILE [options]\n"
    "       prn count OUT --scene FILE --detections FILE | --tracks FILE | --check FRAME [options]"
  )
  parser.add_argument(
    "places",
    metavar="PLACES",
    nargs="*",
    help="MODEL VIDEO OUT: a detector, a video or a folder of frames, and a folder for the log of events (events.jsonl) and the "
    "totals (counts.csv, zones.csv); OUT alone with --detections, --tracks or --check",
  )
  parser.add_argument(
    "--scene", metavar="FILE", required=True, help="YAML: lines across roads, movements and zones: docs/video.md"
  )
  parser.add_argument(
    "--check", metavar="FRAME", help="draw the scene on this picture (OUT/scene.png) and count nothing"
  )
  parser.add_argument(
    "--tracks", metavar="FILE", help="tracks that `prn track` wrote: MOTChallenge text, also .gz, or .jsonl"
  )
  add_lenient(parser)
  add_weights(parser)
  add_tracking(parser)
  parser.add_argument(
    "--interval",
    type=float,
    default=900.0,
    metavar="SECONDS",
    help="rows of counts.csv and zones.csv span so much time (default 900)",
  )
  parser.add_argument(
    "--truth",
    metavar="FILE",
    help="compare with what is so (.json or .csv: time_sec, name, direction, class): errors and a score",
  )
  parser.add_argument("--all-classes", action="store_true", help="with --truth: tell no classes apart")
  add_json(parser)
  parser.epilog = (
    f"{parser.epilog or ''}\nThe log is only added to. After a kill the same command goes on where it ended; a folder with the "
    "log of another count is refused."
  )


def run(args: argparse.Namespace) -> int:
  out = _out(args)
  if args.all_classes and not args.truth:
    raise PrnError("--all-classes is about what --truth FILE is compared with; give both, or leave it out.")
  if args.check:
    return _check(args, out)
  for option, value in (("--fps", args.fps), ("--interval", args.interval)):
    if value is not None and not 0 < value < float("inf"):
      raise PrnError(f"{option} {value:g}: expected a number above 0.")
  from prn_jax.track import count, count_truth

  done = _count_tracks(args, out) if args.tracks else _count_frames(args, out)
  compared = _compared(args, out) if args.truth else []
  if args.json:
    print_json(done | ({"truth": count_truth.to_dict(compared)} if compared else {}))
  else:
    print(count.text(done))
    if compared:
      print(f"\nagainst {args.truth}:\n{count_truth.text(compared)}")
  kept = f", {done['found_before']} of them from before" if done["found_before"] else ""
  print(f"{done['events']} events of {done['tracks']} tracks{kept}, in {out}/", file=sys.stderr)
  return 0


def _compared(args: argparse.Namespace, out: str) -> list[Group]:
  from prn_jax.track import count_truth, event_log

  log = event_log.read(to_path(out) / event_log.NAME)
  return count_truth.compare(log, count_truth.read(to_path(args.truth), log, args.all_classes))


def _out(args: argparse.Namespace) -> str:
  """The folder; what stands before it is checked."""
  given = [f"--{name}" for name in ("check", "tracks", "detections") if getattr(args, name)]
  if len(given) > 1:
    raise PrnError(f"{' and '.join(given)}: each says what to count in place of the others; give one.")
  before = 0 if given else 2
  if len(args.places) != before + 1:
    shown = " ".join(args.places) or "nothing"
    expected = "OUT alone" if given else "MODEL, a video or a folder of frames, and OUT"
    also = (
      f" with {given[0]}"
      if given
      else "; or OUT and one of --tracks FILE, --detections FILE and --check FRAME, to see the scene"
    )
    raise PrnError(f"got {shown}; expected {expected}{also}.")
  return str(args.places[-1])


def _check(args: argparse.Namespace, out: str) -> int:
  from prn_jax.data_pipelines.images import read_image
  from prn_jax.files.disk import written_beside
  from prn_jax.track import scene
  from prn_jax.track.scene_picture import draw_scene

  picture = draw_scene(read_image(args.check), scene.read(to_path(args.scene)))
  file = output_folder(out, "OUT") / "scene.png"
  with written_beside(file) as opened:
    picture.save(opened, "PNG")
  print(f"scene of {args.scene} on {args.check}: {file}", file=sys.stderr)
  if args.json:
    print_json({"picture": str(file)})
  return 0


def _count_tracks(args: argparse.Namespace, out: str) -> dict[str, Any]:
  from prn_jax.track import count

  names = to_path(args.names) if args.names else None
  given = count.read(to_path(args.tracks), to_path(args.scene), names, args.fps)
  return count.write(given, output_folder(out, "OUT"), args.interval)


def _count_frames(args: argparse.Namespace, out: str) -> dict[str, Any]:
  """Boxes of a file or of a network are followed and counted as they come."""
  from prn_jax.files.disk import sha256
  from prn_jax.track import count, event_log, scene
  from prn_jax.track.count_live import LiveCount
  from prn_jax.track.follow import Follower

  settings = tracker_settings(args)
  view = scene.read(to_path(args.scene))
  opened = _detections(args) if args.detections else _network(args, settings)
  view = view.of_classes(opened.names)
  folder = output_folder(out, "OUT")
  header = opened.header | {"scene_sha256": sha256(to_path(args.scene)), "tracker": dataclasses.asdict(settings)}
  follower = Follower(settings, opened.fps, opened.names)
  with event_log.Writer(folder / event_log.NAME, header | count.said_of(view, opened.names)) as log:
    counting = LiveCount(view, log, args.max_lost, opened.fps)
    for found, name, time_sec in progress(opened.frames, opened.count, "frames"):
      rows = follower.add(found, name, time_sec)
      if found is not None:
        counting.add(rows, follower.num_frames, follower.last_sec)
    opened.check(follower.num_frames)
    counting.end()
  return count.totals(folder, args.interval, log.found_before)


@dataclasses.dataclass
class _Opened:
  """Frames with their boxes.

  Attributes:
    frames: boxes (None: the frame could not be read), name and time.
    count: how many; 0 where that is not known.
    fps: frames a second.
    names: names of the classes.
    header: what tells this count from others.
    check: called with the number of frames at the end; raises, or says, what was wrong with them.
  """

  frames: Iterator[Frame]
  count: int
  fps: float
  names: tuple[str, ...]
  header: dict[str, Any]
  check: Any = staticmethod(lambda number: None)


def _detections(args: argparse.Namespace) -> _Opened:
  from prn_jax.files.disk import sha256
  from prn_jax.labels import read_names
  from prn_jax.track import motchallenge
  from prn_jax.track.follow import found_of_frames

  file = to_path(args.detections)
  frames, are_margins = found_of_frames(motchallenge.read(file))
  if are_margins:
    say_margins(args, "count")
  names = tuple(read_names(to_path(args.names))) if args.names else ()
  fps = args.fps or FPS
  header = {"detections_sha256": sha256(file), "fps": fps}
  return _Opened(((found, None, None) for found in frames), len(frames), fps, names, header)


def _network(args: argparse.Namespace, settings: TrackerSettings) -> _Opened:
  from prn_jax.track.follow import found_of

  args.model, source = args.places[:2]
  frames = NetworkFrames("count", args, source, settings)
  found = ((one if one is None else found_of(one), name, time_sec) for one, name, time_sec in frames.results())
  header: dict[str, Any] = {
    "source": _said_of(source),
    "model": _said_of(args.model),
    "weights": _said_of(args.weights),
  }
  header |= {"options": dataclasses.asdict(frames.options), "fps": frames.fps}
  return _Opened(found, frames.count, frames.fps, frames.names, header, frames.check)


def _said_of(place: str | None) -> dict[str, Any] | None:
  """What tells a file, or the files of a folder, from others: sha256 of a file, names and sizes of those of a folder."""
  import hashlib

  from prn_jax.files.disk import is_file, is_folder, sha256
  from prn_jax.track.live import without_password

  if place is None:
    return None
  if is_file(Path(place)):
    return {"name": Path(place).name, "sha256": sha256(to_path(place))}
  if is_folder(Path(place)):
    root = Path(place)
    files = sorted(f"{file.relative_to(root)} {file.stat().st_size}" for file in root.rglob("*") if file.is_file())
    return {"name": root.name, "files_sha256": hashlib.sha256("\n".join(files).encode()).hexdigest()}
  return {"name": without_password(place)}
