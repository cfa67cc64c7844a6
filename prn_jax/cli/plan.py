"""`prn plan`: what a training will need, without starting it."""

from __future__ import annotations

import argparse

from prn_jax.cli.common import add_json, parse_size, print_json
from prn_jax.cli.devices import announce_device
from prn_jax.cli.train import add_config, open_config
from prn_jax.compiling import compiling
from prn_jax.errors import PrnError

EPILOG = """Opens the data and compiles every step, runs none. CONFIG and --config.KEY=VALUE as for 'prn train'. Examples:
  prn plan --config=demo
  prn plan --config=yolov4.cfg --config.data.train=voc:DIR:train --devices 4
  prn plan --config=coco_yolov3 --images 118287 --classes 80 --hardware v5e:8     without the data, without compiling"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  add_config(parser)
  parser.add_argument(
    "--topology", metavar="NAME", default="", help="TPU that need not be here, as v5e:2x4 (needs libtpu)"
  )
  parser.add_argument("--devices", type=int, metavar="N", help="pretend that this machine has N CPU devices")
  parser.add_argument("--images", type=int, metavar="N", help="so many training images, in place of the data")
  parser.add_argument("--classes", type=int, metavar="N", default=0, help="with --images; default: those of the model")
  parser.add_argument("--size", metavar="WxH", help="input in pixels, in place of all sizes of the configuration")
  parser.add_argument(
    "--hardware", metavar="NAME[:COUNT]", default="",
    help="estimate the time on v4, v5e, v5p, v6e, t4, v100, l4, a100, h100, h200 or cpu; nothing is compiled then",
  )  # fmt: skip
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  import jax

  from prn_jax.train.plan import Counts, make_plan

  if args.devices:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
  if args.classes and args.images is None:
    raise PrnError("--classes belongs to --images N, which plans without the data.")
  counts = None if args.images is None else Counts(args.images, args.classes)
  size = parse_size(args.size) if args.size else None
  config = open_config(args, is_complete=counts is None)
  announce_device("plan")
  if args.hardware:
    plan = make_plan(config, args.topology, counts=counts, size=size, hardware=args.hardware)
  else:
    with compiling(f"the steps of a training of {config.model}, batch {config.batch_size}, {args.topology or 'here'}"):
      plan = make_plan(config, args.topology, counts=counts, size=size)
  if args.json:
    print_json(plan.to_json())
  else:
    print(plan.text())
  return 0
