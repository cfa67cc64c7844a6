"""Every option that a message names exists in the commands that print the message."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prn_jax.cli.main import COMMANDS, full_parser, option_strings, subparsers
from tests.conftest import REPO

TRAINS = ("train", "plan")
READS = ("summary", "analyze", "predict", "eval", "track", "count", "convert", "verify", *TRAINS)  # open a cfg
WEIGHTS = ("summary", "predict", "eval", "track", "count", "convert", "verify", *TRAINS)  # read a weights file
# Module, or beginning of its path -> the commands that print its messages. A command's own module prints its own.
PRINTED_BY: dict[str, tuple[str, ...]] = {
  "quantize/": ("quantize",),
  "classify/metrics.py": ("eval",),
  "prune/": ("prune",),
  "cli/main.py": READS,
  "data_pipelines/convert/": ("data",),
  "data_pipelines/prepared/prepare.py": ("data",),
  "data_pipelines/records.py": ("data", "eval", *TRAINS),
  "data_pipelines/feed/batching.py": ("eval", *TRAINS),
  "data_pipelines/doctor/": ("data",),
  "export/convert.py": ("convert",),
  "export/onnx_boxes.py": ("convert",),
  "export/backends.py": ("predict", "eval", "track", "count"),
  "extensions.py": tuple(COMMANDS),
  "formats/darknet_weights.py": WEIGHTS,
  "formats/timm.py": ("convert",),
  "hosts/": TRAINS,
  "run/compare.py": ("models",),
  "run/data_facts.py": ("data",),
  "run/evaluate.py": ("eval",),
  "run/save.py": ("predict",),
  "track/follow.py": ("track",),
  "track/metrics/": ("eval",),
  "track/count.py": ("count",),
  "track/count_truth.py": ("count",),
  "track/scene.py": ("count",),
  "track/source.py": ("track", "count"),
  "track/readers.py": ("track",),
  "cli/predict_videos.py": ("predict",),
  "train/": TRAINS,
  "train/lock.py": ("train",),
  "train/plan.py": ("plan",),
  "train/roofline.py": ("plan",),
  "train/rundir.py": ("train",),
  "zoo/fetch.py": ("models",),
}
SHARED = {
  "load_model": ("summary", "predict", "eval", "convert", "track", "count"),
  "open_model": ("predict", "eval", "track", "count"),
  "require_weights": ("predict", "eval", "track", "count"),
}  # in common.py
NO_MESSAGES = ("cli/words.py", "experiments/")  # a table of others' words; programs of their own
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*(?:\.[a-z0-9_.]*[a-z0-9_])?")
OTHER_PROGRAM = re.compile(r"\b(docker run|pip install|make|curl) [^.;)]*$")
COMMAND = re.compile(r"\bprn ([a-z]+)(?: [a-z]+)?\b[^;')]*$")


def texts(source: str) -> Iterator[tuple[str, str]]:
  """(enclosing function, text) of all strings that are no docstrings; what an f-string fills in becomes X."""
  tree = ast.parse(source)
  yield from _texts(tree, "")


def _texts(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
  body = getattr(node, "body", None)
  docstring = body[0] if isinstance(body, list) and body and _is_text(body[0]) else None
  for child in ast.iter_child_nodes(node):
    if child is docstring:
      continue
    if isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant):
      continue  # a part of a text that was taken whole
    if isinstance(child, ast.JoinedStr):
      yield function, "".join(v.value if isinstance(v, ast.Constant) else "X" for v in child.values)
    elif isinstance(child, ast.Constant) and isinstance(child.value, str):
      yield function, child.value
    name = child.name if isinstance(child, ast.FunctionDef) else function
    yield from _texts(child, name)


def _is_text(node: ast.AST) -> bool:
  return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def options_of_commands() -> dict[str, list[str]]:
  actions = [a for a in full_parser()._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
  return {name: option_strings(sub) for name, sub in actions[0].choices.items()}


def wrong_options(text: str, printed_by: tuple[str, ...], known: dict[str, list[str]]) -> list[str]:
  """Options in a message that the command it speaks of, or one of those that print it, does not have."""
  found = []
  for match in OPTION.finditer(text):
    before, option = text[: match.start()], match[0]
    if OTHER_PROGRAM.search(before):
      continue
    named = COMMAND.search(before)
    if named and named[1] in known:
      commands: tuple[str, ...] = (named[1],)
    else:
      commands = printed_by
    is_config = option.startswith("--config.")
    missing = [c for c in commands if (c not in TRAINS if is_config else option not in known[c])]
    found += [f"{option} in prn {command}" for command in missing]
  return found


def who_prints(module: str) -> tuple[str, ...]:
  """The commands of the longest entry that the module's path begins with."""
  return PRINTED_BY.get(max((key for key in PRINTED_BY if module.startswith(key)), key=len, default=""), ())


