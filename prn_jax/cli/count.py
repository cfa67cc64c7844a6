"""`prn count`: who crossed which line, and in what direction, from tracks."""

from __future__ import annotations

import argparse
import sys

from prn_jax.cli.common import add_json, output_folder, print_json
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path
from prn_jax.track.clock import FPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "out", metavar="OUT", help="folder for the log of events (events.jsonl) and the totals (counts.csv)"
  )
  parser.add_argument(
    "--scene", metavar="FILE", required=True, help="YAML: lines across roads, and movements: docs/video.md"
  )
  parser.add_argument(
    "--check", metavar="FRAME", help="draw the scene on this picture (OUT/scene.png) and count nothing"
  )
  parser.add_argument(
    "--tracks", metavar="FILE", help="tracks that `prn track` wrote: MOTChallenge text, also .gz, or .jsonl"
  )
  parser.add_argument("--names", metavar="FILE", help="class names, one per line; the first is class 1 of the tracks")
  parser.add_argument(
    "--fps", type=float, metavar="X", help=f"frames a second (default {FPS:g}; .jsonl has times of its own)"
  )
  parser.add_argument(
    "--interval",
    type=float,
    default=900.0,
    metavar="SECONDS",
    help="rows of counts.csv span so much time (default 900)",
  )
  add_json(parser)
  parser.epilog = (
    f"{parser.epilog or ''}\nThe log is only added to. After a kill the same command goes on where it ended; a folder with the "
    "log of another count is refused."
  )


def run(args: argparse.Namespace) -> int:
  if args.check:
    return _check(args)
  return _count(args)


def _check(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.images import read_image
  from prn_jax.files.disk import written_beside
  from prn_jax.track import scene
  from prn_jax.track.scene_picture import draw_scene

  picture = draw_scene(read_image(args.check), scene.read(to_path(args.scene)))
  file = output_folder(args.out, "OUT") / "scene.png"
  with written_beside(file) as opened:
    picture.save(opened, "PNG")
  print(f"scene of {args.scene} on {args.check}: {file}", file=sys.stderr)
  if args.json:
    print_json({"picture": str(file)})
  return 0


def _count(args: argparse.Namespace) -> int:
  from prn_jax.track import count

  if not args.tracks:
    raise PrnError(
      "nothing to count: give tracks with --tracks FILE, or a picture with --check FRAME to see the scene."
    )
  for option, value in (("--fps", args.fps), ("--interval", args.interval)):
    if value is not None and not 0 < value < float("inf"):
      raise PrnError(f"{option} {value:g}: expected a number above 0.")
  names = to_path(args.names) if args.names else None
  given = count.read(to_path(args.tracks), to_path(args.scene), names, args.fps)
  out = output_folder(args.out, "OUT")
  done = count.write(given, out, args.interval)
  if args.json:
    print_json(done)
  else:
    print(count.text(done))
  kept = f", {done['found_before']} of them from before" if done["found_before"] else ""
  print(f"{done['events']} events of {done['tracks']} tracks{kept}, in {out}/", file=sys.stderr)
  return 0
