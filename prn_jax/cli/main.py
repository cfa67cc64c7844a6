"""Entry point of `prn`: finds the command, maps errors to exit codes.

0 ok, 1 the answer is "no" (verify, data doctor, quantize), 2 bad input (message, no traceback), 3 internal error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from prn_jax import interrupts
from prn_jax.cli import streams, words
from prn_jax.cli.devices import quiet_compiler
from prn_jax.errors import did_you_mean
from prn_jax.version import __version__

# name -> (module, help): the modules are imported only when their command runs
COMMANDS = {
  "models": "list every registered model with its size and published figures",
  "summary": "layer table and totals of a network",
  "analyze": "gradient combinations and live memory of a network (PRN paper, section 3)",
  "predict": "detect or classify in photos",
  "track": "follow objects through the frames of a video",
  "serve": "a model behind HTTP: a page, JSON for programs",
  "count": "count who crosses lines in a video, by direction and class",
  "train": "train a network by a configuration file",
  "plan": "what a training will need: steps, operations, memory",
  "eval": "score a model on annotated data, with tables and plots; or tracks",
  "bench": "how fast the whole path from a video to a count is, and each stage of it",
  "data": "look at annotated data, find its faults, prepare it for training, cluster anchors",
  "prune": "a smaller network out of a trained one: channels and blocks that matter least go",
  "convert": "convert between Darknet, Orbax and safetensors, or to ONNX, with a proof",
  "quantize": "a trained network in 8 bits or fewer, and what that cost",
  "verify": "check whether two models compute the same",
  "completion": "completion of the command line for bash, zsh or fish",
}
ALL = "all commands"
CONFIGURED = ("train", "plan")  # commands that take --config.KEY=VALUE
EPILOG = """MODEL is a registered name, a .cfg file, or a saved model directory.
Exit codes: 0 ok, 1 the answer is no, 2 bad input, 3 internal error, 130 interrupted."""


class _Parser(argparse.ArgumentParser):
  """An argument parser that knows the words of other tools, and the option that was probably meant."""

  def error(self, message: str) -> NoReturn:
    if message.startswith("unrecognized arguments: "):
      word = message.removeprefix("unrecognized arguments: ").partition(" ")[0]
      message += did_you_mean(word.partition("=")[0], self.known_options)
    super().error(message)

  known_options: Sequence[str] = ()


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line; returns the exit code. Without `argv` it is the process's own, whose signals and streams it
  takes over."""
  if argv is not None:
    return _main(list(argv))
  interrupts.install()
  streams.install()
  try:
    code = _main(sys.argv[1:])
  except SystemExit as ended:  # of argparse: --help, or a wrong option
    code = ended.code if isinstance(ended.code, int) else 2
  if problem := streams.problem():
    print(f"prn: cannot write to standard output: {problem}.", file=sys.stderr)
    return code or 2
  return code


def _main(argv: list[str]) -> int:
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
  command = next((a for a in argv if not a.startswith("-")), None)
  if command is not None and command not in COMMANDS:
    print(words.command_instead(argv[argv.index(command) :], COMMANDS), file=sys.stderr)
    return 2
  parser = _parser(command)
  if command in COMMANDS:
    where = argv.index(str(command)) + 1
    if instead := words.options_instead(str(command), argv[where:], parser.known_options):
      print(instead, file=sys.stderr)
      return 2
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


def full_parser() -> argparse.ArgumentParser:
  """The parser with the arguments of every command."""
  return _parser(ALL)


def _parser(command: str | None) -> _Parser:
  parser = _Parser(
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
    if command in (name, ALL):
      add_command(name, sub)
      parser.known_options = sub.known_options = option_strings(sub)
  return parser


def add_command(name: str, parser: argparse.ArgumentParser) -> None:
  """The arguments of one command."""
  importlib.import_module(f"prn_jax.cli.{name}").add_arguments(parser)
  for one in (parser, *subparsers(parser)):
    one.add_argument(
      "--import",
      dest="imports",
      metavar="MODULE",
      action="append",
      default=[],
      help="import an extension first: a module or FILE.py that registers kinds, models or data (docs/extending.md)",
    )


def subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
  """Parsers of the actions of a command, as `prn data inspect`."""
  actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
  return [sub for action in actions for sub in action.choices.values()]


def option_strings(parser: argparse.ArgumentParser) -> list[str]:
  """All options of a command and its actions."""
  return sorted({word for one in (parser, *subparsers(parser)) for word in one._option_string_actions})


def _run(args: argparse.Namespace) -> int:
  from prn_jax import extensions
  from prn_jax.errors import PrnError, printable

  quiet_compiler()
  try:
    with interrupts.in_order():
      extensions.load_installed()
      extensions.load(args.imports)
      return int(importlib.import_module(f"prn_jax.cli.{args.command}").run(args))
  except PrnError as error:
    flag = " On the command line: --lenient." if "strict=False" in str(error) else ""
    print(f"prn {args.command}: {error}{flag}", file=sys.stderr)
    return int(getattr(error, "exit_code", 2))
  except KeyboardInterrupt:
    if interrupts.is_installed:
      interrupts.leave()
    return interrupts.INTERRUPTED
  except Exception as error:
    if problem := disk_problem(error):
      print(f"prn {args.command}: {printable(problem)}", file=sys.stderr)
      return 2
    if isinstance(error, OSError) and error.filename is not None:  # a name too long, a folder without permission, ...
      print(f"prn {args.command}: cannot use '{printable(str(error.filename))}': {error.strerror}.", file=sys.stderr)
      return 2
    logging.getLogger(__name__).exception("internal error; please report it with the command and this text")
    return 3


def disk_problem(error: BaseException) -> str:
  """A sentence if an error comes from a disk that is full or cannot be written, whoever wrapped it; else ""."""
  numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
  signs = [os.strerror(number) for number in numbers]
  at: BaseException | None = error
  for _ in range(20):
    if at is None:
      return ""
    sign = next((text for text in signs if text in str(at)), None)
    if sign:
      place = f" '{at.filename}'" if isinstance(at, OSError) and at.filename else ""
      return f"cannot write{place}: {sign}. Free some space, or write elsewhere; what was there before is unchanged."
    at = at.__cause__ or at.__context__
  return ""


if __name__ == "__main__":
  sys.exit(main())
