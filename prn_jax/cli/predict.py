"""`prn predict`: boxes (or classes) of photos."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

from prn_jax import interrupts
from prn_jax.cli import streams
from prn_jax.cli.common import (
  add_backend,
  add_json,
  add_model,
  add_weights,
  open_model,
  output_folder,
  print_json,
  program_name,
  progress,
  start_computing,
)
from prn_jax.cli.predict_videos import Watched, Work, line_of, watch_all
from prn_jax.compiling import first_is_compiled
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path

if TYPE_CHECKING:
  from prn_jax.model import Model
  from prn_jax.run.classifier import Classifier
  from prn_jax.run.detector import Detector
  from prn_jax.run.images import Failure
  from prn_jax.run.privacy import Privacy
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
    help="image files, videos, folders, patterns, http(s) URLs, lists (.txt) of these, one a line, streams (rtsp://...), "
    "cameras (0) (default: a drawn street that the package carries)",
  )
  add_weights(parser)
  parser.add_argument("--out", metavar="DIR", help="write results here (default: predictions/)")
  parser.add_argument(
    "--save",
    metavar="KINDS",
    help="comma list of json, coco, txt, csv, images, or none; of videos json (a line for every frame) and video (default: "
    "images and video; with --out: json as well; with --json alone: none)",
  )
  add_detection(parser)
  parser.add_argument(
    "--classes", metavar="NAME|ID,...", help="keep boxes of these classes alone: names or numbers, with commas between"
  )
  add_privacy(parser)
  parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per run of the network (default 1)")
  add_backend(parser)
  add_json(parser)
  parser.epilog = (
    f"{parser.epilog or ''}\nA file that exists but cannot be read does not stop the others: it is listed with its reason and "
    f"the exit code is {EXIT_SOME_FAILED}, or {EXIT_ALL_FAILED} if no image could be read."
  )


def add_detection(
  parser: argparse.ArgumentParser, conf: float = 0.25, most: int = 300, nms_kind: str = "the cfg's"
) -> None:
  """Options that decide which boxes come out; shared with eval."""
  add_suppression(parser, conf, most, nms_kind)
  parser.add_argument(
    "--resize", choices=("stretch", "letterbox"), help="how images fit the network (default: the cfg's)"
  )


def add_suppression(
  parser: argparse.ArgumentParser, conf: float = 0.25, most: int = 300, nms_kind: str = "the cfg's"
) -> None:
  """Thresholds and suppression; shared with convert."""
  parser.add_argument("--conf", type=float, default=conf, metavar="X", help=f"score threshold (default {conf:g})")
  parser.add_argument("--nms", type=float, default=0.45, metavar="X", help="overlap threshold (default 0.45)")
  parser.add_argument(
    "--nms-kind", choices=("default", "greedynms", "diounms", "cornersnms"), help=f"suppression (default: {nms_kind})"
  )
  parser.add_argument("--class-agnostic", action="store_true", help="boxes of different classes suppress each other")
  parser.add_argument(
    "--max-detections", type=int, default=most, metavar="N", help=f"most boxes per image (default {most})"
  )


def add_privacy(parser: argparse.ArgumentParser) -> None:
  """The option that hides what nobody is to recognise; shared with track."""
  parser.add_argument(
    "--blur-classes",
    metavar="NAME|ID,...",
    help="boxes of these classes become mosaics in all pictures and videos: names or numbers, with commas between",
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
    classes=parse_classes(getattr(args, "classes", None), "--classes"),
  )


def parse_classes(text: str | None, option: str) -> list[int | str] | None:
  """ "16,cat" -> [16, "cat"], as `classes` of the API takes them."""
  if text is None:
    return None
  items = [item.strip() for item in text.split(",")]
  if not all(items):
    raise PrnError(f"{option} {text!r}: expected names or numbers of classes with commas between, for example 16,cat.")
  return [int(item) if item.isdecimal() else item for item in items]


def run(args: argparse.Namespace) -> int:
  from prn_jax.examples import example_image
  from prn_jax.run.images import is_detector
  from prn_jax.track.source import photos_and_videos

  options = detection_options(args)
  blur = parse_classes(args.blur_classes, "--blur-classes")
  if args.batch < 1:
    raise PrnError(f"--batch {args.batch}: expected at least 1.")
  photos, videos = photos_and_videos(args.sources or [str(example_image())])
  start_computing("predict")
  model, network = open_model(args)
  detects = is_detector(model)
  if not model.names:
    print(f"prn predict: '{args.model}' has no class names: give them with --names FILE.", file=sys.stderr)
  for option in ("classes", "blur_classes"):
    if getattr(args, option) is not None and not detects:
      raise PrnError(
        f"--{option.replace('_', '-')} {getattr(args, option)}: network '{model.graph.name}' classifies; only boxes are "
        "chosen by class."
      )
  kinds = _kinds(args, detects, bool(photos), bool(videos))
  if kinds:
    output_folder(args.out or DEFAULT_OUT)
  if not detects and (useless := set(kinds) - {"json", "csv"}):
    raise PrnError(
      f"--save {','.join(sorted(useless))}: network '{model.graph.name}' classifies; it can save json and csv."
    )
  return _run(args, Work(model, photos, videos, kinds, network), options, blur)


def _run(args: argparse.Namespace, work: Work, options: Any, blur: list[int | str] | None) -> int:
  """Looks at everything, reports, and gives the exit code."""
  from prn_jax.run.images import predictor
  from prn_jax.run.privacy import with_privacy
  from prn_jax.run.save import PHOTO_KINDS, ResultWriter

  model, photos = work.model, work.photos
  options, privacy = with_privacy(model, options, blur)
  run_model = predictor(model, options, args.batch, work.network)
  folder = to_path(args.out or DEFAULT_OUT)
  writer = ResultWriter(folder, [kind for kind in work.kinds if kind in PHOTO_KINDS] if photos else [], photos)
  found, seen = _Found(writer), Watched()
  name = program_name(model, args.batch)
  if photos:
    try:
      _predict_all(run_model, photos, found, privacy, is_json=args.json, name=name)
    finally:  # also what was found before a Ctrl-C, or before an image that ends the run
      with interrupts.hold():
        written = found.finish()
        _report(args, model.graph.name, len(photos), found, len(written))
  if work.videos:
    began = time.perf_counter()
    seen = watch_all(run_model, work, folder, privacy, is_json=args.json, program=name)
    found.seconds += time.perf_counter() - began
  failures = found.failed + seen.failures
  coco = {"coco": _coco_ids(writer, photos, model)} if "coco" in writer.kinds else {}
  if args.json:
    print_json(
      coco
      | {
        "images": len(photos),
        "results": found.rows,
        "videos": seen.rows,
        "failures": failures,
        "out": str(folder) if work.kinds else None,
        "files": len(found.written) + seen.num_files,
        "seconds": {"total": found.seconds, "save": found.save_sec, **run_model.seconds},
      }
    )
  if len(failures) == len(photos) + len(work.videos):
    return EXIT_ALL_FAILED
  return EXIT_SOME_FAILED if failures else 0


def _kinds(args: argparse.Namespace, detects: bool, has_photos: bool, has_videos: bool) -> tuple[str, ...]:
  """What to save: as asked, else pictures of a detector, which people look for."""
  from prn_jax.run.save import PHOTO_KINDS, VIDEO_KINDS, parse_kinds

  possible = (PHOTO_KINDS if has_photos else ()) + (VIDEO_KINDS if has_videos else ())
  if args.save:
    kinds = parse_kinds(args.save)
    if useless := [kind for kind in kinds if kind not in possible]:
      raise PrnError(
        f"--save {','.join(useless)}: of {'photos' if has_photos else 'videos'} there are {', '.join(possible)}."
      )
    return kinds
  drawn = ("images", "video") if detects else ()
  chosen = ("json", *drawn) if args.out else () if args.json else drawn
  return tuple(kind for kind in chosen if kind in possible)


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
  written: list[str] = dataclasses.field(default_factory=list)

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
    self.written = self.writer.finish(self.failed) if self.writer.kinds else []
    return self.written


def _predict_all(
  run_model: Detector | Classifier,
  sources: list[str],
  found: _Found,
  privacy: Privacy | None,
  *,
  is_json: bool,
  name: str,
) -> None:
  """Runs over all sources; ends early where nobody reads the results any more and none are saved."""
  from prn_jax.run.images import Failure, stream

  results = first_is_compiled(stream(run_model, sources, keep_images="images" in found.writer.kinds), name)
  for i, result in enumerate(progress(results, len(sources), "images")):
    if isinstance(result, Failure):
      found.failures.append(result)
      print(f"prn predict: {result.reason}", file=sys.stderr)
      continue
    result = privacy(result) if privacy else result
    found.save(result)
    found.count += 1
    if is_json:
      found.rows.append(result.to_dict())
      continue
    print(line_of(sources[i], result))
    if not found.writer.kinds and streams.reader_is_gone():
      return


def _report(args: argparse.Namespace, name: str, total: int, found: _Found, num_files: int) -> None:
  """One line on stderr: how many images, how long, and where the files are."""
  failed = f", {len(found.failures)} could not be read" if found.failures else ""
  left = total - found.count - len(found.failures)
  stopped = f"; {_images(left)} {'was' if left == 1 else 'were'} not looked at" if left else ""
  folder = found.writer.folder
  what = "pictures in" if found.writer.kinds == ("images",) else "results in"
  where = f", {what} {folder / 'images' if what == 'pictures in' else folder}/" if num_files else ""
  looked_at = f"{_images(found.count)} in {found.seconds:.1f} s"
  print(f"{name}: {looked_at}{failed}{where}{stopped}", file=sys.stderr)


def _images(count: int) -> str:
  return "1 image" if count == 1 else f"{count} images"


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
