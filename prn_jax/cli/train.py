"""`prn train`: trains a network by a configuration file."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prn_jax import compilation_cache
from prn_jax.cli.common import add_json, add_lenient, output_folder, print_json
from prn_jax.cli.devices import announce_device
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.disk import is_file, is_folder

if TYPE_CHECKING:
  from prn_jax.train.config import TrainConfig

CONFIG_HELP = """CONFIG is one of
  NAME or NAME:ARGUMENT   a configuration that comes with the package (configs/demo.py is "demo")
  FILE.py                 one of your own: a file with get_config()
  FILE.cfg                everything that Darknet would take from it: network, loss, learning rate, augmentation
Every key can be set: --config.KEY=VALUE; --print-config shows them all, --list the configurations of the package.
--data, --valid, --model, --epochs, --batch, --weights and --on-bad-data are short for the keys data.train, data.valid,
model, total.epochs, batch_size, weights and data.on_bad_data. Without --config, the model decides: the defaults of its task, or what its .cfg says.

Examples:
  prn train --data yolo:data.yaml:train --valid yolo:data.yaml:val --model yolov3-tiny-prn --epochs 30
  prn train --config=demo --workdir=runs/demo
  prn train --config=yolov4-tiny.cfg --config.data.train=voc:DIR:train --config.data.valid=voc:DIR:val --workdir=runs/mine
  prn train --config=default --config.model=yolov3-tiny-prn --config.total.epochs=30 \\
    --config.data.train=yolo:data.yaml:train --config.weights=yolov3-tiny.conv.15 --workdir=runs/mine

The same command with the same --workdir goes on where the run ended.
Exit codes: 0 done, 1 training diverged, 2 bad input, 3 internal error, 75 asked to stop: saved, run again,
76 another host was lost, is missing or hangs: run again, 78 three starts failed the same way: the message says how."""


MODEL_OPTIONS = "--config.model_options."


SHORT_KEYS = {
  "data": "data.train",
  "valid": "data.valid",
  "model": "model",
  "epochs": "total.epochs",
  "batch": "batch_size",
  "weights": "weights",
  "on_bad_data": "data.on_bad_data",
}
"""Option -> the key of the configuration that it is short for."""


def add_config(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--config", metavar="CONFIG", help="name of a configuration, or a .py or .cfg file")
  parser.add_argument("--data", metavar="SPEC", help="training images, as KIND:PATHS (prn data --help)")
  parser.add_argument("--valid", metavar="SPEC", help="images to evaluate with")
  parser.add_argument("--model", metavar="NAME", help="registered name or .cfg file")
  parser.add_argument("--epochs", type=float, metavar="N", help="length of the run")
  parser.add_argument("--batch", type=int, metavar="N", help="images per update, over all devices")
  parser.add_argument("--weights", metavar="FILE", help="start from these: Darknet weights, or a saved model")
  parser.add_argument(
    "--partial", action="store_true", help="the weights may end after any layer; a training takes such files anyway"
  )
  parser.add_argument("--on-bad-data", choices=("stop", "skip"), help="stop at bad data, or skip, count and list it")
  add_lenient(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = CONFIG_HELP
  add_config(parser)
  parser.add_argument(
    "--workdir",
    metavar="DIR",
    help="run directory: a new one, or that of a run to go on with (default with --model: runs/NAME)",
  )
  parser.add_argument("--list", action="store_true", help="list the configurations that come with the package, and end")
  parser.add_argument("--print-config", action="store_true", help="print the configuration as JSON and end")
  parser.add_argument(
    "--allow-changes", action="store_true", help="go on in a run directory although the configuration has changed"
  )
  add_json(parser)


def run(args: argparse.Namespace) -> int:
  import json

  from prn_jax.hosts.exit_codes import DONE, PREEMPTED
  from prn_jax.train.config import to_dict

  if args.list:
    return _list(args)
  config = open_config(args, is_complete=not args.print_config)
  if args.print_config:
    print(json.dumps(to_dict(config), indent=1))
    return DONE
  if not args.workdir and (args.config or not args.model):
    raise PrnError("give a run directory: --workdir=DIR.")
  folder = output_folder(args.workdir or f"runs/{Path(args.model).stem}", "--workdir")
  compilation_cache.use()

  from prn_jax.formats.checkpoints import FOLDER, complete_steps
  from prn_jax.hosts.group import initialize, nothing_to_save
  from prn_jax.train.advice import warnings
  from prn_jax.train.experiment import open_experiment
  from prn_jax.train.log import say
  from prn_jax.train.loop import train
  from prn_jax.train.outcome import Reason

  hosts = initialize(config.hosts)
  with hosts.guard():
    if hosts.is_main:
      announce_device("train")
    is_resumed = bool(complete_steps(folder / FOLDER))
    with nothing_to_save(hosts):
      experiment = open_experiment(config, is_resumed=is_resumed)
    if hosts.is_main:
      say(_opened(experiment))
      for line in () if is_resumed else warnings(experiment):
        say(f"warning: {line}")
    outcome = train(experiment, folder, hosts, allow_changes=args.allow_changes)
    code = PREEMPTED if outcome.reason is Reason.PREEMPTED else DONE
    if hosts.is_main and args.json:
      print_json(outcome.to_json() | {"workdir": str(folder)})
    elif hosts.is_main and code == DONE:
      print(_summary(outcome, folder), flush=True)
    hosts.close(code)
  return code


def _opened(experiment: Any) -> str:
  """What is about to be trained, with the number of classes, which is the data's whatever the model had."""
  graph, evaluator = experiment.graph, experiment.evaluator
  valid = f"{len(evaluator.dataset):,} to evaluate" if evaluator else "no evaluation (config.data.valid is empty)"
  return (
    f"{graph.name} {graph.width}x{graph.height} for the {len(experiment.names):,} classes of the data: "
    f"{len(experiment.dataset):,} training images, {valid}, {experiment.total_steps:,} steps of "
    f"{experiment.config.batch_size:,} images"
    + "".join(f"\n  {line}" for line in (*experiment.chosen, *_noted(experiment)))
  )


