"""`prn data video`: a drawn video of a road, with everything that is to be found in it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from prn_jax.cli.common import add_json, parse_size, print_json, progress_bar
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path

SUMMARY = "draw a video of a road, with exact tracks, counts and speeds"
EXAMPLE = "prn data video film --seconds 30 --rain --stop-and-go"
RESULT = (
  "Writes img1/ (frames), gt.txt (MOTChallenge truth for `prn eval --tracks`), scene.yaml (a line to count at), truth.json\n"
  "(every crossing of it, with time and speed) and seqinfo.ini. Equal options give equal videos on every machine."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("out", metavar="OUT", help="folder to write to, new or empty")
  parser.add_argument("--seed", type=int, default=0, metavar="N", help="another road and other traffic (default 0)")
  parser.add_argument("--seconds", type=float, default=20.0, metavar="X", help="length (default 20)")
  parser.add_argument(
    "--fps", type=float, default=12.5, metavar="X", help="frames a second, a divisor of 25 (default 12.5)"
  )
  parser.add_argument("--size", default="640x360", metavar="WxH", help="of the frames in pixels (default 640x360)")
  parser.add_argument(
    "--flow", type=float, default=15.0, metavar="X", help="vehicles a minute that come to each lane (default 15)"
  )
  parser.add_argument("--night", action="store_true", help="in the dark, with lamps")
  parser.add_argument("--rain", action="store_true", help="streaks of rain in front of everything")
  parser.add_argument("--shake", type=float, default=0.0, metavar="PX", help="the camera trembles by up to PX pixels")
  parser.add_argument("--stop-and-go", action="store_true", help="a traffic light, at which vehicles wait")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.traffic.video import VideoSettings
  from prn_jax.track.film import write_film

  if args.seed < 0:
    raise PrnError(f"--seed {args.seed}: expected at least 0.")
  width, height = parse_size(args.size)
  settings = VideoSettings(
    width=width, height=height, fps=args.fps, seconds=args.seconds, flow=args.flow, night=args.night, rain=args.rain,
    shake_px=args.shake, stop_and_go=args.stop_and_go,
  )  # fmt: skip
  with progress_bar(settings.num_frames, "frames") as advance:
    found: dict[str, Any] = write_film(to_path(args.out), args.seed, settings, advance)
  counts = ", ".join(f"{count} {direction}" for direction, count in found["counts"].items())
  print(
    f"wrote {args.out}: {found['frames']} frames; over the line go {counts}",
    file=sys.stderr if args.json else sys.stdout,
  )
  if args.json:
    print_json({"out": args.out} | found)
  return 0
