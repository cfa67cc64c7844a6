"""A server on this machine that misbehaves as it is told, for tests of downloads."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace


@dataclasses.dataclass
class Served:
  """One file of the server, and how it misbehaves: the lists are used up, one item a request."""

  content: bytes
  etag: str | None = '"one"'
  ranges: bool = True
  knows_if_range: bool = True
  says_length: bool = True
  kind: str = "application/octet-stream"
  statuses: list[int] = dataclasses.field(default_factory=list)
  cuts: list[int] = dataclasses.field(default_factory=list)  # bytes after which the connection closes
  pauses: list[float] = dataclasses.field(default_factory=list)  # before the body, in seconds
  location: str | None = None


class Handler(BaseHTTPRequestHandler):
  def do_GET(self) -> None:
    server = self.server
    server.requests.append(SimpleNamespace(path=self.path, headers=dict(self.headers)))  # type: ignore[attr-defined]
    file: Served | None = server.files.get(self.path)  # type: ignore[attr-defined]
    if file is None:
      self.send_error(404)
    elif file.statuses:
      self.send_error(file.statuses.pop(0))
    elif file.location:
      self.send_response(302)
      self.send_header("Location", file.location)
      self.end_headers()
    else:
      self.answer(file)

  def answer(self, file: Served) -> None:
    start, wanted, condition = 0, self.headers.get("Range"), self.headers.get("If-Range")
    if wanted and file.ranges and not (file.knows_if_range and condition not in (None, file.etag)):
      start = int(wanted.removeprefix("bytes=").rstrip("-"))
      if start >= len(file.content):
        self.send_error(416)
        return
      self.send_response(206)
      self.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{len(file.content)}")
    else:
      self.send_response(200)
    body = file.content[start:]
    self.send_header("Content-Type", file.kind)
    if file.says_length:
      self.send_header("Content-Length", str(len(body)))
    if file.etag:
      self.send_header("ETag", file.etag)
    self.end_headers()
    if file.pauses:
      time.sleep(file.pauses.pop(0))
    self.wfile.write(body[: file.cuts.pop(0)] if file.cuts else body)

  def log_message(self, format: str, *args: object) -> None:
    pass


class QuietServer(ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request: object, client_address: object) -> None:
    """Clients that hang up are part of the tests."""


@contextlib.contextmanager
def serving() -> Iterator[SimpleNamespace]:
  """A server on a free port: `serve(file, path)` gives the address; `files`, `requests` and `port` of it."""
  with QuietServer(("127.0.0.1", 0), Handler) as http_server:
    http_server.files, http_server.requests = {}, []  # type: ignore[attr-defined]
    threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
    files: dict[str, Served] = http_server.files  # type: ignore[attr-defined]

    def serve(file: Served, path: str = "/file") -> str:
      files[path] = file
      return f"http://127.0.0.1:{http_server.server_port}{path}"

    yield SimpleNamespace(serve=serve, files=files, requests=http_server.requests, port=http_server.server_port)  # type: ignore[attr-defined]
    http_server.shutdown()


def names(folder: Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir())
