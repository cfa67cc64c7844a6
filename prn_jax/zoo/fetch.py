"""Fetching a file: resumed where it was cut, verified, and at its place only when it is right.

While it comes, FILE.part holds what has arrived and FILE.part.json where it came from. A file that arrived whole but is
not the expected one is kept as FILE.bad, which nothing reads, until the next one takes that name. Only http, https and
file addresses; a redirect may not leave https. Hosts on this machine are never asked through a proxy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import http.client
import ipaddress
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from prn_jax.errors import PrnError
from prn_jax.files.disk import write_text
from prn_jax.files.structured import read_json
from prn_jax.version import __version__

try:
  import fcntl
except ImportError:  # Windows: two downloads of one file at once are then only caught by the verification
  fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
Progress = Callable[[int, int | None], None]  # bytes that are here, bytes of the whole file
CHUNK_BYTES = 1 << 20
TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT_SEC = 60.0  # a server may ask for a longer one; we do not wait


class DownloadError(PrnError):
  """A file that cannot be fetched, or is not the one that was expected."""


class MismatchError(DownloadError):
  """A file that arrived whole and is not the expected one."""


class _RefusedError(MismatchError):
  """The whole file is here, and it is not the expected one."""


class _TransientError(DownloadError):
  """Worth another attempt, after `wait_sec` if the server said so."""

  def __init__(self, text: str, wait_sec: float = 0.0):
    super().__init__(text)
    self.wait_sec = min(wait_sec, LONGEST_WAIT_SEC)


@dataclasses.dataclass(frozen=True)
class Patience:
  """How long to wait for a server.

  Attributes:
    timeout_sec: longest wait for a connection, and for each further piece of the file.
    retry_delays_sec: waits before the attempts after the first; attempts that bring a chunk further are not counted.
  """

  timeout_sec: float = 30.0
  retry_delays_sec: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)


PATIENCE = Patience()


def fetch(
  url: str,
  target: Path,
  *,
  sizes: Collection[int],
  verify: Callable[[Path], T],
  patience: Patience = PATIENCE,
  progress: Progress | None = None,
) -> T:
  """Downloads `url` to `target`, going on from an earlier attempt.

  Args:
    url: http, https or file address.
    target: the file; its folder is made. Written in one step at the very end.
    sizes: sizes in bytes that the file may have, the likeliest first.
    verify: called with the path of the whole file before it gets its name; raises MismatchError to refuse it.
    patience: timeouts and retries.
    progress: called with the bytes that are here and the size of the whole, None if the server does not say.

  Returns:
    What `verify` returned.

  Raises:
    MismatchError: the file is not the expected one; it is kept as FILE.bad if it arrived whole.
    DownloadError: unusable address, no such file, no network, disk full, no write permission, or the server failed
      more often than `patience` allows. What has arrived stays, and the same call goes on from there.
  """
  check_url(url)
  job = _Job(url, target, tuple(sizes), patience, progress or (lambda here, whole: None))
  try:
    with _opened_alone(job) as file:
      result = _complete(job, file, verify)
  except _RefusedError as error:
    bad = target.with_name(f"{target.name}.bad")
    os.replace(job.part, bad)
    job.notes.unlink(missing_ok=True)
    raise MismatchError(f"{error} It was refused; what came is kept as '{bad}' for inspection.") from None
  os.replace(job.part, target)
  job.notes.unlink(missing_ok=True)
  return result


def check_url(url: str) -> None:
  """Raises DownloadError unless `url` is a complete http, https or file address."""
  try:
    parts = urlsplit(url)
    usable = parts.scheme == "file" or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
  except ValueError:  # no number as port, or half an IPv6 address
    usable = False
  if not usable:
    raise DownloadError(f"cannot download '{url}': expected an address that begins with https://, http:// or file:///.")


# -- the parts of a download -----------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class _Job:
  url: str
  target: Path
  sizes: tuple[int, ...]
  patience: Patience
  progress: Progress

  @property
  def part(self) -> Path:
    return self.target.with_name(f"{self.target.name}.part")

  @property
  def notes(self) -> Path:
    """Where FILE.part comes from: {"url", "validator": ETag or date, "size"}."""
    return self.target.with_name(f"{self.target.name}.part.json")

  def read_notes(self) -> dict[str, Any]:
    """The notes if they are of this address, else {}: then nothing may be resumed."""
    with contextlib.suppress(PrnError):
      notes = read_json(self.notes)
      if notes["url"].text() == self.url:
        validator = notes["validator"].text() if "validator" in notes else None
        if validator is None or (validator.isascii() and validator.isprintable()):  # goes into a header
          return {"url": self.url, "validator": validator, "size": notes["size"].whole(0)}
    return {}

  def discard(self, file: BinaryIO) -> None:
    """Forgets what has arrived."""
    if _size(file):
      file.truncate(0)
    self.notes.unlink(missing_ok=True)


def _size(file: BinaryIO) -> int:
  return os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def _opened_alone(job: _Job) -> Iterator[BinaryIO]:
  """FILE.part, open for appending, and locked against another download of the same file."""
  try:
    job.part.parent.mkdir(parents=True, exist_ok=True)
    file = job.part.open("a+b", buffering=0)
  except OSError as error:
    raise DownloadError(
      f"cannot write '{job.part}': {error.strerror}. Choose another folder, or make this one writable."
    ) from None
  with file:
    if fcntl is not None:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise DownloadError(f"'{job.part}' is being downloaded by another process. Wait until it is done.") from None
    try:
      yield file
    finally:
      if not _size(file):
        job.part.unlink(missing_ok=True)


def _complete(job: _Job, file: BinaryIO, verify: Callable[[Path], T]) -> T:
  """Fetches what is missing; _RefusedError if the whole is not right."""
  for last_chance in (False, True):
    pieced = _transfer(job, file)
    try:
      found = _size(file)
      if found not in job.sizes:
        raise MismatchError(f"'{job.url}' has {found:,} bytes; expected {_expected(job.sizes)}.")
      result = verify(job.part)
      os.fsync(file.fileno())
      return result
    except MismatchError as error:
      if last_chance or not pieced:
        raise _RefusedError(str(error)) from None
      job.discard(file)  # perhaps the pieces do not belong together: once more, from the start
  raise AssertionError("unreachable")


def _expected(sizes: tuple[int, ...]) -> str:
  return " or ".join(f"{size:,}" for size in sizes) + " bytes"


def _transfer(job: _Job, file: BinaryIO) -> bool:
  """Completes FILE.part, over several connections if need be; whether it was put together from pieces."""
  furthest, failures = _size(file), 0
  while True:
    here, notes = _size(file), job.read_notes()
    if here and here == notes.get("size"):
      return True  # whole, but not yet verified
    if here >= notes.get("size", 0):
      job.discard(file)  # left by something else
      here = 0
    try:
      return _receive(job, file, here, notes)
    except _TransientError as error:
      failures = 1 if _size(file) >= furthest + CHUNK_BYTES else failures + 1
      furthest = max(furthest, _size(file))
      if failures > len(job.patience.retry_delays_sec):
        raise DownloadError(
          f"{error} Gave up after {failures} attempts; {_size(file):,} bytes are here, and the same command goes on "
          "from there."
        ) from None
      time.sleep(max(error.wait_sec, job.patience.retry_delays_sec[failures - 1]))


def _receive(job: _Job, file: BinaryIO, here: int, notes: dict[str, Any]) -> bool:
  """One request: the rest of the file if the server still has the same one, else all of it; True if the rest."""
  with _opened(job, file, here, notes) as response:
    size = _announced_size(response, here)
    if here and getattr(response, "status", 200) == 206:
      if not _is_same_file(response, here, notes):
        job.discard(file)
        raise _TransientError(f"'{job.url}' has changed since the first part of it arrived; it is fetched anew.")
    else:
      here = 0
      _check_offer(job, response, size)
      job.discard(file)
      if size is not None:
        _write_notes(job, {"url": job.url, "validator": _validator(response), "size": size})
    whole = notes["size"] if here else size
    _check_space(job, (whole or job.sizes[0]) - here)
    _copy(job, file, response, here, whole)
    return bool(here)


def _opened(job: _Job, file: BinaryIO, here: int, notes: dict[str, Any]) -> Any:
  headers = {"User-Agent": f"prn_jax/{__version__}"}
  if here:
    headers["Range"] = f"bytes={here}-"
    if notes.get("validator"):
      headers["If-Range"] = str(notes["validator"])  # another file: the server then sends all of it
  request = urllib.request.Request(job.url, headers=headers)
  opener = urllib.request.build_opener(_Redirects, _Proxies)
  try:
    return opener.open(request, timeout=job.patience.timeout_sec)
  except (OSError, http.client.HTTPException, UnicodeError) as error:
    if isinstance(error, urllib.error.HTTPError) and error.code == 416:
      job.discard(file)
      raise _TransientError(f"'{job.url}' is shorter than what had arrived of it; it is fetched anew.") from None
    raise _explained(job.url, error) from None


def _copy(job: _Job, file: BinaryIO, response: Any, here: int, whole: int | None) -> None:
  most = whole or max(job.sizes)
  job.progress(here, whole)
  while True:
    try:
      chunk = response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
      raise _explained(job.url, error) from None
    if not chunk:
      break
    here += len(chunk)
    if here > most:
      job.discard(file)
      raise MismatchError(f"'{job.url}' sends more than {most:,} bytes; expected {_expected(job.sizes)}.")
    _append(job, file, chunk)
    job.progress(here, whole)
  if here < (whole or min(job.sizes)):
    raise _TransientError(f"'{job.url}' broke off after {here:,} of {whole or job.sizes[0]:,} bytes.")


def _append(job: _Job, file: BinaryIO, chunk: bytes) -> None:
  view = memoryview(chunk)
  try:
    while view:
      view = view[file.write(view) :]
  except OSError as error:
    raise _disk_error(job, error) from None


def _write_notes(job: _Job, notes: dict[str, Any]) -> None:
  try:
    write_text(job.notes, json.dumps(notes))
  except OSError as error:
    raise _disk_error(job, error) from None


def _disk_error(job: _Job, error: OSError) -> DownloadError:
  if error.errno not in (errno.ENOSPC, errno.EDQUOT):
    return DownloadError(f"cannot write '{job.part}': {error.strerror}.")
  return DownloadError(
    f"the disk of '{job.part.parent}' is full: no room for {_expected(job.sizes[:1])}. "
    "Free some space, or choose another folder; what has arrived is kept."
  )


# -- what a server says ----------------------------------------------------------------------------
def _announced_size(response: Any, here: int) -> int | None:
  """Size of the whole file in bytes, or None where the server does not say."""
  text = response.headers.get("Content-Range", "") if here else ""
  text = text.rsplit("/", 1)[1] if "/" in text else response.headers.get("Content-Length", "")
  return int(text) if text.isdecimal() else None


def _validator(response: Any) -> str | None:
  """What tells this version of the file from another: a strong ETag, else the date of the last change."""
  etag = response.headers.get("ETag")
  return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _is_same_file(response: Any, here: int, notes: dict[str, Any]) -> bool:
  """Whether a 206 continues what has arrived: for servers that do not know If-Range."""
  starts_here = response.headers.get("Content-Range", "").startswith(f"bytes {here}-")
  return starts_here and (
    _announced_size(response, here) == notes["size"] and _validator(response) == notes.get("validator")
  )


def _check_offer(job: _Job, response: Any, size: int | None) -> None:
  """Refuses at once what cannot be the file, e.g. the web page that a dead link leads to."""
  kind = response.headers.get("Content-Type", "no type stated").split(";")[0]
  if size is None and kind == "text/html":
    raise MismatchError(f"'{job.url}' leads to a web page; expected a file of {_expected(job.sizes)}.")
  if size is not None and size not in job.sizes:
    raise MismatchError(
      f"'{job.url}' offers {size:,} bytes ({kind}); expected {_expected(job.sizes)}. Nothing was downloaded."
    )


def _check_space(job: _Job, needed: int) -> None:
  free = shutil.disk_usage(job.part.parent).free
  if free < needed:
    raise DownloadError(
      f"the disk of '{job.part.parent}' has {free:,} bytes free; {needed:,} more are needed. "
      "Free some space, or choose another folder."
    )


def _explained(url: str, error: BaseException) -> DownloadError:
  """An error of the network in words; _TransientError where another attempt may help."""
  if isinstance(error, urllib.error.HTTPError):
    text = f"'{url}': the server answers {error.code} {error.reason}."
    if error.code in TRANSIENT_STATUS:
      wait = error.headers.get("Retry-After", "")
      return _TransientError(text, float(wait) if wait.isdecimal() else 0.0)
    gone = error.code in (404, 410)
    return DownloadError(
      f"{text} {'The file is not there (any more). ' if gone else ''}Give another address with --url."
    )
  reason = error.reason if isinstance(error, urllib.error.URLError) else error
  if isinstance(reason, http.client.InvalidURL | UnicodeError):
    return DownloadError(f"'{url}' is not a valid address ({reason}).")
  host = urlsplit(url).hostname or "this machine"
  if isinstance(reason, socket.gaierror):
    return DownloadError(f"'{url}': host '{host}' is unknown ({reason.strerror}). Is this machine on the network?")
  if isinstance(reason, ssl.SSLCertVerificationError):
    return DownloadError(f"'{url}': the certificate of '{host}' is not valid ({reason.verify_message}).")
  if isinstance(reason, ConnectionRefusedError):
    return DownloadError(f"'{url}': host '{host}' refuses connections.")
  if isinstance(reason, TimeoutError):
    return _TransientError(f"'{url}': host '{host}' does not answer in time.")
  if isinstance(reason, ConnectionError | http.client.HTTPException | ssl.SSLError):
    return _TransientError(f"'{url}': the connection broke ({str(reason) or type(reason).__name__}).")
  return DownloadError(f"cannot download '{url}': {getattr(reason, 'strerror', None) or reason}.")


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows redirects, but not from https to http nor to any other kind of address."""

  def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
    old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
    if new not in ("http", "https") or (old == "https" and new == "http"):
      fp.close()
      raise DownloadError(f"'{req.full_url}' redirects from {old} to {new} ('{newurl}'): refused, it is not safe.")
    return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Proxies(urllib.request.ProxyHandler):
  """The proxies of the environment, except for addresses on this machine."""

  def proxy_open(self, req: Any, proxy: Any, type: Any) -> Any:
    host = (urlsplit(f"//{req.host}").hostname or "").rstrip(".")
    try:
      local = ipaddress.ip_address(host).is_loopback
    except ValueError:
      local = host == "localhost"
    return None if local else super().proxy_open(req, proxy, type)
