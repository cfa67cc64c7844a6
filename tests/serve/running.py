"""A server in a thread, and its clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from prn_jax.model import Model
from prn_jax.run.detector import DetectOptions
from prn_jax.run.images import is_detector
from prn_jax.serve.settings import ServeSettings

LOOPBACK = "127.0.0.1"


class Answer(NamedTuple):
  status: int
  headers: dict[str, str]
  body: bytes

  @property
  def json(self) -> Any:
    return json.loads(self.body)

  @property
  def error(self) -> str:
    return str(self.json["error"])


class Server(NamedTuple):
  """A running server."""

  port: int
  app: Any

  def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=60)
    with contextlib.closing(connection):
      connection.request(method, path, body, headers or {})
      answer = connection.getresponse()
      return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())

  def predict(self, body: bytes, query: str = "", headers: dict[str, str] | None = None) -> Answer:
    return self.ask("POST", f"/predict{query}", body, headers)


@contextlib.contextmanager
def serving(model: Model, settings: ServeSettings, options: DetectOptions | None = None) -> Iterator[Server]:
  """The server, until the body ends."""
  import uvicorn

  from prn_jax.serve.app import make_app

  app = make_app(model, (options or DetectOptions()) if is_detector(model) else None, settings)
  server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=5))
  with socket.create_server((LOOPBACK, 0)) as listener:
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
      yield Server(listener.getsockname()[1], app)
    finally:
      server.should_exit = True
      thread.join(30)
