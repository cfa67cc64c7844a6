"""Entry point of `prn`: finds the command, maps errors to exit codes.

0 ok, 1 the answer is "no" (verify), 2 bad input (message, no traceback), 3 internal error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from prn_jax.version import __version__

# name -> (module, help): the modules are imported only when their command runs
COMMANDS = {
  "models": "list every registered model with its size and published figures",
  "summary": "layer table and totals of a network",
  "analyze": "gradient combinations and live memory of a network (PRN paper, section 3)",
  "predict": "detect or classify in photos",
  "train": "train a network by a configuration file",
  "plan": "what a training will need: steps, operations, memory",
  "eval": "score a model on annotated data, with tables and plots",
  "data": "look at annotated data, prepare it for training, cluster anchors",
  "convert": "convert between Darknet, Orbax and safetensors, or to ONNX, with a proof",
  "verify": "check whether two models compute the same",
}
CONFIGURED = ("train", "plan")  # commands that take --config.KEY=VALUE
EPILOG = """MODEL is a registered name, a .cfg file, or a saved model directory.
Exit codes: 0 ok, 1 the answer is no, 2 bad input, 3 internal error."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line; returns the exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
  command = next((a for a in argv if not a.startswith("-")), None)
  parser = _parser(command if command in COMMANDS else None)
  config_keys, argv = split_config_keys(argv) if command in CONFIGURED else ([], argv)
  args, rest = parser.parse_known_args(argv)
  if rest:
    if not hasattr(args, "sources") or any(argument.startswith("-") for argument in rest):
      parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.sources += rest  # argparse gives an optional list only what stands before the first option
  args.config_keys = config_keys
  if not args.command:
    parser.print_help()
    return 0
  return _run(args)


def split_config_keys(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Separates "--config.key=value", also written "--config.key value", from the other arguments."""
  keys, others, rest = [], [], list(argv)
  while rest:
    argument = rest.pop(0)
    if not argument.startswith("--config."):
      others.append(argument)
    elif "=" not in argument and rest and not rest[0].startswith("--"):
      keys.append(f"{argument}={rest.pop(0)}")
    else:
      keys.append(argument)
  return keys, others


def _parser(command: str | None) -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prn",
    description="Partial Residual Networks and the Darknet/YOLO family in JAX.",
    epilog=EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--version", action="version", version=f"prn_jax {__version__}")
  commands = parser.add_subparsers(dest="command", metavar="COMMAND")
  for name, text in COMMANDS.items():
    sub = commands.add_parser(
      name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EPILOG,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    if name == command:
      importlib.import_module(f"prn_jax.cli.{name}").add_arguments(sub)
  return parser


def _run(args: argparse.Namespace) -> int:
  from prn_jax.errors import PrnError, printable

  try:
    return int(importlib.import_module(f"prn_jax.cli.{args.command}").run(args))
  except PrnError as error:
    flag = " On the command line: --lenient." if "strict=False" in str(error) else ""
    print(f"prn {args.command}: {error}{flag}", file=sys.stderr)
    return int(getattr(error, "exit_code", 2))
  except BrokenPipeError:  # the reader (head, less) has gone
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except KeyboardInterrupt:
    return 130
  except Exception as error:
    if isinstance(error, OSError) and error.filename is not None:  # a name too long, a folder without permission, ...
      print(f"prn {args.command}: cannot use '{printable(str(error.filename))}': {error.strerror}.", file=sys.stderr)
      return 2
    logging.getLogger(__name__).exception("internal error; please report it with the command and this text")
    return 3


if __name__ == "__main__":
  sys.exit(main())
