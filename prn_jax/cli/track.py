"""`prn track`: objects followed through the frames of a video."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from prn_jax import interrupts
from prn_jax.cli.common import (
  add_backend,
  add_json,
  add_lenient,
  add_weights,
  print_json,
  progress,
)
from prn_jax.cli.frames import NetworkFrames
from prn_jax.cli.predict import add_detection, add_privacy
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path
from prn_jax.track.clock import FPS

if TYPE_CHECKING:
  from collections.abc import Callable

  from prn_jax.track.follow import Follower
  from prn_jax.track.picture import TrackPictures
  from prn_jax.track.trackers.named import TrackerSettings

DEFAULT_OUT = "tracks.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = (
    "prn track MODEL VIDEO|FRAMES [OUT.txt] [options]\n       prn track --detections FILE [OUT.txt] [options]"
  )
  parser.add_argument(
    "sources",
    metavar="PLACES",
    nargs="*",
    help="MODEL VIDEO [OUT.txt]: a detector, a video or a folder of frames (or a list of them, .txt), and the file of tracks to write (default: "
    f"{DEFAULT_OUT}); with --detections OUT.txt alone",
  )
  add_lenient(parser)
  add_weights(parser)
  add_tracking(parser)
  add_privacy(parser)
  parser.add_argument(
    "--inside",
    metavar="MODEL2",
    help="a second detector, of number plates for instance, looks inside the objects; the best find of each is in OUT_inside/",
  )
  parser.add_argument("--inside-weights", metavar="FILE", help="Darknet weights, or a saved model, for MODEL2")
  parser.add_argument(
    "--read",
    metavar="NAME",
    help="read what --inside finds, by a function of an extension (docs/extending.md); off by default",
  )
  parser.add_argument(
    "--save",
    metavar="KINDS",
    default="txt",
    help="comma list of txt, jsonl (a line for every frame), video (with boxes, ids and trails: OUT.mp4) and crops (the best "
    "picture of every object: OUT_crops/); default txt",
  )
  add_json(parser)
  parser.epilog = (
    f"{parser.epilog or ''}\nOUT.txt is MOTChallenge text: frame, id, left, top, width, height, score, class from 1 "
    "(-1: not known). A frame that cannot be read is passed over, and said."
  )


def add_tracking(parser: argparse.ArgumentParser) -> None:
  """Options that decide what is followed; shared with count."""
  parser.add_argument(
    "--detections", metavar="FILE", help="follow the boxes of a file instead of a model's: MOTChallenge text, also .gz"
  )
  parser.add_argument(
    "--tracker", metavar="NAME", default="bytetrack", help="bytetrack (default), ocsort or sort: docs/video.md"
  )
  parser.add_argument(
    "--fps", type=float, metavar="X", help=f"frames a second (default {FPS:g}; a video has times of its own)"
  )
  parser.add_argument(
    "--max-lost",
    type=float,
    default=1.0,
    metavar="SECONDS",
    help="after this an object that is not seen again is given up (default 1)",
  )
  parser.add_argument(
    "--per-class",
    action="store_true",
    help="an object keeps to boxes of one class (default: its class may change, and boxes of different classes suppress each other)",
  )
  add_detection(parser, conf=0.5)
  parser.add_argument(
    "--classes",
    metavar="NAME|ID,...",
    help="follow boxes of these classes alone: names or numbers, with commas between",
  )
  parser.add_argument("--batch", type=int, default=1, metavar="N", help="frames per run of the network (default 1)")
  add_backend(parser)


def tracker_settings(args: argparse.Namespace) -> TrackerSettings:
  """The settings that `add_tracking` describes, checked."""
  from prn_jax.track.trackers.named import TrackerSettings

  if args.fps is not None and not 0 < args.fps < float("inf"):
    raise PrnError(f"--fps {args.fps:g}: expected frames a second, above 0.")
  if args.batch < 1:
    raise PrnError(f"--batch {args.batch}: expected at least 1.")
  return TrackerSettings(tracker=args.tracker, conf=args.conf, max_lost_sec=args.max_lost, is_per_class=args.per_class)


def run(args: argparse.Namespace) -> int:
  from prn_jax.track.follow import PICTURES, parse_kinds

  kinds = parse_kinds(args.save)
  pictured = [kind for kind in kinds if kind in PICTURES]
  _check_pictures(args, pictured)
  settings = tracker_settings(args)
  out = _out(args)
  began = time.perf_counter()

  def save(done: Follower, pictures: TrackPictures | None = None) -> None:
    _save(args, done, pictures, out, kinds, began)

  if args.detections:
    follower, failures = _detections(args, settings, save)
  else:
    follower, failures = _model(args, settings, save, lambda fps: _pictures(args, out, pictured, fps))
  if args.json:
    counts = {"frames": follower.num_frames, "tracks": len(follower.ids), "boxes": follower.num_boxes}
    print_json(counts | {"out": out, "failures": failures, "seconds": time.perf_counter() - began})
  return 0


def _out(args: argparse.Namespace) -> str:
  """The file of tracks; what stands before it is checked."""
  before = [] if args.detections else ["MODEL", "VIDEO"]
  given = len(args.sources)
  if given < len(before) or given > len(before) + 1:
    expected = "OUT.txt alone" if args.detections else "MODEL, a video or a folder of frames, and perhaps OUT.txt"
    shown = " ".join(args.sources) or "nothing"
    also = "" if args.detections else "; or --detections FILE for boxes that were found before"
    raise PrnError(f"got {shown}; expected {expected}{also}.")
  out = args.sources[-1] if given > len(before) else DEFAULT_OUT
  if not out.endswith((".txt", ".txt.gz")):
    raise PrnError(f"cannot write tracks to '{out}': expected the name of a file that ends in .txt or .txt.gz.")
  return str(out)


def _check_pictures(args: argparse.Namespace, pictured: list[str]) -> None:
  """Raises PrnError for options that need pictures where there are none, or that need each other."""
  if args.detections and (pictured or args.blur_classes or args.inside):
    options = {f"--save {','.join(pictured)}": pictured, f"--blur-classes {args.blur_classes}": args.blur_classes}
    what = next((name for name, value in options.items() if value), f"--inside {args.inside}")
    raise PrnError(f"{what}: boxes of a file have no pictures; give MODEL and a video in place of --detections.")
  for option in ("inside_weights", "read"):
    if getattr(args, option) and not args.inside:
      raise PrnError(
        f"--{option.replace('_', '-')} {getattr(args, option)} is given without --inside. Say with --inside MODEL2 which network "
        "looks inside the objects."
      )


def _pictures(args: argparse.Namespace, out: str, kinds: list[str], fps: float) -> TrackPictures | None:
  from prn_jax.track.picture import TrackPictures

  if not kinds and not args.inside:
    return None
  read, inside = None, None
  if args.inside:
    from prn_jax.loading import load
    from prn_jax.run.detector import DetectOptions, Detector
    from prn_jax.track.readers import reader

    read = reader(args.read) if args.read else None
    model = load(args.inside, args.inside_weights)
    if not model.has_weights:
      raise PrnError(
        f"'{args.inside}' has no weights, so what it finds would be random. Give them with --inside-weights FILE."
      )
    inside = Detector(model, DetectOptions(max_detections=1))
  return TrackPictures(to_path(out), kinds, fps, args.max_lost, inside, read)


def _save(
  args: argparse.Namespace,
  follower: Follower,
  pictures: TrackPictures | None,
  out: str,
  kinds: tuple[str, ...],
  began: float,
) -> None:
  """Writes the files, and says so; also after Ctrl-C."""
  with interrupts.hold():
    files = follower.save(to_path(out), kinds)
    told = pictures.finish() if pictures else []
  where = f", in {' and '.join(map(str, files))}" if files else ""
  print(
    f"{args.tracker}: {len(follower.ids)} tracks, {follower.num_boxes} boxes in {follower.num_frames} frames, "
    f"{time.perf_counter() - began:.1f} s{where}",
    file=sys.stderr,
  )
  for text in told:
    print(f"prn track: {text}", file=sys.stderr)


def _detections(args: argparse.Namespace, settings: TrackerSettings, save: Any) -> tuple[Follower, list[Any]]:
  from prn_jax.track import motchallenge
  from prn_jax.track.follow import Follower, found_of_frames

  frames, are_margins = found_of_frames(motchallenge.read(to_path(args.detections)))
  if are_margins:
    say_margins(args, "track")
  follower = Follower(settings, args.fps or FPS)
  try:
    for found in progress(frames, len(frames), "frames"):
      follower.add(found)
  finally:
    save(follower)
  return follower, []


def say_margins(args: argparse.Namespace, command: str) -> None:
  print(
    f"prn {command}: scores of {args.detections} are no probabilities; each counts as 1 / (1 + exp(-score))",
    file=sys.stderr,
  )


def _model(
  args: argparse.Namespace, settings: TrackerSettings, save: Any, pictures_at: Callable[[float], TrackPictures | None]
) -> tuple[Follower, list[Any]]:
  from prn_jax.track.follow import Follower, found_of

  args.model, source = args.sources[:2]
  frames = NetworkFrames("track", args, source, settings)
  pictures = pictures_at(frames.fps)
  follower = Follower(settings, frames.fps, frames.names)
  try:
    for found, name, time_sec in progress(frames.results(keep_images=pictures is not None), frames.count, "frames"):
      rows = follower.add(None if found is None else found_of(found), name, time_sec)
      if pictures and found is not None and found.image is not None:
        pictures.add(found.image, rows, follower.num_frames, follower.last_sec)
  finally:
    save(follower, pictures)
  frames.check(follower.num_frames)
  return follower, frames.failures