def _noted(experiment: Any) -> list[str]:
  """What the sources understood of the data, but is worth a look."""
  from prn_jax.data_pipelines.records import notes_of

  evaluator = experiment.evaluator
  parts = {"training data": experiment.dataset} | ({"validation data": evaluator.dataset} if evaluator else {})
  return [f"{part}: {note}" for part, dataset in parts.items() for note in notes_of(dataset)]


def _summary(outcome: Any, folder: Path) -> str:
  from prn_jax.train.log import duration

  lines = [f"{outcome.step:,} steps, {duration(outcome.seconds)} in this part of the run"]
  lines += [f"  {key:<6} {value:.4f}" for key, value in outcome.values.items()]
  evaluated = ", eval/" if outcome.values else ""
  return "\n".join([*lines, f"wrote {folder}/: curves, checkpoints{evaluated}. Use it: prn predict {folder} PHOTO"])


def _list(args: argparse.Namespace) -> int:
  """Names of the configurations, with the first line of what each says about itself."""
  found = {name: _first_line(file) for name, file in sorted(shipped_configs().items())}
  if args.json:
    print_json({"configs": found})
    return 0
  width = max(map(len, found))
  print("\n".join(f"{name:<{width}}  {text}" for name, text in found.items()))
  print("\nTrain by one of them: prn train --config=NAME --workdir=DIR", file=sys.stderr)
  return 0


def _first_line(file: Path) -> str:
  text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
  return " ".join(text.split("\n\n")[0].split("\n")[0].split())


def open_config(args: argparse.Namespace, *, is_complete: bool = True) -> TrainConfig:
  """The typed configuration that the command line describes; warns where it hardly says what was meant.

  Raises:
    PrnError: see `read_config` and `train.config.typed`.
  """
  from prn_jax.train.config import typed
  from prn_jax.train.darknet_config import warn_of_unused

  short = [f"--config.{SHORT_KEYS[key]}={value}" for key in SHORT_KEYS if (value := getattr(args, key)) is not None]
  if args.lenient:
    short.append("--config.lenient=True")
  config = typed(read_config(_config_name(args), [*short, *args.config_keys]), is_complete=is_complete)
  warn_of_unused(config)
  return config


def _config_name(args: argparse.Namespace) -> str:
  """--config, or what fits to --model."""
  from prn_jax.formats.darknet_cfg import is_cfg

  if args.config:
    return str(args.config)
  if not args.model:
    raise PrnError(
      "give a configuration, --config=CONFIG ('prn train --list' lists those of the package), or name data and model: "
      "--data SPEC --model NAME --epochs N."
    )
  if is_cfg(args.model):
    return f"from_cfg:{args.model}"
  from prn_jax.loading import load

  return "default:detect" if load(args.model).graph.detects else "default:classify"


