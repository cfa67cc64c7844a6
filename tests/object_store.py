"""An object store on this machine that speaks the part of Google Cloud Storage's JSON API which its clients use here.

Objects lie in memory, each change of one is seen at once by all, and there is no append and no folder, as in the real one.
It can be told to fail: with 503 before or after it has done what was asked, or by hanging up. It counts what is written,
so that a test can stop a client at any write.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import random
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BUCKET = "bucket"
PAGE = 1000  # objects in one answer of a list
NOW = "2026-01-01T00:00:00.000000Z"


@dataclasses.dataclass
class Object:
  data: bytes
  generation: int
  updated: float  # seconds since 1970


@dataclasses.dataclass
class Faults:
  """How often the store misbehaves: shares of all requests."""

  refused: float = 0.0  # 503, nothing done
  done_but_refused: float = 0.0  # 503, although it was done
  dropped: float = 0.0  # the connection closes without an answer
  slow: float = 0.0
  slow_sec: float = 0.2
  seed: int = 0


class Missing(Exception):
  """404"""


class Unmet(Exception):
  """412: a precondition on the generation."""


class ObjectStore:
  """The store; `url` is where it answers.

  Attributes:
    objects: name -> object of the only bucket.
    forbids: answers 403 to everything.
    on_write: called with "PUT name" or "DELETE name" for every change of an object, before it happens.
    writes: those of all changes, with their time.
  """

  def __init__(self) -> None:
    self.objects: dict[str, Object] = {}
    self.faults, self.forbids = Faults(), False
    self.on_write: Callable[[str], None] = lambda what: None
    self.writes: list[tuple[float, str]] = []
    self.num_requests = self.num_faults = 0
    self.lock = threading.RLock()
    self.url = ""
    self._uploads: dict[str, tuple[str, dict[str, str], bytearray]] = {}
    self._generation = 1_000_000
    self._random = random.Random(0)

  def clear(self) -> None:
    """An empty store that behaves."""
    with self.lock:
      self.objects, self.faults, self.forbids, self.writes = {}, Faults(), False, []
      self.num_requests = self.num_faults = 0
      self.on_write = lambda what: None

  def fill(self, folder: Path, prefix: str) -> None:
    """Makes objects below `prefix` of all files below `folder`."""
    for path in folder.rglob("*"):
      if path.is_file():
        self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

  def names(self, prefix: str = "") -> list[str]:
    with self.lock:
      return sorted(name for name in self.objects if name.startswith(prefix))

  def read(self, name: str) -> bytes:
    return self.objects[name].data

  def put(self, name: str, data: bytes, age_sec: float = 0) -> Object:
    with self.lock:
      self._generation += 1
      self.objects[name] = Object(data, self._generation, time.time() - age_sec)
      return self.objects[name]

  def misbehave(self) -> str:
    """What goes wrong with the next request, or "": see `Faults`."""
    with self.lock:
      self.num_requests += 1
      faults, point = self.faults, self._random.random()
      for kind in ("refused", "done_but_refused", "dropped"):
        point -= getattr(faults, kind)
        if point < 0:
          self.num_faults += 1
          return kind
      if self._random.random() < faults.slow:
        time.sleep(faults.slow_sec)
      return ""

  # -- the operations ----------------------------------------------------------------------------------------------------

  def check(self, name: str, query: dict[str, str]) -> None:
    """Raises Unmet unless the preconditions of a request hold."""
    now = self.objects[name].generation if name in self.objects else 0
    wanted, other = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
    if (wanted is not None and int(wanted) != now) or (other is not None and int(other) == now):
      raise Unmet

  def described(self, name: str) -> dict[str, Any]:
    if name not in self.objects:
      raise Missing(name)
    found = self.objects[name]
    return {
      "kind": "storage#object",
      "bucket": BUCKET,
      "name": name,
      "size": str(len(found.data)),
      "generation": str(found.generation),
      "metageneration": "1",
      "timeCreated": NOW,
      "updated": datetime.datetime.fromtimestamp(found.updated, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
      "md5Hash": base64.b64encode(hashlib.md5(found.data).digest()).decode(),
    }

  def upload(self, name: str, data: bytes, query: dict[str, str]) -> dict[str, Any]:
    self._note(f"PUT {name}")
    with self.lock:
      self.check(name, query)
      self.put(name, data)
      return self.described(name)

  def _note(self, what: str) -> None:
    self.on_write(what)
    self.writes.append((time.monotonic(), what))

  def delete(self, name: str, query: dict[str, str]) -> None:
    self._note(f"DELETE {name}")
    with self.lock:
      if name not in self.objects:
        raise Missing(name)
      self.check(name, query)
      del self.objects[name]

  def listing(self, query: dict[str, str]) -> dict[str, Any]:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start, end = query.get("startOffset", ""), query.get("endOffset", "")
    after, most = query.get("pageToken", ""), min(int(query.get("maxResults", PAGE)), PAGE)
    items: list[str] = []
    folders: list[str] = []
    with self.lock:
      for name in self.names(prefix):
        if name < start or (end and name >= end):
          continue
        rest = name[len(prefix) :]
        shown = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else name
        if shown <= after or shown in folders[-1:]:
          continue
        if len(items) + len(folders) == most:
          return self._page(items, folders) | {"nextPageToken": max([*items, *folders])}
        (items if shown == name else folders).append(shown)
      return self._page(items, folders)

  def _page(self, items: list[str], folders: list[str]) -> dict[str, Any]:
    page: dict[str, Any] = {"kind": "storage#objects"}
    if items:
      page["items"] = [self.described(name) for name in items]
    if folders:
      page["prefixes"] = folders
    return page

  def begin_upload(self, name: str, query: dict[str, str]) -> str:
    with self.lock:
      session = f"upload{len(self._uploads)}"
      self._uploads[session] = (name, query, bytearray())
      return session

  def continue_upload(self, session: str, data: bytes, content_range: str) -> dict[str, Any] | int:
    """The object if this was the last part, else how many bytes have come."""
    with self.lock:
      name, query, so_far = self._uploads[session]
      found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", content_range)
      if found and found[1]:
        del so_far[int(found[1]) :]
      so_far += data
      if found and (found[3] == "*" or int(found[3]) > len(so_far)):
        return len(so_far)
      del self._uploads[session]
      return self.upload(name, bytes(so_far), query)


class _Handler(BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  store: ObjectStore

  def handle_request(self) -> None:
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    body = self._body()
    kind = self.store.misbehave()
    if kind == "refused":
      return self._answer(503, {"error": {"code": 503, "message": "try again"}})
    if kind == "dropped":
      self.close_connection = True
      return None
    if self.store.forbids:
      return self._answer(403, {"error": {"code": 403, "message": "caller has no access to the bucket"}})
    try:
      status, content, headers = self._do(url.path, query, body)
    except Missing:
      status, content, headers = 404, {"error": {"code": 404, "message": f"No such object: {url.path}"}}, {}
    except Unmet:
      status, content, headers = 412, {"error": {"code": 412, "message": "conditionNotMet"}}, {}
    if kind == "done_but_refused":
      return self._answer(503, {"error": {"code": 503, "message": "try again"}})
    return self._answer(status, content, headers)

  do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request

  def _do(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any, dict[str, str]]:
    if path.startswith("/session/"):
      return self._continued(path.rsplit("/", 1)[1], body)
    upload = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path)
    if upload and upload[1] == BUCKET:
      return self._uploaded(query, body)
    found = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(/o(?:/([^/]+)(/.*)?)?)?", path)
    if not found or found[1] != BUCKET:
      raise Missing
    if not found[2]:
      return 200, {"kind": "storage#bucket", "name": BUCKET, "location": "US", "storageClass": "STANDARD"}, {}
    if not found[3]:
      return 200, self.store.listing(query), {}
    name = urllib.parse.unquote(found[3])
    if found[4]:
      return self._copied(name, found[4], query)
    if self.command == "DELETE":
      self.store.delete(name, query)
      return 204, b"", {}
    self.store.described(name)
    if query.get("alt") != "media":
      self.store.check(name, query)
      return 200, self.store.described(name), {}
    return self._content(name, query)

  def _content(self, name: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
    with self.store.lock:
      found = self.store.objects[name]
      if query.get("ifGenerationNotMatch") == str(found.generation):
        return 304, b"", {}
      self.store.check(name, query)
    headers = {"x-goog-generation": str(found.generation), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
    if not wanted:
      return 200, found.data, headers
    size = len(found.data)
    start = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
    stop = min(int(wanted[2]) + 1, size) if wanted[1] and wanted[2] else size
    if start >= size:
      return 416, b"", headers | {"Content-Range": f"bytes */{size}"}
    return 206, found.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}

  def _uploaded(self, query: dict[str, str], body: bytes) -> tuple[int, Any, dict[str, str]]:
    if query["uploadType"] == "media":
      return 200, self.store.upload(query["name"], body, query), {}
    if query["uploadType"] == "multipart":
      boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
      assert boundary
      _, first, second, _ = body.split(f"--{boundary[1]}".encode())
      name = json.loads(first.replace(b"\r\n", b"\n").partition(b"\n\n")[2])["name"]
      return 200, self.store.upload(name, second.partition(b"\n\n")[2][:-1], query), {}
    name = query.get("name") or json.loads(body)["name"]
    return 200, b"", {"Location": f"{self.store.url}/session/{self.store.begin_upload(name, query)}"}

  def _continued(self, session: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
    done = self.store.continue_upload(session, body, self.headers.get("Content-Range", ""))
    if isinstance(done, int):
      return 308, b"", {"Range": f"bytes=0-{done - 1}"} if done else {}
    return 200, done, {}

  def _copied(self, name: str, action: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
    found = re.fullmatch(r"/(rewriteTo|copyTo|moveTo)(?:/b/[^/]+)?/o/([^/]+)", action)
    if not found:
      raise Missing
    with self.store.lock:
      self.store.described(name)
      target = urllib.parse.unquote(found[2])
      resource = self.store.upload(target, self.store.read(name), query)
      if found[1] == "moveTo":
        self.store.delete(name, {})
    return 200, {"done": True, "resource": resource} if found[1] == "rewriteTo" else resource, {}

  def _body(self) -> bytes:
    if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
      return self.rfile.read(int(self.headers.get("Content-Length") or 0))
    body = b""
    while size := int(self.rfile.readline(), 16):
      body += self.rfile.read(size)
      self.rfile.readline()
    self.rfile.readline()
    return body

  def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    self.send_response(status)
    self.send_header("Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json")
    self.send_header("Content-Length", str(len(data)))
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, format: str, *args: object) -> None:
    pass


class _Server(ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 64

  def handle_error(self, request: object, client_address: object) -> None:
    """Clients that are killed are part of the tests."""


@contextlib.contextmanager
def serving() -> Iterator[ObjectStore]:
  """An empty store that answers until the end of the block."""
  store = ObjectStore()
  server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
  store.url = f"http://127.0.0.1:{server.server_address[1]}"
  thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
  thread.start()
  try:
    yield store
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def environment(store: ObjectStore) -> dict[str, str]:
  """What makes the clients of a new process talk to the store, without credentials."""
  return {
    "STORAGE_EMULATOR_HOST": store.url,
    "TENSORSTORE_GCS_HTTP_URL": store.url,
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    "GCSFS_DEFAULT_PROJECT": "test",
    "FSSPEC_GCS_TOKEN": "anon",
  }


def connect(variables: dict[str, str]) -> None:
  """Makes the clients of this process talk to a store; `variables` is what `environment` gave."""
  import fsspec

  os.environ.update(variables)
  fsspec.config.conf.setdefault("gcs", {})["token"] = "anon"
