"""`prn data`: looks at annotated data, prepares it for training, and clusters anchors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from prn_jax.cli.common import add_json, print_json, progress
from prn_jax.errors import PrnError

MOST_LISTED = 20
SPEC_HELP = """SPEC is KIND:PATHS, one of
  coco:ANNOTATIONS.json:IMAGES_DIR   voc:VOCROOT:SPLIT          darknet:FILE.data:train|valid
  yolo:DATA.yaml:SPLIT               imagefolder:DIR            (or a .zip, .tar, .tar.gz of such a folder)
  arrayrecord:DIR:SPLIT              tfds:NAME:SPLIT            synthetic:traffic:N or N@valid"""
EXAMPLES = """Examples:
  prn data inspect voc:VOCdevkit/VOC2007:trainval --out look
  prn data prepare coco:instances_train2017.json:train2017 prepared --max-side 608
  prn data anchors arrayrecord:prepared:train --num 6 --size 416x416"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = f"{EXAMPLES}\n\n{SPEC_HELP}"
  actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
  _add_prepare(_action(actions, "prepare", "write any source as sharded ArrayRecord, with images at their final size"))


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
  parser: argparse.ArgumentParser = actions.add_parser(
    name,
    help=text,
    description=f"{text[0].upper()}{text[1:]}.",
    epilog=SPEC_HELP,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("spec", metavar="SPEC", help="the data, as KIND:PATHS")
  return parser


def _add_policy(parser: argparse.ArgumentParser, default: str) -> None:
  parser.add_argument(
    "--on-bad-data",
    choices=("stop", "skip"),
    default=default,
    help=f"stop at bad data, or skip, count and list it (default {default})",
  )


def _add_prepare(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("out", metavar="OUT", help="folder to write to; may hold other splits of the same classes")
  parser.add_argument(
    "--split", metavar="NAME", help="name of the split (default: the one that SPEC names, else train)"
  )
  sizes = parser.add_mutually_exclusive_group()
  sizes.add_argument("--size", metavar="WxH", help="every image gets this size, whatever its aspect")
  sizes.add_argument("--max-side", type=int, metavar="N", help="shrink so that the longer side is at most N pixels")
  sizes.add_argument("--min-side", type=int, metavar="N", help="shrink so that the shorter side is at most N pixels")
  parser.add_argument("--format", choices=("jpeg", "png"), default="jpeg", help="of the images (default jpeg)")
  parser.add_argument("--quality", type=int, default=95, metavar="Q", help="of JPEG, 1 to 100 (default 95)")
  parser.add_argument("--shards", type=int, metavar="N", help="number of files (default: one for every 2000 images)")
  parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per core)")
  _add_policy(parser, "stop")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  return {"prepare": _prepare}[args.action](args)


def _prepare(args: argparse.Namespace) -> int:
  from data_pipelines.prepare import prepare
  from data_pipelines.shrink import ShrinkOptions

  if args.workers is not None and args.workers < 1:
    raise PrnError(f"--workers {args.workers}: expected at least 1.")
  options = ShrinkOptions(
    size=_size(args.size) if args.size else None,
    max_side=args.max_side,
    min_side=args.min_side,
    image_format=args.format,
    quality=args.quality,
  )
  done = prepare(
    args.spec,
    args.out,
    split=args.split,
    options=options,
    num_shards=args.shards,
    num_threads=args.workers,
    on_bad_data=args.on_bad_data,
    progress=_bar,
  )
  _list_problems(done.left_out, done.problems)
  kept = f", {done.num_kept} of them from an earlier run" if done.num_kept else ""
  print(
    f"{done.num_records:,} images in {done.num_shards} shards ({done.num_bytes / 1e6:,.1f} MB){kept}\n"
    f"use it as {done.spec}",
    file=sys.stderr if args.json else sys.stdout,
  )
  if args.json:
    print_json(
      {
        "spec": done.spec,
        "images": done.num_records,
        "shards": done.num_shards,
        "shards_kept": done.num_kept,
        "bytes": done.num_bytes,
        "left_out": done.left_out,
        "problems": done.problems,
      }
    )
  return 0


def _bar(items: Iterable[Any], total: int) -> Iterable[Any]:
  return progress(items, total, "images")


def _size(text: str) -> tuple[int, int]:
  width, _, height = text.lower().partition("x")
  if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
    raise PrnError(f"--size {text}: expected WIDTHxHEIGHT in pixels, for example 416x416.")
  return int(width), int(height)


def _list_problems(counts: dict[str, int], problems: Iterable[str]) -> None:
  """Counts all problems and lists the first ones on stderr."""
  listed = list(problems)
  if not listed:
    return
  print(f"left out: {', '.join(f'{n} {kind}' for kind, n in counts.items())}", file=sys.stderr)
  for text in listed[:MOST_LISTED]:
    print(f"  {text}", file=sys.stderr)
  if len(listed) > MOST_LISTED:
    print(f"  ... and {len(listed) - MOST_LISTED:,} more (--json lists all)", file=sys.stderr)
