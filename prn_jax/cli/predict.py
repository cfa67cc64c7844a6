"""`prn predict`: boxes (or classes) of photos."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from prn_jax import interrupts
from prn_jax.cli import streams
from prn_jax.cli.common import (
  add_json,
  add_model,
  add_weights,
  load_model,
  output_folder,
  print_json,
  program_name,
  progress,
  require_weights,
  start_computing,
)
from prn_jax.compiling import first_is_compiled
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path

if TYPE_CHECKING:
  from prn_jax.model import Model
  from prn_jax.run.classifier import Classifier
  from prn_jax.run.detector import Detector
  from prn_jax.run.images import Failure
  from prn_jax.run.save import ResultWriter

DEFAULT_OUT = "predictions"
EXIT_SOME_FAILED = 1
EXIT_ALL_FAILED = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    "sources",
    metavar="SOURCE",
    nargs="*",
    help="image files, folders, patterns, http(s) URLs, or lists (.txt) of these, one a line (default: a drawn street that the package carries)",
  )
  add_weights(parser)
  parser.add_argument("--out", metavar="DIR", help="write results here (default: predictions/)")
  parser.add_argument(
    "--save",
    metavar="KINDS",
    help="comma list of json, coco, txt, csv, images, or none (default: images; with --out: json,images; with --json "
    "alone: none)",
  )
  add_detection(parser)
  parser.add_argument(
    "--classes", metavar="NAME|ID,...", help="keep boxes of these classes alone: names or numbers, with commas between"
  )
  parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per run of the network (default 1)")
  add_json(parser)
  parser.epilog = (
    f"{parser.epilog or ''}\nA file that exists but cannot be read does not stop the others: it is listed with its reason and "
    f"the exit code is {EXIT_SOME_FAILED}, or {EXIT_ALL_FAILED} if no image could be read."
  )


def add_detection(
  parser: argparse.ArgumentParser, conf: float = 0.25, most: int = 300, nms_kind: str = "the cfg's"
) -> None:
  """Options that decide which boxes come out; shared with eval."""
  parser.add_argument("--conf", type=float, default=conf, metavar="X", help=f"score threshold (default {conf:g})")
  parser.add_argument("--nms", type=float, default=0.45, metavar="X", help="overlap threshold (default 0.45)")
  parser.add_argument(
    "--nms-kind", choices=("default", "greedynms", "diounms", "cornersnms"), help=f"suppression (default: {nms_kind})"
  )
  parser.add_argument("--class-agnostic", action="store_true", help="boxes of different classes suppress each other")
  parser.add_argument(
    "--max-detections", type=int, default=most, metavar="N", help=f"most boxes per image (default {most})"
  )
  parser.add_argument(
    "--resize", choices=("stretch", "letterbox"), help="how images fit the network (default: the cfg's)"
  )


def detection_options(args: argparse.Namespace) -> Any:
  from prn_jax.run.detector import DetectOptions

  return DetectOptions(
    conf=args.conf,
    nms=args.nms,
    resize=args.resize,
    max_detections=args.max_detections,
    class_agnostic=args.class_agnostic,
    nms_kind=args.nms_kind,
    classes=_classes(getattr(args, "classes", None)),
  )


def _classes(text: str | None) -> list[int | str] | None:
  """ "16,cat" -> [16, "cat"], as `classes` of the API takes them."""
  if text is None:
    return None
  items = [item.strip() for item in text.split(",")]
  if not all(items):
    raise PrnError(f"--classes {text!r}: expected names or numbers of classes with commas between, for example 16,cat.")
  return [int(item) if item.isdecimal() else item for item in items]


def run(args: argparse.Namespace) -> int:
  from prn_jax.data_pipelines.images import inputs
  from prn_jax.examples import example_image
  from prn_jax.run.images import is_detector, predictor
  from prn_jax.run.save import ResultWriter

  options = detection_options(args)
  if args.batch < 1:
    raise PrnError(f"--batch {args.batch}: expected at least 1.")
  sources = inputs.expand(args.sources or [example_image()])
  start_computing("predict")
  model = load_model(args)
  require_weights(model, args.model)
  if not model.names:
    print(f"prn predict: '{args.model}' has no class names: give them with --names FILE.", file=sys.stderr)
  if args.classes is not None and not is_detector(model):
    raise PrnError(
      f"--classes {args.classes}: network '{model.graph.name}' classifies; only boxes are chosen by class."
    )
  kinds = _kinds(args, is_detector(model))
  if kinds:
    output_folder(args.out or DEFAULT_OUT)
  run_model = predictor(model, options, args.batch)
  if not is_detector(model) and (useless := set(kinds) - {"json", "csv"}):
    raise PrnError(
      f"--save {','.join(sorted(useless))}: network '{model.graph.name}' classifies; it can save json and csv."
    )
  writer = ResultWriter(to_path(args.out or DEFAULT_OUT), kinds, sources)
  found = _Found(writer)
  try:
    _predict_all(run_model, sources, found, is_json=args.json, name=program_name(model, args.batch))
  finally:  # also what was found before a Ctrl-C, or before an image that ends the run
    with interrupts.hold():
      written = found.finish()
      _report(args, model.graph.name, len(sources), found, len(written))
  coco = {"coco": _coco_ids(writer, sources, model)} if "coco" in kinds else {}
  if args.json:
    print_json(
      coco
      | {
        "images": len(sources),
        "results": found.rows,
        "failures": found.failed,
        "out": str(writer.folder) if kinds else None,
        "files": len(written),
        "seconds": {"total": found.seconds, "save": found.save_sec, **run_model.seconds},
      }
    )
  if len(found.failures) == len(sources):
    return EXIT_ALL_FAILED
  return EXIT_SOME_FAILED if found.failures else 0


def _kinds(args: argparse.Namespace, detects: bool) -> tuple[str, ...]:
  """What to save: as asked, else pictures of a detector, which people look for."""
  from prn_jax.run.save import parse_kinds

  if args.save:
    return parse_kinds(args.save)
  if args.out:
    return ("json", "images") if detects else ("json",)
  return ("images",) if detects and not args.json else ()


@dataclasses.dataclass
class _Found:
  """What a run has come to so far: rows for JSON, failures, and the seconds spent on writing."""

  writer: ResultWriter
  rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  failures: list[Failure] = dataclasses.field(default_factory=list)
  count: int = 0
  save_sec: float = 0.0
  began: float = dataclasses.field(default_factory=time.perf_counter)
  seconds: float = 0.0

  @property
  def failed(self) -> list[dict[str, str]]:
    return [{"path": failure.path, "reason": failure.reason} for failure in self.failures]

  def save(self, result: Any) -> None:
    if self.writer.kinds:
      began = time.perf_counter()
      self.writer.add(result)
      self.save_sec += time.perf_counter() - began

  def finish(self) -> list[str]:
    """Writes the files that hold all results; gives all files of this run."""
    self.seconds = time.perf_counter() - self.began
    return self.writer.finish(self.failed) if self.writer.kinds else []


def _predict_all(
  run_model: Detector | Classifier, sources: list[str], found: _Found, *, is_json: bool, name: str
) -> None:
  """Runs over all sources; ends early where nobody reads the results any more and none are saved."""
  from prn_jax.run.images import Failure, stream

  results = first_is_compiled(stream(run_model, sources, keep_images="images" in found.writer.kinds), name)
  for i, result in enumerate(progress(results, len(sources), "images")):
    if isinstance(result, Failure):
      found.failures.append(result)
      print(f"prn predict: {result.reason}", file=sys.stderr)
      continue
    found.save(result)
    found.count += 1
    if is_json:
      found.rows.append(result.to_dict())
      continue
    print(_line(sources[i], result))
    if not found.writer.kinds and streams.reader_is_gone():
      return


def _report(args: argparse.Namespace, name: str, total: int, found: _Found, num_files: int) -> None:
  """One line on stderr: how many images, how long, and where the files are."""
  failed = f", {len(found.failures)} could not be read" if found.failures else ""
  left = total - found.count - len(found.failures)
  stopped = f"; {left} images were not looked at" if left else ""
  folder = found.writer.folder
  what = "pictures in" if found.writer.kinds == ("images",) else "results in"
  where = f", {what} {folder / 'images' if what == 'pictures in' else folder}/" if num_files else ""
  print(f"{name}: {found.count} images in {found.seconds:.1f} s{failed}{where}{stopped}", file=sys.stderr)


def _line(source: str, result: Any) -> str:
  """ "dog.jpg: 1 dog 99%, 1 bicycle 92%" or the best class."""
  from prn_jax.classify.classification import Classification

  if isinstance(result, Classification):
    return f"{source}: " + ", ".join(f"{name} {p:.1%}" for _, name, p in result.top())
  counts = Counter(int(c) for c in result.classes)
  best = {c: max(float(s) for s, k in zip(result.scores, result.classes, strict=True) if int(k) == c) for c in counts}
  parts = [f"{n} {result.name_of(c)} ({best[c]:.0%})" for c, n in counts.most_common()]
  return f"{source}: {', '.join(parts) or 'nothing found'}"


def _coco_ids(writer: ResultWriter, sources: list[str], model: Model) -> dict[str, Any]:
  """Which ids coco.json has: said, where they are not those of COCO's files, and for JSON."""
  from prn_jax.labels import coco_category_ids

  ids, counted = writer.image_ids
  if counted:
    shown = ", ".join(f"{sources[i]} is {ids[i]}" for i in counted[:3]) + (", ..." if len(counted) > 3 else "")
    print(
      f"coco.json: {len(counted)} of {len(sources)} image ids are positions, counted from {ids[counted[0]]}, since the file "
      f"names hold no number, or several the same: {shown}; coco_images.json lists them",
      file=sys.stderr,
    )
  categories = coco_category_ids(model.names)
  if categories is None:
    print("coco.json: category ids are class numbers from 0, since the classes are not COCO's 80", file=sys.stderr)
  images = [
    {"file_name": source, "id": number, "id_is": "position" if i in set(counted) else "number in the name"}
    for i, (source, number) in enumerate(zip(sources, ids, strict=True))
  ]
  return {"images": images, "category_ids_are": "class numbers" if categories is None else "COCO's"}
