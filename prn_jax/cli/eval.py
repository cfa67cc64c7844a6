"""`prn eval`: figures of a model on annotated data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

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
from prn_jax.cli.predict import add_detection, detection_options
from prn_jax.compiling import first_is_compiled
from prn_jax.files.json_text import json_text
from prn_jax.files.places import to_path

NUM_EXAMPLES = 16
MOST_DETECTIONS = 4096  # per image, beyond what any image needs: COCO takes 100 of each class


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    "--data",
    metavar="SPEC",
    required=True,
    help="coco:ANNOTATIONS.json:IMAGES, voc:ROOT:SPLIT, darknet:FILE.data:valid, yolo:DATA.yaml:SPLIT, "
    "imagefolder:DIR, imagenet:ROOT:val, arrayrecord:DIR:SPLIT, tfds:NAME:SPLIT or synthetic:traffic:N@valid",
  )
  add_weights(parser)
  parser.add_argument(
    "--protocol",
    metavar="NAME",
    help="coco, voc07, voc or darknet for detectors (default: coco), top1 for classifiers, or one of an extension",
  )
  parser.add_argument("--out", metavar="DIR", help="write tables, curves, confusion matrix and pictures here")
  parser.add_argument("--explain", action="store_true", help="score under every protocol and say where they differ")
  add_detection(parser, conf=0.001, most=MOST_DETECTIONS, nms_kind="plain overlap; the cfg's for --protocol darknet")
  parser.add_argument(
    "--pictures-conf", type=float, default=0.25, metavar="X", help="score threshold for pictures and counts (0.25)"
  )
  parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per run of the network (default 1)")
  parser.add_argument(
    "--on-bad-data", choices=("stop", "skip"), default="stop", help="stop at bad data, or skip, count and list it"
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  from prn_jax.run import evaluate
  from prn_jax.run.images import is_detector

  if args.out:
    output_folder(args.out)
  start_computing("eval")
  model = load_model(args)
  require_weights(model, args.model)
  detector = is_detector(model)
  protocol = _protocol(args.protocol, model.graph.name, detector)
  if not args.nms_kind and protocol != "darknet":
    args.nms_kind = "default"  # plain overlap, as other frameworks score COCO and VOC; a cfg may ask for another kind
  options = detection_options(args)
  dataset = evaluate.open_data(args.data, model, args.on_bad_data)

  def bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    return progress(first_is_compiled(items, program_name(model, args.batch)), total, "images")

  done = evaluate.run_model(
    model, dataset, options if detector else None, batch_size=args.batch, on_bad_data=args.on_bad_data, progress=bar
  )
  result = _detector(args, protocol, dataset, done) if detector else _classifier(args, dataset, done)
  _list_problems(dataset, done)
  if args.json:
    problems = [str(p) for p in dataset.problems] + [f.reason for f in done.failures]
    print_json(result | {"problems": problems, "seconds": done.timing})
  return 0


def _protocol(asked: str | None, network: str, detector: bool) -> str:
  from prn_jax.detect.metrics import get_protocol
  from prn_jax.errors import PrnError

  protocol = asked or ("coco" if detector else "top1")
  if protocol != "top1":
    get_protocol(protocol)
  if (protocol == "top1") == detector:
    does = "detects" if detector else "classifies"
    raise PrnError(f"protocol '{protocol}' does not fit network '{network}', which {does}.")
  return protocol


def _detector(args: argparse.Namespace, protocol: str, dataset: Any, done: Any) -> dict[str, Any]:
  from prn_jax.detect import metrics
  from prn_jax.run.evaluate import detection_data, draw_examples, image_reader

  data = detection_data(dataset, done, clip=metrics.get_protocol(protocol).clips_boxes)
  settings = metrics.Settings(conf_threshold=args.pictures_conf)
  evaluation = metrics.evaluate(data, protocol, settings)
  explanation = metrics.explain(data) if args.explain else None
  if not args.json:
    print(evaluation.text())
    if explanation:
      print(f"\n{explanation.text()}")
  if args.out:
    out = to_path(args.out)
    metrics.write_report(
      out,
      data,
      evaluation,
      conf_threshold=args.pictures_conf,
      read_image=image_reader(dataset),
      explanation=explanation,
    )
    rows = (row for i in range(len(dataset)) for row in _coco_rows(dataset, dataset[i], done))
    metrics.write_coco_results(out / "coco_results.json", rows)
    draw_examples(dataset, done, out / "examples", NUM_EXAMPLES, args.pictures_conf)
    print(f"wrote tables, curves and pictures to {out}/", file=sys.stderr)
  absent = sorted(set(range(data.num_classes)) - set(data.truth_classes.tolist()))
  _say_absent([data.names[index] for index in absent], data.num_classes, protocol)
  result = evaluation.to_json() | {"classes_without_objects": [data.names[index] for index in absent]}
  return result | {"explain": explanation.to_json()} if explanation else result


def _say_absent(names: list[str], count: int, protocol: str) -> None:
  """Says what becomes of classes of which the data has no object."""
  if names:
    counts = "count as 0 in the mean, as Darknet's do" if protocol == "darknet" else "have no figure and do not count"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    print(f"the data has no objects of {len(names)} of {count} classes, which {counts}: {shown}", file=sys.stderr)


def _coco_rows(dataset: Any, record: Any, done: Any) -> list[Any]:
  from prn_jax.detect.metrics import coco_rows

  found = done.results.get(record.image_id)
  if found is None:
    return []
  return coco_rows(record.image_id, found, (found.image_width, found.image_height), dataset.category_ids)


def _classifier(args: argparse.Namespace, dataset: Any, done: Any) -> dict[str, Any]:

  from prn_jax.files.disk import write_text
  from prn_jax.run.evaluate import classification_result

  result = classification_result(dataset, done)
  if not args.json:
    print(f"{result.images:,} images\n  top-1  {result.top1:.4f}\n  top-5  {result.top5:.4f}")
  if args.out:
    content = result.to_json() | {"per_class": list(result.per_class)}
    write_text(to_path(args.out) / "top1.json", json_text(content, indent=1))
    print(f"wrote {args.out}/top1.json", file=sys.stderr)
  return result.to_json()


def _list_problems(dataset: Any, done: Any) -> None:
  from prn_jax.data_pipelines.records import count_problems, notes_of

  for note in notes_of(dataset):
    print(f"worth a look: {note}", file=sys.stderr)
  if dataset.problems:
    counts = ", ".join(f"{n} {kind}" for kind, n in count_problems(dataset.problems).items())
    print(f"left out of the data: {counts}", file=sys.stderr)
  for problem in dataset.problems:
    print(f"  {problem}", file=sys.stderr)
  for failure in done.failures:
    print(f"  {failure.reason}", file=sys.stderr)
