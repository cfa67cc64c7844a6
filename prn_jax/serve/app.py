"""The server's pages: photos in, boxes or a drawn picture out.

No address leads to a file: the page is a text of the package, and what clients send is never a name. Every error is JSON,
`{"error": "..."}`, with a sentence that says what to do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import html
import importlib.resources
import io
import logging
import re
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prn_jax.data_pipelines import images
from prn_jax.errors import PrnError, did_you_mean, printable
from prn_jax.model import Model
from prn_jax.run.detector import DetectOptions
from prn_jax.serve.batches import Batches
from prn_jax.serve.figures import CONTENT_TYPE, Figures
from prn_jax.serve.settings import ServeSettings
from prn_jax.track import event_log
from prn_jax.track.event_log import EventLogError
from prn_jax.track.watch import Watch

PATHS = ("/", "/predict", "/healthz", "/metrics")
COUNT_PATHS = ("/count", "/count/totals")  # where a count is watched
JPEG_QUALITY = 90
MOST_BYTES = 500_000_000  # of all photos that are being worked on
RETRY_SEC = 1
_LOG = logging.getLogger(__name__)
_NUMBERS = ("conf", "nms")
_KNOWN = (*_NUMBERS, "classes", "format")
_FORMATS = ("json", "image")
T = TypeVar("T")


def make_app(model: Model, options: DetectOptions | None, settings: ServeSettings) -> Starlette:
  """The server of a model. Its programs are compiled before this returns.

  Args:
    model: with weights.
    options: how boxes are chosen where a request says nothing; None for a classifier.
    settings: limits.
  """
  figures = Figures()
  batches = Batches(model, options, settings.batch_sizes, figures.batch)
  batches.compile()
  figures.waiting_is(lambda: batches.num_waiting)
  server = _Server(batches, settings, figures)
  routes = [
    Route("/", _Page("page.html", model.graph.name)),
    Route("/predict", server.predict, methods=["POST"]),
    Route("/healthz", server.health),
    Route("/metrics", server.metrics),
  ]
  if settings.count is not None:
    watched = _Watched(settings.count)
    routes += [Route("/count", _Page("count.html", settings.count.name)), Route("/count/totals", watched.totals)]
  # By class: what a handler has raised. 500 comes after Starlette has written the traceback to the log.
  handlers = {HTTPException: _http_error, PrnError: _bad_request, Exception: _internal_error}
  app = Starlette(routes=routes, lifespan=server.lifespan, exception_handlers=handlers)  # type: ignore[arg-type]
  app.add_middleware(_Guard, hosts=settings.hosts, figures=figures)
  return app


class _Server:
  """The handlers of one model."""

  def __init__(self, batches: Batches, settings: ServeSettings, figures: Figures) -> None:
    self._batches, self._settings, self._figures = batches, settings, figures
    self._open = self._bytes = 0

  @contextlib.asynccontextmanager
  async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
    """Runs the network while the server is up."""
    work = asyncio.create_task(self._batches.work())
    try:
      yield
    finally:
      work.cancel()
      self._batches.close()

  async def health(self, request: Request) -> Response:
    graph = self._batches.model.graph
    task = "detect" if self._batches.options else "classify"
    return JSONResponse(
      {"status": "ok", "model": graph.name, "task": task, "width": graph.width, "height": graph.height}
    )

  async def metrics(self, request: Request) -> Response:
    return Response(self._figures.text(), media_type=CONTENT_TYPE)

  async def predict(self, request: Request) -> Response:
    """One photo, as the body or as a form's only file."""
    if self._open >= self._settings.waiting:
      raise _busy()
    self._open += 1
    self._figures.opened(1)
    held = _Held()
    try:
      asked, picture = self._asked(request)
      data = await self._within(408, "the photo did not arrive", self._body(request, held))
      return await self._within(504, "there was no answer", self._answer(data, asked, picture))
    finally:
      self._open -= 1
      self._bytes -= held.bytes
      self._figures.opened(-1)

  async def _within(self, status: int, text: str, work: Coroutine[Any, Any, T]) -> T:
    try:
      async with asyncio.timeout(self._settings.timeout_sec):
        return await work
    except TimeoutError:
      raise HTTPException(status, f"{text} within {self._settings.timeout_sec:g} s.", {"Connection": "close"}) from None

  async def _answer(self, data: bytes, asked: DetectOptions | None, picture: bool) -> Response:
    began = time.perf_counter()
    result = await self._batches(data, asked)
    if picture:
      draws = asyncio.get_running_loop().run_in_executor(self._batches.decodes, _drawn, data, result)
      return Response(await draws, media_type="image/jpeg")
    found = result.to_dict()
    del found["path"]
    seconds = round(time.perf_counter() - began, 4)
    return JSONResponse({"model": self._batches.model.graph.name, "seconds": seconds} | found)

  def _asked(self, request: Request) -> tuple[DetectOptions | None, bool]:
    """Options of a request, and whether it wants a picture."""
    given: dict[str, Any] = {}
    for key, value in request.query_params.multi_items():
      if key not in _KNOWN:
        raise PrnError(f"unknown parameter '{key}'{did_you_mean(key, _KNOWN)}; expected {', '.join(_KNOWN)}.")
      if key in given:
        raise PrnError(f"parameter '{key}' is given twice.")
      given[key] = value
    wanted = given.pop("format", "json")
    if wanted not in _FORMATS:
      raise PrnError(f"format={wanted}; expected {' or '.join(_FORMATS)}.")
    picture = wanted == "image"
    if picture and self._batches.options is None:
      raise PrnError("format=image: a classifier has no boxes to draw; leave it out.")
    for key in _NUMBERS:
      if key in given:
        given[key] = _number(key, given[key])
    if "classes" in given:
      given["classes"] = tuple(int(one) if one.isdecimal() else one for one in given["classes"].split(","))
    return self._batches.with_options(**given), picture

  async def _body(self, request: Request, held: _Held) -> bytes:
    """The photo's bytes."""
    data = bytearray()
    try:
      async for chunk in request.stream():
        data += chunk
        if len(data) > self._settings.max_bytes:
          raise HTTPException(413, f"the request is larger than {self._settings.max_mb:g} MB.", {"Connection": "close"})
        held.bytes = len(data)
        self._bytes += len(chunk)
        if self._bytes > MOST_BYTES:
          raise _busy()
    except ClientDisconnect:
      raise HTTPException(400, "the request broke off.") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
      return await _only_file(request, bytes(data))
    if not data:
      raise PrnError(
        "the request has no body; send the bytes of a photo: curl --data-binary @photo.jpg ADDRESS/predict"
      )
    return bytes(data)