def read_config(config: str, overrides: list[str]) -> Any:
  """The ConfigDict of a file, with the overrides of the command line.

  Args:
    config: path of a Python file, or the name of a shipped configuration; ":text" at its end is passed to get_config.
      A .cfg file is short for "from_cfg:FILE.cfg".
    overrides: "--config.key=value".

  Raises:
    PrnError: the file does not exist, fails, or an override names an unknown key or has the wrong type.
  """
  from absl import flags
  from ml_collections import config_flags

  from prn_jax.formats.darknet_cfg import is_cfg

  is_address = re.match(r"\w+://", config) is not None
  if is_address and not is_cfg(config):
    raise PrnError(
      f"configuration '{config}': Python is run from this machine alone; copy the file here. A .cfg is read from a bucket."
    )
  is_bare_cfg = is_cfg(config) and (is_address or ":" not in config)
  path, _, argument = (f"from_cfg:{config}" if is_bare_cfg else config).partition(":")
  lenient = any(one.lower() in ("--config.lenient", "--config.lenient=true") for one in overrides)
  loaded = _load(_find(path), argument, lenient)
  for override in [one for one in overrides if one.startswith(MODEL_OPTIONS)]:
    key, _, text = override.removeprefix(MODEL_OPTIONS).partition("=")
    loaded.model_options[key] = _literal(text)
    overrides = [one for one in overrides if one != override]
  keys = [override.partition("=")[0].removeprefix("--config.") for override in overrides]
  for key in keys:
    _check_key(loaded, key)
  overrides = [*overrides, *_other_units(loaded, keys)]
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict("config", loaded, flag_values=values, sys_argv=["prn", *overrides])
    left = values(["prn", *overrides])
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise PrnError(f"{_config_reason(error)}. 'prn train --config={config} --print-config' shows all keys.") from None
  assert left == ["prn"], left
  return values.config


def _other_units(config: Any, keys: Collection[str]) -> list[str]:
  """Overrides with which a length of the command line takes the place of that of the configuration, whatever its unit. Two units
  of one length on the command line stay, and are refused."""
  from prn_jax.train.config import Duration

  units = [field.name for field in dataclasses.fields(Duration)]
  found = []
  for length in sorted({key.rpartition(".")[0] for key in keys if key.rpartition(".")[2] in units}):
    group = config
    for name in length.split("."):
      group = group.get(name, {}) if hasattr(group, "keys") else {}
    if hasattr(group, "keys") and set(units) <= set(group.keys()):
      found += [f"--config.{length}.{unit}=0" for unit in units if f"{length}.{unit}" not in keys]
  return found


def _literal(text: str) -> Any:
  """A number, list, ... as Python writes it; else the text itself."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _check_key(config: Any, key: str) -> None:
  """Raises PrnError unless a configuration has a key like "optim.learning_rate"; open groups take any."""
  group, where = config, "config"
  for name in re.sub(r"\[\d+\]", "", key).split("."):
    if not hasattr(group, "keys") or not group.is_locked:
      return
    if name not in group:
      raise PrnError(
        f"--config.{key}: {where} has no key '{name}'{did_you_mean(name, list(group))}. It has {', '.join(sorted(group))}."
      )
    group, where = group[name], f"{where}.{name}"


def _load(file: Path, argument: str, lenient: bool = False) -> Any:
  """What get_config() of a file gives; told to be `lenient` if it reads a cfg. As in a script, `import` finds the files
  beside it."""
  import importlib.util

  needs_argument = False
  spec = importlib.util.spec_from_file_location(f"prn_config_{file.stem}", file)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses look their module up
  folder = str(file.resolve().parent)
  sys.path.insert(0, folder)
  try:
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
      raise PrnError(f"configuration '{file}' has no function get_config(); see the shipped ones (configs/demo.py).")
    parameters = inspect.signature(module.get_config).parameters
    needs_argument = not argument and bool(parameters)
    options = {"lenient": True} if lenient and "lenient" in parameters else {}
    return module.get_config(*[argument] if argument else [], **options)
  except PrnError:
    raise
  except Exception as error:  # whatever the user's code does
    hint = " Did you give the argument that it needs, as --config=FILE:ARGUMENT?" if needs_argument else ""
    reason = str(error).rstrip(".")
    raise PrnError(
      f"configuration '{file}' fails{_line_of(error, file)}: {type(error).__name__}: {reason}.{hint}"
    ) from error
  finally:
    sys.path.remove(folder)


def _line_of(error: Exception, file: Path) -> str:
  """ " in line 7", where the user's own file has a part in the error."""
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
  return f" in line {lines[-1]}" if lines else ""


def _config_reason(error: Exception) -> str:
  return str(error).replace("FATAL Flags parsing error:", "").strip().rstrip(".")


def _find(name: str) -> Path:
  """The file of a configuration: a path, or the name of a shipped one."""
  path = Path(name)
  if path.suffix == ".py":
    if is_file(path):
      return path
    near = [str(p) for p in path.parent.glob("*.py")] if is_folder(path.parent) else []
    raise PrnError(f"configuration file '{name}' does not exist{did_you_mean(name, near)}.")
  shipped = shipped_configs()
  if name not in shipped:
    raise PrnError(
      f"no configuration is called '{name}'{did_you_mean(name, shipped)}. Shipped are {', '.join(sorted(shipped))}; a "
      "file of your own is given by its path, ending in .py or .cfg."
    )
  return shipped[name]


def shipped_configs() -> dict[str, Path]:
  """Name -> file of the configurations of the package, and of its extensions."""
  from prn_jax import configs, extensions

  folders = [*map(Path, configs.__path__), *extensions.config_folders()]
  return {p.stem: p for folder in reversed(folders) for p in folder.glob("*.py") if not p.stem.startswith("_")}
