"""`prn verify`: exit 0 if two models compute the same, 1 if not."""

from __future__ import annotations

import argparse
import dataclasses

from prn_jax.cli.common import add_json, add_lenient, add_partial, print_json, program_name, start_computing
from prn_jax.compiling import compiling
from prn_jax.errors import PrnError
from prn_jax.export.verify import TOLERANCE, compare, same_weights
from prn_jax.loading import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("a", metavar="A", help="registered name, .cfg file or saved model")
  parser.add_argument("b", metavar="B", help="the model to compare it with")
  parser.add_argument("--weights-a", metavar="FILE", help="weights for A")
  parser.add_argument("--weights-b", metavar="FILE", help="weights for B")
  add_partial(parser)
  add_lenient(parser)
  parser.add_argument(
    "--tolerance", type=float, default=TOLERANCE, metavar="X",
    help=f"allowed difference relative to a layer's largest value (default {TOLERANCE:g})",
  )  # fmt: skip
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  if not args.tolerance >= 0:
    raise PrnError(f"--tolerance {args.tolerance}: expected 0 or more.")
  start_computing("verify")
  a, b = (
    load(model, weights, strict=not args.lenient, partial=args.partial)
    for model, weights in ((args.a, args.weights_a), (args.b, args.weights_b))
  )
  note = ""
  if a.has_weights != b.has_weights:
    without = args.b if a.has_weights else args.a
    raise PrnError(f"'{without}' has no weights and the other model has. Give them with --weights-a / --weights-b.")
  if not a.has_weights:
    note = " (neither has weights: both were given the same random ones, in the order of a weights file)"
    b = dataclasses.replace(b, weights=same_weights(a, b))
  with compiling(f"{program_name(a)} and {program_name(b)}, all layers"):
    result = compare(a, b, args.tolerance)
  first = result.first_difference
  if args.json:
    print_json(
      {
        "agree": result.agree,
        "max_abs_diff": result.max_abs_diff,
        "first_difference": first and first.layer_a,
        "first_difference_b": first and first.layer_b,
        "reason": first and first.reason,
        "outputs": result.outputs,
        "bit_identical": result.bit_identical,
      }
    )
  else:
    for name, difference in result.outputs.items():
      print(f"  {name}: max difference {difference:g}")
    print(f"{'agree' if result.agree else 'DIFFER'}: largest output difference {result.max_abs_diff:g}{note}")
    if first:
      print(f"first difference: layer '{first.layer_a}' of A, '{first.layer_b}' of B: {first.reason}")
  return 0 if result.agree else 1
