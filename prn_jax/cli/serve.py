"""`prn serve`: a model behind HTTP."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prn_jax import interrupts
from prn_jax.cli.common import (
  add_json,
  add_model,
  add_weights,
  load_model,
  print_json,
  program_name,
  require_weights,
  start_computing,
)
from prn_jax.cli.predict import add_detection, detection_options
from prn_jax.compiling import compiling
from prn_jax.errors import PrnError

if TYPE_CHECKING:
  import uvicorn

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GRACE_SEC = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  add_weights(parser)
  parser.add_argument(
    "--host", metavar="ADDRESS", default=LOOPBACK[0],
    help="where to listen (default 127.0.0.1: this machine alone; 0.0.0.0: every network that it is in)",
  )  # fmt: skip
  parser.add_argument(
    "--port", type=int, default=8000, metavar="N", help="port (default 8000); 0 takes one that is free"
  )
  parser.add_argument("--batch", type=int, default=8, metavar="N", help="images per run of the network (default 8)")
  parser.add_argument("--max-mb", type=float, default=20.0, metavar="N", help="largest request (default 20)")
  parser.add_argument(
    "--timeout", type=float, default=30.0, metavar="SEC", help="until a photo must be there, and answered (default 30)"
  )
  parser.add_argument(
    "--waiting", type=int, default=512, metavar="N", help="photos that are worked on at a time; more get status 503"
  )
  parser.add_argument(
    "--count", metavar="OUT", help="folder of a `prn count` that runs, or will: its totals are at /count, as they grow"
  )
  add_detection(parser)
  add_json(parser)
  parser.epilog = (
    f"{parser.epilog or ''}\nPOST /predict takes a photo and gives JSON (?format=image: the photo with its boxes; ?conf=, ?nms=, ?classes=). "
    "GET / is a page, /healthz and /metrics are for machines. Ctrl-C or SIGTERM ends the server, after it has answered."
  )


def run(args: argparse.Namespace) -> int:
  try:
    from prn_jax.serve.app import make_app
  except ModuleNotFoundError as error:
    raise PrnError(f"prn serve needs the package '{error.name}': pip install 'prn-jax[serve]'.") from None
  from prn_jax.run.images import is_detector

  settings = _settings(args)
  options = detection_options(args)
  with _bound(args.host, args.port) as listener:
    start_computing("serve")
    model = load_model(args)
    require_weights(model, args.model)
    with compiling(program_name(model, args.batch)):
      app = make_app(model, options if is_detector(model) else None, settings)
    server = _server(app)
    listener.listen()  # before the address is told: who hears it may come at once
    host, port = listener.getsockname()[:2]
    print(f"prn serve: {model.graph.name} at http://{f'[{host}]' if ':' in host else host}:{port}/", file=sys.stderr)
    if args.host not in LOOPBACK:
      print(
        "prn serve: whoever reaches this machine reaches the server: it knows no passwords and no encryption; put a proxy in front of it",
        file=sys.stderr,
      )
    _serve(server, listener)
  if args.json:
    print_json({"requests": server.server_state.total_requests})
  return 0


def _settings(args: argparse.Namespace) -> Any:
  from prn_jax.serve.settings import ServeSettings

  if not 0 <= args.port <= 65535:
    raise PrnError(f"--port {args.port}: expected 0 to 65535.")
  hosts = ("localhost", "127.0.0.1", "[::1]") if args.host in LOOPBACK else ()
  for option, field in (
    ("--batch", "batch"),
    ("--max-mb", "max_mb"),
    ("--timeout", "timeout_sec"),
    ("--waiting", "waiting"),
  ):
    value = getattr(args, option[2:].replace("-", "_"))
    try:
      ServeSettings(**{field: value})
    except PrnError as error:
      raise PrnError(f"{option} {value:g}: {str(error).partition('; ')[2]}") from None
  return ServeSettings(
    batch=args.batch, max_mb=args.max_mb, timeout_sec=args.timeout, waiting=args.waiting, hosts=hosts,
    count=_count_folder(args.count),
  )  # fmt: skip


def _count_folder(given: str | None) -> Path | None:
  """The folder of a count, which need not be there yet."""
  from prn_jax.files.places import is_remote, to_path

  if given is None:
    return None
  folder = to_path(given)
  if is_remote(folder):
    raise PrnError(f"--count {given}: a count is watched on this machine alone; give a folder of it.")
  if folder.exists() and not folder.is_dir():
    raise PrnError(f"--count {given} is a file; expected the folder that `prn count` writes to.")
  return folder


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
  """A socket that listens there; what cannot be is said before the network is compiled."""
  try:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
  except OSError as error:
    raise PrnError(f"--host {host}: {error.strerror or error}; expected an address of this machine.") from None
  with listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      listener.bind(address)
    except OSError as error:
      raise PrnError(
        f"cannot listen at port {port} of {host}: {error.strerror}. Give another one with --port (0: any that is free)."
      ) from None
    yield listener


def _server(app: Any) -> uvicorn.Server:
  import uvicorn

  class Server(uvicorn.Server):
    """Leaves the signals to this command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
      yield

  return Server(
    uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SEC, server_header=False)
  )


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
  """Answers until Ctrl-C or SIGTERM; what is being worked on is answered first."""
  import asyncio

  def end(number: int, frame: object) -> None:
    server.should_exit = True

  def notice() -> None:
    print("prn serve: ends as soon as all is answered (Ctrl-C again: at once)", file=sys.stderr)

  kept = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    with interrupts.patient(notice):
      asyncio.run(server.serve(sockets=[listener]))
  finally:
    for number, handler in kept.items():
      signal.signal(number, handler)
