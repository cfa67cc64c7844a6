"""`prn bench`: how fast things are. Each mode is an option of its own, and a file of `prn_jax.bench`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from prn_jax.cli.common import add_json, add_lenient, add_weights, load_model, print_json, progress, start_computing
from prn_jax.errors import PrnError

if TYPE_CHECKING:
  from prn_jax.model import Model

MODES = ("system",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = "prn bench --system MODEL... VIDEO|PHOTOS [options]"
  parser.add_argument(
    "sources", metavar="PLACES", nargs="*", help="MODEL... VIDEO: detectors, then a video or a folder of photos"
  )
  parser.add_argument(
    "--system",
    action="store_true",
    help="the whole path from file to count, and each of its stages alone: decode, resize, network, boxes, tracking, counting, drawing",
  )
  add_lenient(parser)
  add_weights(parser)
  parser.add_argument("--conf", type=float, default=0.5, metavar="X", help="score threshold (default 0.5)")
  parser.add_argument("--batch", type=int, default=1, metavar="N", help="frames per run of the network (default 1)")
  parser.add_argument("--frames", type=int, default=100, metavar="N", help="look at the first N frames (default 100)")
  parser.add_argument(
    "--rounds", type=int, default=3, metavar="N", help="measure so often, and take the fastest (default 3)"
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  if not any(getattr(args, mode) for mode in MODES):
    raise PrnError("nothing to measure: give --system, for the whole path from a video to a count.")
  return _system(args)


def _system(args: argparse.Namespace) -> int:
  from prn_jax.bench.system import SystemBench, table
  from prn_jax.run.detector import DetectOptions, Detector
  from prn_jax.run.latency import measured_on
  from prn_jax.track.live import WEB, is_live
  from prn_jax.track.source import open_source

  *names, source = args.sources or [""]
  if not names:
    raise PrnError(
      f"got {source or 'nothing'}; expected MODEL, perhaps more of them, and a video or a folder of photos."
    )
  if is_live(source) or source.startswith(WEB):
    raise PrnError(
      f"'{source}' sets its own pace, so nothing can be measured with it; give a video file or a folder of photos."
    )
  if args.weights and len(names) > 1:
    raise PrnError(f"--weights {args.weights}: {len(names)} networks cannot share weights; measure one at a time.")
  for option in ("batch", "frames", "rounds"):
    if getattr(args, option) < 1:
      raise PrnError(f"--{option} {getattr(args, option)}: expected at least 1.")
  open_source(source, None, _say)  # a wrong one is told before anything is compiled
  start_computing("bench")
  speeds, frames = {}, 0
  for name in progress(names, len(names), "networks"):
    network = Detector(_loaded(args, name), DetectOptions(conf=args.conf), args.batch)
    bench = SystemBench(network, lambda: open_source(source, None, _say), args.frames)
    speeds[name], frames = bench.measure(args.rounds), bench.num_frames
  about: dict[str, Any] = {"source": source, "frames": frames, "batch": args.batch, "rounds": args.rounds}
  if args.json:
    print_json(about | {"measured_on": measured_on(), "networks": {k: v.to_dict() for k, v in speeds.items()}})
  else:
    print(table(speeds))
    print(f"{frames} frames of {source}, batch {args.batch}, fastest of {args.rounds} rounds; {measured_on()}")
  return 0


def _loaded(args: argparse.Namespace, name: str) -> Model:
  """The network; with random weights where it has none, which is said: they do not change its time."""
  args.model = name
  model = load_model(args)
  if not model.has_weights:
    _say(
      f"'{name}' has no weights: random ones take its place. Its boxes, and the times of what follows them, mean nothing"
    )
  return model


def _say(text: str) -> None:
  print(f"prn bench: {text}", file=sys.stderr)
