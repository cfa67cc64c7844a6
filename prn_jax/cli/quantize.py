"""`prn quantize`: a trained network in 8 bits or fewer, and what it cost."""

from __future__ import annotations

import argparse
import dataclasses

from prn_jax.cli.common import (
  add_json,
  add_model,
  add_weights,
  load_model,
  print_json,
  require_weights,
  start_computing,
)
from prn_jax.errors import PrnError

PRESET = "ptq-mse"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    "dst", metavar="OUT", help="directory of the quantised model, with quantized.onnx and quantization.json"
  )
  add_weights(parser)
  parser.add_argument(
    "--calibrate",
    metavar="SPEC",
    help="data whose images decide about the ranges, as in --data of prn eval; its annotations do not matter",
  )
  parser.add_argument("--images", type=int, default=64, metavar="N", help="images of it, evenly spread (64)")
  parser.add_argument(
    "--preset", default=PRESET, metavar="P", help=f"how (default: {PRESET}); docs/compression.md lists them"
  )
  parser.add_argument("--bits", type=int, metavar="N", help="8, 4 or 2 (default: the preset's); outer layers keep 8")
  parser.add_argument("--data", metavar="SPEC", help="annotated data: the report says what accuracy was lost")
  parser.add_argument(
    "--equalize",
    action="store_true",
    help="move factors between consecutive convolutions first, so that one scale fits all channels",
  )
  parser.add_argument(
    "--adaptive",
    action="store_true",
    help="round kernels so that errors cancel on the images (worth most below 8 bits)",
  )
  parser.add_argument(
    "--no-bias-correction", action="store_true", help="do not take back what rounding the kernels moves on average"
  )
  parser.add_argument(
    "--float",
    dest="floats",
    metavar="LAYER,...",
    default="",
    help="convolutions that stay float, such as those that the table of noise names",
  )
  parser.add_argument(
    "--full-range",
    action="store_true",
    help="use all of the 8 bits of kernels: only for processors with VNNI, AMX or dot products, others cut sums off",
  )
  parser.add_argument(
    "--fpga",
    action="store_true",
    help="MODEL is quantised already, with powers of two: write its integers to OUT, for other hardware "
    "(docs/compression.md)",
  )
  parser.add_argument(
    "--tile", metavar="OUTxIN", default="", help="with --fpga: filters and channels of a block of kernels (64x8)"
  )
  parser.add_argument(
    "--on-bad-data", choices=("stop", "skip"), default="stop", help="stop at bad data (default), or skip it"
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  from prn_jax.quantize.presets import preset_of

  if args.fpga:
    return _write_integers(args)
  if args.tile:
    raise PrnError(f"--tile {args.tile} is the order of the integers that --fpga writes. Add --fpga, or leave it out.")
  preset = preset_of(args.preset, args.bits)
  preset = dataclasses.replace(preset, floats=tuple(filter(None, args.floats.split(","))))
  if args.full_range:
    preset = dataclasses.replace(preset, spares=False)
  if not args.calibrate:
    raise PrnError(
      "--calibrate is missing: without images the range of no feature map is known. Give some of the training data, as "
      "--calibrate imagefolder:DIR or coco:ANNOTATIONS.json:IMAGES."
    )
  if args.images < 1:
    raise PrnError(f"--images {args.images}: expected at least 1.")
  from prn_jax.data_pipelines.spec import open_spec
  from prn_jax.quantize.command import Request, quantize_to
  from prn_jax.quantize.ptq import Options
  from prn_jax.quantize.rewrite import check_not_quantized
  from prn_jax.run.evaluate import open_data

  start_computing("quantize")
  model = load_model(args)
  require_weights(model, args.model)
  check_not_quantized(model.graph)
  request = Request(
    preset=preset,
    calibration=open_spec(args.calibrate, args.on_bad_data),
    options=Options(equalize=args.equalize, adaptive=args.adaptive, correct_bias=not args.no_bias_correction),
    num_images=args.images,
    evaluation=open_data(args.data, model, args.on_bad_data) if args.data else None,
    on_bad_data=args.on_bad_data,
  )
  report = quantize_to(args.dst, model, request)
  if args.json:
    print_json(report.to_json())
  else:
    print(f"wrote {args.dst}")
    print(report.text())
  return 0 if report.holds else 1


def _write_integers(args: argparse.Namespace) -> int:
  from prn_jax.quantize.fpga import MANIFEST, TILE, write

  tile = _tile(args.tile) if args.tile else TILE
  start_computing("quantize")
  model = load_model(args)
  require_weights(model, args.model)
  manifest = write(args.dst, model, tile)
  if args.json:
    print_json(manifest)
  else:
    convolutions = sum(one["op"] == "conv" for one in manifest["operations"])
    print(
      f"wrote {args.dst}: {len(manifest['operations'])} operations, {convolutions} of them convolutions ({MANIFEST})"
    )
  return 0


def _tile(text: str) -> tuple[int, int]:
  filters, _, channels = text.partition("x")
  if not (filters.isdecimal() and channels.isdecimal() and int(filters) and int(channels)):
    raise PrnError(f"--tile {text}: expected filters x channels of a block, as 64x8.")
  return int(filters), int(channels)