class _Page:
  """A page of the package.

  Args:
    file: its name.
    name: what it is about, shown on it.
  """

  def __init__(self, file: str, name: str) -> None:
    text = importlib.resources.files("prn_jax.serve").joinpath(file).read_text(encoding="utf-8")
    self._text = text.replace("{{NAME}}", html.escape(printable(name)))
    # The page may run its own script and reach this server, and nothing else.
    policy = (
      f"default-src 'none'; img-src blob: data:; connect-src 'self'; style-src '{_digest(self._text, 'style')}'; "
      f"script-src '{_digest(self._text, 'script')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    self._headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    await HTMLResponse(self._text, headers=self._headers)(scope, receive, send)


class _Watched:
  """A count that another process makes."""

  def __init__(self, folder: Path) -> None:
    self._watch = Watch(folder / event_log.NAME)

  def totals(self, request: Request) -> Response:
    """What is counted by now. No coroutine, so that Starlette reads the log in a thread."""
    try:
      return JSONResponse(self._watch.look())
    except EventLogError as error:
      return _error(500, str(error))


@dataclasses.dataclass
class _Held:
  """Bytes of a request that are in memory."""

  bytes: int = 0


def _busy() -> HTTPException:
  headers = {"Retry-After": str(RETRY_SEC), "Connection": "close"}
  return HTTPException(503, f"too many photos are waiting; send this one again in {RETRY_SEC} s.", headers)


class _Guard:
  """Refuses requests of pages of the web, counts all."""

  def __init__(self, app: ASGIApp, hosts: tuple[str, ...], figures: Figures) -> None:
    self._app, self._hosts, self._figures = app, hosts, figures

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    began, status = time.perf_counter(), 500

    async def noted(message: Message) -> None:
      nonlocal status
      status = message.get("status", status)
      await send(message)

    try:
      if refusal := self._refusal(Request(scope)):
        await refusal(scope, receive, noted)
      else:
        await self._app(scope, receive, noted)
    finally:
      path = scope["path"] if scope["path"] in (*PATHS, *COUNT_PATHS) else "other"
      self._figures.answered(path, status, time.perf_counter() - began)

  def _refusal(self, request: Request) -> Response | None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if self._hosts and _name_of(host) not in self._hosts:
      return _error(403, f"this server answers to {', '.join(self._hosts)} alone, not to '{host}'.")
    if origin is not None and origin.partition("://")[2] != host:
      return _error(403, f"a page of '{origin}' may not use this server.")
    return None


def _name_of(host: str) -> str:
  """ "localhost:8000" -> "localhost", "[::1]:8000" -> "[::1]"."""
  return re.sub(r":\d+$", "", host).lower()


async def _only_file(request: Request, data: bytes) -> bytes:
  """The one file of a form."""

  async def receive() -> Message:
    return {"type": "http.request", "body": data, "more_body": False}

  form = await Request(request.scope, receive).form(max_files=2, max_fields=8)
  files = [value for value in form.values() if not isinstance(value, str)]
  try:
    if len(files) != 1:
      raise PrnError(f"the form has {len(files)} files; expected one photo: curl -F image=@photo.jpg ADDRESS/predict")
    content = await files[0].read()
  finally:
    await form.close()
  if not content:
    raise PrnError("the file of the form is empty; send a photo.")
  return content


def _drawn(data: bytes, result: Any) -> bytes:
  """The photo with its boxes, as JPEG."""
  buffer = io.BytesIO()
  result.draw(images.read_image(data)).save(buffer, "JPEG", quality=JPEG_QUALITY)
  return buffer.getvalue()


def _number(key: str, text: str) -> float:
  try:
    return float(text)
  except ValueError:
    raise PrnError(f"{key}={text}; expected a number, for example 0.25.") from None


def _digest(page: str, tag: str) -> str:
  """What a Content-Security-Policy calls the page's one <tag>."""
  (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
  return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


# -- errors ------------------------------------------------------------------------------------------------------------


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
  return JSONResponse({"error": text}, status, headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
  text, headers = error.detail, dict(error.headers or {})
  if error.status_code == 404:
    there = [route.path for route in request.app.routes]
    text = f"nothing is here; there are {', '.join(there)}."
  elif error.status_code == 405:
    text = f"{request.method} does nothing here; expected {headers.get('Allow', headers.get('allow', ''))}."
  return _error(error.status_code, text, headers)


async def _bad_request(request: Request, error: PrnError) -> Response:
  return _error(400, str(error))


async def _internal_error(request: Request, error: Exception) -> Response:
  return _error(500, "an error of the server; its log holds the details.")
