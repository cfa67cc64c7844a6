"""What several commands share."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prn_jax import compilation_cache
from prn_jax.cli.devices import announce_device
from prn_jax.errors import PrnError
from prn_jax.files.json_text import json_text
from prn_jax.files.places import make_folder, to_path

if TYPE_CHECKING:
  from prn_jax.graph.graph import Graph
  from prn_jax.model import Model

T = TypeVar("T")


def add_json(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")


def add_model(
  parser: argparse.ArgumentParser,
  name: str = "model",
  help: str = "registered name, .cfg file or saved model",
  *,
  nargs: str | None = None,
) -> None:
  parser.add_argument(name, metavar=name.upper(), help=help, nargs=nargs)
  add_lenient(parser)


def add_lenient(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--lenient", action="store_true", help="keep unknown cfg keys instead of refusing them (strict=False)"
  )


def add_weights(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--weights", metavar="FILE", help="Darknet weights, or a saved model, for MODEL")
  add_partial(parser)
  parser.add_argument("--names", metavar="FILE", help="class names, one per line")


def add_partial(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--partial",
    action="store_true",
    default=None,
    help="the weights file may end after any layer (a backbone); the rest stays random. Automatic for *.conv.N",
  )


def load_model(args: argparse.Namespace) -> Model:
  """The model that `add_model` and `add_weights` describe.

  Raises:
    PrnError: see `prn_jax.load`; or --partial without a Darknet weights file that it could be about.
  """
  from prn_jax.loading import load

  if args.partial and not (args.weights and not to_path(args.weights).is_dir() and not is_saved_file(args.weights)):
    given = f"'{args.weights}' is a saved model, which is whole" if args.weights else "no --weights is given"
    raise PrnError(f"--partial says that a Darknet weights file may end early, but {given}. Leave it out.")
  return load(args.model, args.weights, args.names, strict=not args.lenient, partial=args.partial)


def add_backend(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--backend",
    metavar="NAME",
    help="what computes the network: jax (default), onnxruntime, openvino, or auto: JAX on an accelerator, on the CPU the first of "
    "these that is installed. A MODEL that is an .onnx file of ours is run by onnxruntime unless openvino is named",
  )


def open_model(args: argparse.Namespace) -> tuple[Model, Any]:
  """The model that `add_model`, `add_weights` and `add_backend` describe, and what computes its heads; None is JAX.

  Raises:
    PrnError: see `load_model` and `export.backends`; or it has no weights.
  """
  from prn_jax.export import backends

  asked = args.backend
  if backends.is_onnx(args.model):
    if given := [name for name in ("weights", "partial", "names") if getattr(args, name)]:
      raise PrnError(f"'{args.model}' holds its weights and names; leave --{given[0]} out.")
    if asked == backends.JAX:
      raise PrnError(
        f"--backend jax: '{args.model}' is run by onnxruntime or openvino; JAX takes the model it came from."
      )
    engine = None if asked in (None, backends.AUTO) else backends.chosen(asked)
    return backends.open_onnx(args.model, engine)
  engine = None
  if asked is not None:
    import jax

    engine = backends.chosen(asked, jax.default_backend())
  model = load_model(args)
  require_weights(model, args.model)
  if asked == backends.AUTO:
    print(f"--backend auto: {engine.name if engine else backends.JAX}", file=sys.stderr)
  return model, backends.exported(model, engine) if engine else None


def is_saved_file(path: str) -> bool:
  """Whether a file carries its own network."""
  return Path(path).suffix == ".safetensors"


def require_weights(model: Model, name: str) -> None:
  """Raises PrnError for a model whose weights would be random."""
  if model.has_weights:
    return
  from prn_jax.zoo import manifest as zoo

  fetch = f" 'prn models --download {name}' fetches published ones." if name in zoo.ENTRIES else ""
  raise PrnError(f"'{name}' has no weights, so its answers would be random. Give them with --weights FILE.{fetch}")


def parse_size(text: str) -> tuple[int, int]:
  """ "608x352" -> (608, 352), width and height in pixels; PrnError for anything else."""
  width, _, height = text.lower().partition("x")
  if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
    raise PrnError(f"--size {text}: expected WIDTHxHEIGHT in pixels, for example 416x416.")
  return int(width), int(height)


def resized(graph: Graph, size: str) -> Graph:
  """The graph for input of another size, "WxH"; PrnError names the nearest sizes that fit."""
  from prn_jax.graph.sizes import resized

  return resized(graph, parse_size(size), f"--size {size}")


def output_folder(path: str, option: str = "--out") -> Path:
  """Makes a folder for results before the work starts; PrnError, naming the `option`, if that cannot be."""
  folder = to_path(path)
  try:
    make_folder(folder)
  except OSError as error:
    reason = "it is a file" if folder.is_file() else error.strerror
    raise PrnError(f"cannot write results to '{path}': {reason}. Give a folder with {option}.") from None
  return folder


def print_json(value: dict[str, Any]) -> None:
  """Prints one line of JSON; infinite and undefined numbers become null, which JSON can hold."""
  print(json_text(value), flush=True)


def start_computing(command: str) -> None:
  """Before a command computes: compiled programs are kept on disk, and the device is named."""
  compilation_cache.use()
  announce_device(command)


def program_name(model: Model, batch_size: int = 1) -> str:
  """What a compiled network is called in `compiling`."""
  import jax

  g = model.graph
  return f"{g.name} {g.width}x{g.height}, batch {batch_size}, {jax.default_backend()}"


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
  """Passes `items` on; on a terminal a bar on stderr shows how far they are."""
  with progress_bar(total, what) as advance:
    for item in items:
      yield item
      advance(1)


@contextlib.contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
  """Gives what to call with the number of things that are done; on a terminal a bar on stderr shows how far they are."""
  if not sys.stderr.isatty():
    yield lambda done: None
    return
  from rich.console import Console
  from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

  columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
  with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
    task = bar.add_task(what, total=total or None)  # 0: not known
    yield lambda done: bar.advance(task, done)


def return_freed_memory() -> None:
  """Makes glibc give large freed arrays back to the system at once. By default it keeps them after the first time,
  and a conversion, which holds the weights several times in turn, would seem to need them all together."""
  import ctypes

  mmap_threshold, one_mebibyte = -3, 1 << 20
  with contextlib.suppress(OSError, AttributeError):  # another C library
    ctypes.CDLL(None).mallopt(mmap_threshold, one_mebibyte)