def modules() -> Iterator[tuple[str, str]]:
  root = REPO / "prn_jax"
  for folder, _, names in os.walk(root, followlinks=True):
    for name in sorted(names):
      path = Path(folder, name)
      relative = path.relative_to(root).as_posix()
      if name.endswith(".py") and not relative.startswith(NO_MESSAGES):
        yield relative, path.read_text(encoding="utf-8")


def test_options_in_messages_exist() -> None:
  known = options_of_commands()
  problems = []
  for module, source in modules():
    command = Path(module).stem if module.startswith("cli/") and Path(module).stem in COMMANDS else None
    for function, text in texts(source):
      printed_by = (command,) if command else who_prints(module)
      if text.startswith("--") and " " not in text:
        continue  # an argument or its name, no message
      if module == "cli/common.py":
        printed_by = SHARED.get(function, ())
      bare = [m for m in OPTION.finditer(text) if not OTHER_PROGRAM.search(text[: m.start()])]
      named = all((found := COMMAND.search(text[: m.start()])) and found[1] in known for m in bare)
      if bare and not named and not printed_by and not module.startswith("cli/"):
        problems.append(f"{module}: who prints {text!r}? Add it to PRINTED_BY.")
      problems += [f"{module}: {wrong} ({text[:80]!r})" for wrong in wrong_options(text, printed_by, known)]
  assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
  ("message", "printed_by", "wrong"),
  [
    ("say so: --partial", ("convert",), []),
    ("say so: --partial", ("convert", "models"), ["--partial in prn models"]),
    ("see prn predict X --weights FILE", ("analyze",), []),
    ("see prn analyze X --weights FILE", ("predict",), ["--weights in prn analyze"]),
    ("give --nosuch", ("data",), ["--nosuch in prn data"]),
    ("docker run --shm-size=8g", ("train",), []),
    ("give --config.seed=3", ("train", "predict"), ["--config.seed in prn predict"]),
  ],
)
def test_the_check_finds_what_it_should(message: str, printed_by: tuple[str, ...], wrong: list[str]) -> None:
  assert wrong_options(message, printed_by, options_of_commands()) == wrong


def test_keys_of_the_configuration_in_messages_exist() -> None:
  """--config.KEY in any text, docstrings too, is a key of some task."""
  from prn_jax.train.config import default_config

  configs = [default_config("detect"), default_config("classify")]
  for module, source in modules():
    for match in re.finditer(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", source):
      *groups, key = match[1].split(".")
      holders = configs
      for group in groups:
        holders = [h[group] for h in holders if hasattr(h, "keys") and group in h]
      assert any(key in h for h in holders) or groups == ["model_options"] or match[1] == "key", f"{module}: {match[0]}"


def test_models_are_read_with_the_same_options_everywhere() -> None:
  known = options_of_commands()
  assert all("--lenient" in known[command] for command in READS)
  assert all("--partial" in known[command] for command in WEIGHTS)
  assert all("--weights" in known[command] or "--weights-a" in known[command] for command in WEIGHTS)
  assert all("--names" in known[command] for command in ("summary", "predict", "eval", "convert"))
  assert all("--import" in known[command] for command in COMMANDS)


def test_actions_have_the_options_of_every_command() -> None:
  actions = [a for a in full_parser()._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
  for sub in subparsers(actions[0].choices["data"]):
    assert "--import" in sub._option_string_actions
