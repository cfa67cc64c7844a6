"""`prn plan`: what a training will need, without starting it."""

from __future__ import annotations

import argparse

from prn_jax.cli.common import add_json, print_json
from prn_jax.cli.devices import announce_device
from prn_jax.cli.train import add_config, open_config
from prn_jax.compiling import compiling

EPILOG = """Opens the data and compiles every step, runs none. CONFIG and --config.KEY=VALUE as for 'prn train'. Examples:
  prn plan --config=demo
  prn plan --config=yolov4.cfg --config.data.train=voc:DIR:train --devices 4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  add_config(parser)
  parser.add_argument(
    "--topology", metavar="NAME", default="", help="TPU that need not be here, as v5e:2x4 (needs libtpu)"
  )
  parser.add_argument("--devices", type=int, metavar="N", help="pretend that this machine has N CPU devices")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  import jax

  from prn_jax.train.plan import make_plan

  if args.devices:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
  config = open_config(args)
  announce_device("plan")
  with compiling(f"the steps of a training of {config.model}, batch {config.batch_size}, {args.topology or 'here'}"):
    plan = make_plan(config, args.topology)
  if args.json:
    print_json(plan.to_json())
  else:
    print(plan.text())
  return 0
