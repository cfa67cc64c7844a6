"""`prn completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from prn_jax.cli.common import add_json, print_json

EPILOG = """The script is complete by itself: write it once for every version. Examples:
  prn completion bash > ~/.local/share/bash-completion/completions/prn
  prn completion zsh > ~/.zfunc/_prn        (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  prn completion fish > ~/.config/fish/completions/prn.fish"""
FILES = (
  "weights",
  "weights_a",
  "weights_b",
  "names",
  "out",
  "workdir",
  "config",
  "model",
  "a",
  "b",
  "dst",
  "sources",
  "tracks",
  "truth",
  "detections",
  "scene",
  "check",
  "to",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  import shtab

  from prn_jax.cli.main import full_parser

  parser = full_parser()
  for one in _all(parser):
    for action in one._actions:
      if action.metavar == "SPEC":
        action.complete = _kinds()  # type: ignore[attr-defined]
      elif action.dest in FILES and action.choices is None:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
  script = shtab.complete(parser, args.shell)
  if args.json:
    print_json({"shell": args.shell, "script": script})
  else:
    print(script)
  return 0


@functools.cache
def _kinds() -> dict[str, Any]:
  """How each shell completes a SPEC: by the kinds of data, and in bash, for which a colon ends a word, by files too."""
  from prn_jax.data_pipelines.spec import sources

  kinds = " ".join(f"{source.kind}:" for source in sources())
  return {
    "bash": "_prn_data_kinds",
    "zsh": "_prn_data_kinds",
    "fish": f"(string split ' ' -- '{kinds}')",
    "preamble": {
      "bash": f'_prn_data_kinds() {{\n  compgen -W "{kinds}" -- "$1"\n  compgen -f -- "$1"\n}}',
      "zsh": f"_prn_data_kinds() {{\n  compadd -S '' -- {kinds}\n}}",
    },
  }


def _all(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
  from prn_jax.cli.main import subparsers

  return [parser, *(one for sub in subparsers(parser) for one in _all(sub))]
