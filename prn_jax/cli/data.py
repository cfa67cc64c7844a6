"""`prn data`: looks at annotated data, examines, prepares and converts it, and clusters anchors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prn_jax.cli import data_anchors, data_doctor, data_video
from prn_jax.cli.common import add_json, output_folder, parse_size, print_json, progress
from prn_jax.errors import PrnError
from prn_jax.files.json_text import json_text

if TYPE_CHECKING:
  from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions
  from prn_jax.data_pipelines.records import Dataset

MOST_LISTED = 20
EXAMPLES = {
  "inspect": "prn data inspect voc:VOCdevkit/VOC2007:trainval --out look",
  "doctor": data_doctor.EXAMPLE,
  "prepare": "prn data prepare coco:instances_train2017.json:train2017 prepared --max-side 608",
  "convert": "prn data convert voc:VOCdevkit/VOC2007:train,val OUT --to coco",
  "anchors": data_anchors.EXAMPLE,
  "video": data_video.EXAMPLE,
}
RESULTS = {
  "inspect": "Problems name file, line, what is wrong and what happens to it.",
  "doctor": data_doctor.RESULT,
  "prepare": "Prints the SPEC of what it wrote. A run that was stopped goes on; run once more, it checks every file.",
  "convert": "Prints the SPEC of what it wrote, after it was read again and compared, and what the format cannot hold. OUT is\n"
  "new, empty, or of an earlier conversion; what others wrote, or changed since, is never overwritten. Images are copied\n"
  "unless --link is given; those that EXIF turns are written upright in either case.",
  "anchors": data_anchors.RESULT,
  "video": data_video.RESULT,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  from prn_jax.data_pipelines.spec import listing

  examples = "\n  ".join(EXAMPLES.values())
  parser.epilog = f"Each action has --help, and --json for machines. Examples:\n  {examples}\n\n{listing()}"
  actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
  _add_inspect(_action(actions, "inspect", "show counts, sizes and problems; with --out also samples and charts"))
  data_doctor.add_arguments(_action(actions, "doctor", data_doctor.SUMMARY))
  _add_prepare(_action(actions, "prepare", "write any source as sharded ArrayRecord, with images at their final size"))
  _add_convert(_action(actions, "convert", "write any source with boxes as COCO, VOC, YOLO or Darknet"))
  data_anchors.add_arguments(_action(actions, "anchors", data_anchors.SUMMARY))
  data_video.add_arguments(_action(actions, "video", data_video.SUMMARY, has_spec=False))


def _action(actions: Any, name: str, text: str, *, has_spec: bool = True) -> argparse.ArgumentParser:
  parser: argparse.ArgumentParser = actions.add_parser(
    name,
    help=text,
    description=f"{text[0].upper()}{text[1:]}.",
    epilog=f"{RESULTS[name]}\n\nExample: {EXAMPLES[name]}\n\n`prn data --help` lists every kind of SPEC.",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  if has_spec:
    parser.add_argument("spec", metavar="SPEC", help="the data, as KIND:PATHS")
  return parser


def _add_policy(parser: argparse.ArgumentParser, default: str) -> None:
  parser.add_argument(
    "--on-bad-data",
    choices=("stop", "skip"),
    default=default,
    help=f"stop at bad data, or skip, count and list it (default {default})",
  )


def _add_inspect(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--out", metavar="DIR", help="write samples.png, charts.png and summary.json here")
  parser.add_argument(
    "--quick", action="store_true", help="read headers only: damaged pixels and copied files are not found"
  )
  parser.add_argument("--workers", type=int, metavar="N", help="threads that read images (default: one per core)")
  _add_policy(parser, "skip")
  add_json(parser)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "out",
    metavar="OUT",
    help="folder to write to; may hold other splits of the same classes. A SPEC whose SPLIT is a list (train,val) "
    "writes one after the other",
  )
  parser.add_argument(
    "--split", metavar="NAME", help="name of the split (default: the one that SPEC names, else train)"
  )
  sizes = parser.add_mutually_exclusive_group()
  sizes.add_argument("--size", metavar="WxH", help="every image gets this size, whatever its aspect")
  sizes.add_argument("--max-side", type=int, metavar="N", help="shrink so that the longer side is at most N pixels")
  sizes.add_argument("--min-side", type=int, metavar="N", help="shrink so that the shorter side is at most N pixels")
  parser.add_argument("--format", choices=("jpeg", "png"), default="jpeg", help="format of the images (default jpeg)")
  parser.add_argument("--quality", type=int, default=95, metavar="Q", help="quality of JPEG, 1 to 100 (default 95)")
  parser.add_argument("--shards", type=int, metavar="N", help="number of files (default: one for every 2000 images)")
  parser.add_argument("--workers", type=int, metavar="N", help="threads that convert images (default: one per core)")
  _add_policy(parser, "stop")
  add_json(parser)


def _add_convert(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "out",
    metavar="OUT",
    help="folder to write to. A SPEC whose SPLIT is a list (train,val) writes one after the other",
  )
  parser.add_argument("--to", required=True, metavar="FORMAT", help="coco, yolo, voc or darknet")
  parser.add_argument(
    "--split",
    metavar="NAME",
    help="name of the split (default: the one that SPEC names, else train; Darknet has train and valid alone)",
  )
  images = parser.add_mutually_exclusive_group()
  images.add_argument("--copy", action="store_true", help="copy the images, so that OUT stands on its own (default)")
  images.add_argument(
    "--link", action="store_true", help="link to the images where they are, which takes no space; OUT needs them there"
  )
  parser.add_argument("--workers", type=int, metavar="N", help="threads that read images (default: one per core)")
  _add_policy(parser, "stop")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  if getattr(args, "workers", None) is not None and args.workers < 1:
    raise PrnError(f"--workers {args.workers}: expected at least 1.")
  actions = {
    "inspect": _inspect,
    "doctor": data_doctor.run,
    "prepare": _prepare,
    "convert": _convert,
    "anchors": _anchors,
    "video": data_video.run,
  }
  return actions[args.action](args)


def _inspect(args: argparse.Namespace) -> int:

  from prn_jax.data_pipelines.doctor.report import text, write_pictures
  from prn_jax.data_pipelines.doctor.summary import summarize
  from prn_jax.data_pipelines.spec import open_spec
  from prn_jax.detect.draw import draw_boxes
  from prn_jax.files.disk import write_text

  folder = output_folder(args.out) if args.out else None
  dataset = open_spec(args.spec, args.on_bad_data)
  summary = summarize(
    dataset,
    args.spec,
    decode=not args.quick,
    on_bad_data=args.on_bad_data,
    num_threads=args.workers,
    progress=_bar,
  )
  if not args.json:
    print(text(summary, most_problems=MOST_LISTED))
  if folder:
    files = write_pictures(summary, dataset, folder, draw_boxes)
    write_text(folder / "summary.json", json_text(summary.to_json(), indent=1))
    print(f"wrote {', '.join(map(str, files))} and {folder / 'summary.json'}", file=sys.stderr)
  if args.json:
    print_json(summary.to_json())
  return 0


def _anchors(args: argparse.Namespace) -> int:
  return data_anchors.run(args, _list_all)


def _prepare(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions

  specs = _specs(args)
  options = ShrinkOptions(
    size=parse_size(args.size) if args.size else None,
    max_side=args.max_side,
    min_side=args.min_side,
    image_format=args.format,
    quality=args.quality,
  )
  results = [_prepare_one(spec, args, options) for spec in specs]
  if args.json:
    print_json(results[0] if len(results) == 1 else {"splits": results})
  return 0


def _specs(args: argparse.Namespace) -> list[str]:
  """The splits that SPEC lists, of which --split can name but one."""
  from prn_jax.data_pipelines.prepared.prepare import each_split

  specs = each_split(args.spec)
  if args.split and len(specs) > 1:
    raise PrnError(f"--split {args.split} names one split, but '{args.spec}' lists {len(specs)}; leave it out.")
  return specs


def _prepare_one(spec: str, args: argparse.Namespace, options: ShrinkOptions) -> dict[str, Any]:
  """Prepares one split, says what was done, and gives it for --json."""
  from prn_jax.data_pipelines.prepared.prepare import prepare

  done = prepare(
    spec,
    args.out,
    split=args.split,
    options=options,
    num_shards=args.shards,
    num_threads=args.workers,
    on_bad_data=args.on_bad_data,
    progress=_bar,
  )
  _list_notes(done.notes)
  _list_problems(done.left_out, done.problems)
  kept = f", {done.num_kept} of them from an earlier run" if done.num_kept else ""
  print(
    f"{done.num_records:,} images in {done.num_shards} shards ({done.num_bytes / 1e6:,.1f} MB){kept}\n"
    f"use it as {done.spec}",
    file=sys.stderr if args.json else sys.stdout,
  )
  return {
    "spec": done.spec,
    "images": done.num_records,
    "shards": done.num_shards,
    "shards_kept": done.num_kept,
    "bytes": done.num_bytes,
    "left_out": done.left_out,
    "problems": done.problems,
    "notes": done.notes,
  }


def _convert(args: argparse.Namespace) -> int:
  results = [_convert_one(spec, args) for spec in _specs(args)]
  if args.json:
    print_json(results[0] if len(results) == 1 else {"splits": results})
  return 0


def _convert_one(spec: str, args: argparse.Namespace) -> dict[str, Any]:
  """Converts one split, says what was done, and gives it for --json."""
  from prn_jax.data_pipelines.convert.convert import convert

  done = convert(
    spec,
    args.out,
    args.to,
    split=args.split,
    images="link" if args.link else "copy",
    on_bad_data=args.on_bad_data,
    num_threads=args.workers,
    progress=_bar,
  )
  _list_notes(done.notes)
  _list_problems(done.left_out, done.problems)
  print(done.text(), file=sys.stderr if args.json else sys.stdout)
  return done.to_json()


def _bar(items: Iterable[Any], total: int) -> Iterable[Any]:
  return progress(items, total, "images")


def _list_all(dataset: Dataset) -> None:
  """What is worth a look and what was left out, on stderr."""
  from prn_jax.data_pipelines.records import count_problems, notes_of

  _list_notes(notes_of(dataset))
  _list_problems(count_problems(dataset.problems), map(str, dataset.problems))


def _list_notes(notes: Iterable[str]) -> None:
  for note in notes:
    print(f"worth a look: {note}", file=sys.stderr)


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
