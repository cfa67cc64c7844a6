"""`prn eval`: figures of a model on annotated data, or of tracks against their truth."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from prn_jax.cli.common import (
  add_backend,
  add_json,
  add_model,
  add_weights,
  open_model,
  output_folder,
  print_json,
  progress_bar,
  start_computing,
)
from prn_jax.cli.predict import add_detection, detection_options
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path
from prn_jax.run.defaults import CONF, MOST_DETECTIONS, NMS

NUM_EXAMPLES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser, nargs="?")
  parser.add_argument(
    "--tracks", metavar="FILE", help="score tracks instead of a model: MOTChallenge text, also .gz, against --truth"
  )
  parser.add_argument("--truth", metavar="FILE", help="the truth of --tracks: a gt.txt of MOTChallenge, also .gz")
  parser.add_argument(
    "--all-classes",
    action="store_true",
    help="with --tracks: objects of all classes count alike, and what lies on truth of flag 0 does not count (default: "
    "MOTChallenge's rules, pedestrians alone)",
  )
  parser.add_argument(
    "--data",
    metavar="SPEC",
    help="coco:ANNOTATIONS.json:IMAGES, voc:ROOT:SPLIT, darknet:FILE.data:valid, yolo:DATA.yaml:SPLIT, "
    "arrayrecord:DIR:SPLIT or another that `prn data --help` lists. Without it, MODEL is the directory of a run, and is "
    "evaluated as its training did",
  )
  add_weights(parser)
  parser.add_argument(
    "--protocol",
    metavar="NAME",
    help="coco, voc07, voc, darknet or visdrone for detectors (default: coco), top1 for classifiers, or one of an extension",
  )
  parser.add_argument("--out", metavar="DIR", help="write tables, curves, confusion matrix and pictures here")
  parser.add_argument("--explain", action="store_true", help="score under every protocol and say where they differ")
  add_detection(parser, conf=CONF, most=MOST_DETECTIONS, nms_kind="plain overlap; the cfg's for --protocol darknet")
  parser.add_argument(
    "--pictures-conf", type=float, default=0.25, metavar="X", help="score threshold for pictures and counts (0.25)"
  )
  parser.add_argument(
    "--batch", type=int, metavar="N", help="images per run of the network, over all devices (default: one for each)"
  )
  parser.add_argument(
    "--on-bad-data", choices=("stop", "skip"), help="stop at bad data (default), or skip, count and list it"
  )
  parser.set_defaults(conf=None, nms=None)  # they may be those of a run
  add_backend(parser)
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  if args.tracks or args.truth:
    return _tracks(args)
  if args.all_classes:
    raise PrnError("--all-classes is for tracks: give them with --tracks FILE and their truth with --truth FILE.")
  if args.model is None:
    raise PrnError("nothing to score: give MODEL, or tracks with --tracks FILE and their truth with --truth FILE.")
  return _model(args)


def _tracks(args: argparse.Namespace) -> int:
  from prn_jax.track.metrics import evaluate

  if not (args.tracks and args.truth):
    given, missing = ("--tracks", "--truth") if args.tracks else ("--truth", "--tracks")
    raise PrnError(f"{given} is given without {missing}. Tracks are scored against truth: give both files.")
  if args.model is not None:
    raise PrnError(f"--tracks {args.tracks}: tracks are scored without a model; leave '{args.model}' out.")
  result = evaluate.evaluate_files(to_path(args.tracks), to_path(args.truth), all_classes=args.all_classes)
  if args.json:
    print_json(result)
  else:
    print(evaluate.text(result["metrics"]))
  return 0


def _model(args: argparse.Namespace) -> int:
  from prn_jax.run import evaluate
  from prn_jax.run.images import is_detector

  if args.out:
    output_folder(args.out)
  of_run = _complete(args)
  if args.batch < 1:
    raise PrnError(f"--batch {args.batch}: expected at least 1.")
  start_computing("eval")
  model, engine = open_model(args)
  detector = is_detector(model)
  protocol = _protocol(args.protocol or (of_run if detector else None), model.graph.name, detector)
  options = evaluate.for_protocol(detection_options(args), protocol) if detector else None
  dataset = evaluate.open_data(args.data, model, args.on_bad_data)
  with progress_bar(len(dataset), "images") as advance:
    done = evaluate.run_model(
      model,
      dataset,
      options,
      batch_size=args.batch,
      on_bad_data=args.on_bad_data,
      on_batch=advance,
      network=engine and engine.of_variables,
    )
  result = _detector(args, protocol, dataset, done) if detector else _classifier(args, dataset, done)
  _list_problems(dataset, done)
  if args.json:
    problems = [str(p) for p in dataset.problems] + [f.reason for f in done.failures]
    print_json(result | {"problems": problems, "seconds": done.timing})
  return 0


def _complete(args: argparse.Namespace) -> str | None:
  """Fills in what was not said: without --data as the run that MODEL is evaluates itself, else the usual. Gives the
  protocol of that run."""
  usual: dict[str, Any] = {"conf": CONF, "nms": NMS, "batch": 1, "on_bad_data": "stop"}
  protocol = None
  if args.data is None:
    from prn_jax.train.evaluated import evaluated_as

    of_run = evaluated_as(to_path(args.model))
    args.data, protocol = of_run.data, of_run.config.protocol
    usual = {"conf": of_run.config.conf, "nms": of_run.config.nms}
    usual |= {"batch": of_run.batch_size, "on_bad_data": of_run.on_bad_data}
  for name, value in usual.items():
    if getattr(args, name) is None:
      setattr(args, name, value)
  return protocol


def _protocol(asked: str | None, network: str, detector: bool) -> str:
  from prn_jax.detect.metrics import get_protocol

  protocol = asked or ("coco" if detector else "top1")
  if protocol != "top1":
    get_protocol(protocol)
  if (protocol == "top1") == detector:
    does = "detects" if detector else "classifies"
    raise PrnError(f"protocol '{protocol}' does not fit network '{network}', which {does}.")
  return protocol


def _detector(args: argparse.Namespace, protocol: str, dataset: Any, done: Any) -> dict[str, Any]:
  from prn_jax.detect import metrics
  from prn_jax.run.evaluate import draw_examples, image_reader, score_detections

  settings = metrics.Settings(conf_threshold=args.pictures_conf)
  data, evaluation = score_detections(dataset, done, protocol, settings, compare_regions=True)
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
  counts = metrics.get_protocol(protocol).counts_absent_classes
  _say_absent([data.names[index] for index in absent], data.num_classes, counts)
  result = evaluation.to_json() | {"classes_without_objects": [data.names[index] for index in absent]}
  return result | {"explain": explanation.to_json()} if explanation else result


def _say_absent(names: list[str], count: int, are_counted: bool) -> None:
  """Says what becomes of classes of which the data has no object."""
  if names:
    counts = "count as 0 in the mean, as Darknet's do" if are_counted else "have no figure and do not count"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    print(f"the data has no objects of {len(names)} of {count} classes, which {counts}: {shown}", file=sys.stderr)


def _coco_rows(dataset: Any, record: Any, done: Any) -> list[Any]:
  from prn_jax.detect.metrics import coco_rows

  found = done.results.get(record.image_id)
  if found is None:
    return []
  return coco_rows(record.image_id, found, (found.image_width, found.image_height), dataset.category_ids)


def _classifier(args: argparse.Namespace, dataset: Any, done: Any) -> dict[str, Any]:
  from prn_jax.run.classification_report import write_classification_report
  from prn_jax.run.evaluate import classification_result

  result = classification_result(dataset, done)
  if not args.json:
    print(f"{result.images:,} images\n  top-1  {result.top1:.4f}\n  top-5  {result.top5:.4f}")
  if args.out:
    write_classification_report(to_path(args.out), result)
    print(f"wrote figures, the table of classes and the confusion matrix to {args.out}/", file=sys.stderr)
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
