"""`prn data doctor`: what is wrong with annotated data, where, and what to do about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prn_jax.cli.common import add_json, output_folder, parse_size, print_json, progress, resized
from prn_jax.errors import PrnError
from prn_jax.files.json_text import json_text
from prn_jax.files.places import to_path

if TYPE_CHECKING:
  from prn_jax.data_pipelines.doctor.checkup import Network
  from prn_jax.data_pipelines.doctor.repair import Repaired

SUMMARY = "look for faults of annotations, images and splits, and correct what is certain"
EXAMPLE = "prn data doctor yolo:data.yaml:val --against yolo:data.yaml:train --model yolov3-tiny-prn --out look"
RESULT = (
  "Every finding has an id that stays, a severity (serious, worth a look, note), places and what to do. Exit code: 1\n"
  "where something serious is found, else 0. SPEC2 is compared with, not examined."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--against",
    nargs="+",
    metavar="SPEC2",
    default=[],
    help="other splits, such as the training data: pictures that are in both, classes that are in one",
  )
  parser.add_argument("--model", metavar="MODEL", help="the network that shall learn: its size, anchors and cells")
  parser.add_argument("--size", metavar="WxH", help="input of the network in pixels, instead of MODEL's own")
  parser.add_argument(
    "--resize",
    choices=("stretch", "letterbox"),
    help="how images are fitted to that input (default: as MODEL does, else stretch)",
  )
  parser.add_argument(
    "--max-boxes", type=int, metavar="N", help="objects of an image that the training takes (default 100)"
  )
  parser.add_argument(
    "--fix",
    metavar="OUT",
    help="write a corrected copy to the folder OUT, as coco:OUT/annotations/instances_fixed.json:OUT/images/fixed; the original stays",
  )
  parser.add_argument("--out", metavar="DIR", help="write report.html, with pictures, and findings.json here")
  parser.add_argument(
    "--quick", action="store_true", help="read headers only: damaged pixels and copied pictures are not found"
  )
  parser.add_argument("--workers", type=int, metavar="N", help="threads that read images (default: one per core)")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.doctor.checkup import Exam, examine
  from prn_jax.data_pipelines.doctor.page import write_page
  from prn_jax.data_pipelines.doctor.repair import repair
  from prn_jax.data_pipelines.doctor.split import open_split
  from prn_jax.data_pipelines.doctor.told import text
  from prn_jax.files.disk import write_text

  network = _network(args)
  if args.fix and args.quick:
    raise PrnError("--fix looks at pixels, which --quick does not. Leave one of the two out.")
  folder = output_folder(args.out) if args.out else None
  splits = [
    open_split(
      spec,
      decode=not args.quick,
      keep_polygons=bool(args.fix) and number == 0,
      num_threads=args.workers,
      progress=_bar,
    )
    for number, spec in enumerate((args.spec, *args.against))
  ]
  diagnosis = examine(Exam(tuple(splits), network, has_pixels=not args.quick))
  values = diagnosis.to_json()
  if not args.json:
    print(text(diagnosis))
  if folder:
    page = write_page(diagnosis, folder)
    write_text(folder / "findings.json", json_text(values, indent=1))
    print(f"wrote {page} and {folder / 'findings.json'}", file=sys.stderr)
  if args.fix:
    done = repair(splits[0], to_path(args.fix))
    values["fixed"] = done.to_json()
    print(_fixed_text(done), file=sys.stderr if args.json else sys.stdout)
  if args.json:
    print_json(values)
  return 1 if diagnosis.is_serious else 0


def _fixed_text(done: Repaired) -> str:
  lines = [f"\nwrote {done.num_images:,} images and {done.num_objects:,} objects; use them as {done.spec}"]
  lines += [f"  {number:,} {what}" for what, number in done.corrected.items()] or ["  nothing had to be corrected"]
  if done.left_out:
    entries = ", ".join(f"{number:,} {check}" for check, number in done.left_out.items())
    lines.append(f"  not in the copy, for you to decide (listed in its doctor.json): {entries}")
  return "\n".join(lines)


def _network(args: argparse.Namespace) -> Network:
  from prn_jax.data_pipelines.doctor.checkup import DEFAULT_MAX_BOXES, Network

  if args.max_boxes is not None and args.max_boxes < 1:
    raise PrnError(f"--max-boxes {args.max_boxes}: expected at least 1.")
  max_boxes = args.max_boxes or DEFAULT_MAX_BOXES
  if args.model is None:
    size = parse_size(args.size) if args.size else None
    return Network(size, args.resize or "stretch", max_boxes=max_boxes)
  from prn_jax.loading import load
  from prn_jax.run.data_facts import network_facts

  model = load(args.model)
  graph = resized(model.graph, args.size) if args.size else model.graph
  return network_facts(graph, args.resize or str(model.resize), max_boxes)


def _bar(items: Iterable[Any], total: int) -> Iterable[Any]:
  return progress(items, total, "images")
