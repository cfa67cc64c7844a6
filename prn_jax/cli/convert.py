"""`prn convert`: write a model in another format, and prove that it is the same."""

from __future__ import annotations

import argparse

from prn_jax.cli.common import (
  add_json,
  add_model,
  add_weights,
  load_model,
  print_json,
  program_name,
  return_freed_memory,
  start_computing,
)
from prn_jax.cli.predict import add_suppression
from prn_jax.compiling import compiling
from prn_jax.errors import PrnError
from prn_jax.export import convert as converter
from prn_jax.export.onnx_boxes import OutputOptions
from prn_jax.files.disk import is_file
from prn_jax.files.places import to_path
from prn_jax.loading import from_library, transformed
from prn_jax.model import Model
from prn_jax.run.detector import DetectOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    "dst", metavar="DST", help="dir/ (Orbax), x.weights, x.conv.N (the first N layers), x.cfg, x.safetensors or x.onnx"
  )
  add_weights(parser)
  parser.add_argument(
    "--transform",
    metavar="NAME:VALUE",
    action="append",
    default=[],
    help="change the network first, its weights by slicing: fprn:SPARSITY, shrink:GAMMA, expand:GAMMA, "
    "bottleneck:GAMMA or multi-source; several are applied in order",
  )
  parser.add_argument(
    "--any-size",
    action="store_true",
    help="leave height and width of the images open in x.onnx; they are fixed otherwise",
  )
  parser.add_argument(
    "--onnx-output",
    choices=("heads", "boxes", "detections"),
    default="heads",
    help="what x.onnx puts out: heads as Darknet stores them (default), boxes in pixels of the input with scores per class, or "
    "boxes after suppression, for which the next five options are (docs/runtimes.md)",
  )
  add_suppression(parser)
  parser.add_argument(
    "--as",
    dest="library_name",
    metavar="timm/NAME",
    help="MODEL is a .safetensors file of timm with these weights, e.g. timm/resnet50.a1_in1k (docs/backbones.md)",
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  return_freed_memory()
  kind = converter.file_type(args.dst)  # a wrong type fails before the work starts
  converter.check_any_size(args.any_size, args.dst)
  options = _output_options(args, kind)
  if kind != ".cfg":
    start_computing("convert")
  model = _from_library(args) if args.library_name else load_model(args)
  if args.transform:
    model = transformed(model, args.transform)
  missing = list(model.missing)
  if kind in converter.WITHOUT_RUN or not model.has_weights:
    proof = converter.convert(model, args.dst, any_size=args.any_size, options=options)
  else:
    converter.save(model, args.dst)  # before the run, whose compiled program would be in memory as well
    with compiling(f"{program_name(model)}, for the proof"):
      before = converter.fingerprint(model)
    del model  # one copy of the weights in memory at a time
    proof = converter.prove(before, args.dst)
  same_bytes = _same_bytes(args)
  if args.json:
    print_json(
      {
        "dst": str(args.dst),
        "proof": proof.kind,
        "identical": proof.identical,
        "outputs": proof.outputs,
        "same_bytes_as_source": same_bytes,
        "missing": missing,
      }
    )
  else:
    print(f"wrote {args.dst}")
    for name, difference in proof.outputs.items():
      print(f"  {name}: max difference {difference:g}")
    print(f"proof: {proof.text}{'; same bytes as the source file' if same_bytes else ''}")
  return 0 if proof.holds else 1


def _output_options(args: argparse.Namespace, kind: str) -> OutputOptions:
  """What an ONNX file shall put out; PrnError where that does not go with the rest."""
  if args.onnx_output != "heads" and kind != ".onnx":
    raise PrnError(f"--onnx-output {args.onnx_output} is a choice for .onnx, but '{args.dst}' is none.")
  given = {name: getattr(args, name) for name in ("conf", "nms", "max_detections", "class_agnostic", "nms_kind")}
  DetectOptions(**given)  # refuses what is out of range
  usual = OutputOptions()
  changed = [name for name, value in given.items() if value != getattr(usual, name)]
  if changed and args.onnx_output != "detections":
    raise PrnError(
      f"--{changed[0].replace('_', '-')} is about suppression, which x.onnx holds with --onnx-output detections only."
    )
  return OutputOptions(output=args.onnx_output, **given)


def _from_library(args: argparse.Namespace) -> Model:
  if args.weights or args.partial:
    raise PrnError(
      f"--as {args.library_name} says that '{args.model}' holds the weights; leave --weights and --partial out."
    )
  return from_library(args.model, args.library_name, args.names)


def _same_bytes(args: argparse.Namespace) -> bool | None:
  """Whether a weights file came out as it went in; None where that cannot be asked."""
  source = args.weights and to_path(args.weights)
  if args.transform or not source or not is_file(source) or to_path(args.dst).suffix != source.suffix:
    return None
  return converter.same_bytes(source, args.dst)
