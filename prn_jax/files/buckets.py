"""Objects of Google Cloud Storage as paths, `gs://BUCKET/NAME`; `prn_jax.files.places` makes them.

An object appears whole, in one step, or not at all; there is no append, no rename and no folder (a folder is what objects
have before a "/" in their names, so that making one does nothing and an empty one does not exist). Requests go through
gcsfs, which tries each again for about half a minute.

What gcsfs, its HTTP client and Google's libraries raise comes in a dozen unrelated types, and some of its questions answer
"there is nothing" where the answer was "I could not look". Here whatever is not an answer raises `BucketError`.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import errno
import fnmatch
import functools
import importlib.util
import io
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

# TensorFlow would take 3 s and all memory of a GPU, only because it is installed; gcsfs plans its requests over a second,
# experimental protocol unless told otherwise, which needs rights that reading and writing objects does not.
os.environ.setdefault("EPATH_USE_TF", "false")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from etils.epath import gpath

from prn_jax.errors import BucketError, PrnError
from prn_jax.files.listings import known_listings

SCHEME = "gs://"
_CHUNK_BYTES = 8 << 20
_THREADS = 16
_CONNECT_SEC, _SILENCE_SEC = 20, 60  # then a request counts as failed, and is tried again
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_PERMANENT = {400, 401, 403, 404, 405, 411, 412, 413}
_PERMANENT_WORDS = ("forbidden", "permission", "unauthenticated", "unauthorized", "credentials", "bad request")


class Facts(NamedTuple):
  """What `stat` knows of an object."""

  st_size: int


class Seen(NamedTuple):
  """An object as it was at one instant.

  Attributes:
    data: its bytes.
    generation: the number that the store gave this content; every write gives another.
    age_sec: seconds since it was written, by the clock of the store alone.
  """

  data: bytes
  generation: int
  age_sec: float


class BucketPath(gpath.PosixGPath):
  """An object, or what is below a name; has the methods of `pathlib.Path` that this project uses."""

  @property
  def key(self) -> str:
    """BUCKET/NAME, as gcsfs calls it."""
    return str(self).removeprefix(SCHEME)

  def exists(self) -> bool:
    return self._kind() != ""

  def is_file(self) -> bool:
    return self._kind() == "file"

  def is_dir(self) -> bool:
    return self._kind() == "directory"

  def stat(self) -> Facts:
    with _told(self):
      return Facts(int(file_system().info(self.key)["size"]))

  def iterdir(self) -> Iterator[BucketPath]:
    """What is directly below, sorted.

    Raises:
      FileNotFoundError: nothing is.
    """
    for name in sorted(_listed(self)):
      yield self / name

  def glob(self, pattern: str) -> Iterator[BucketPath]:
    """As in pathlib, with *, ? and [...] in single names, and a leading **/."""
    first, _, rest = pattern.partition("/")
    if first == "**":
      yield from self.rglob(rest or "*")
    elif not any(mark in first for mark in "*?["):
      child = self / first
      if rest:
        yield from child.glob(rest)
      elif child.exists():
        yield child
    else:
      with contextlib.suppress(FileNotFoundError):
        for child in self.iterdir():
          if fnmatch.fnmatchcase(child.name, first):
            yield from child.glob(rest) if rest else (child,)

  def rglob(self, pattern: str) -> Iterator[BucketPath]:
    """Objects at any depth below whose own name fits, sorted."""
    with _told(self):
      found = file_system().find(self.key)
    for key in sorted(found):
      if key != self.key and not key.endswith("/") and fnmatch.fnmatchcase(key.rsplit("/", 1)[-1], pattern):
        yield type(self)(SCHEME + key)

  def open(self, mode: str = "r", **options: Any) -> IO[Any]:
    """Opens an object for reading ("r" or "rb"); it is read in parts of some MiB."""
    if mode not in ("r", "rt", "rb"):
      raise io.UnsupportedOperation(f"'{self}' cannot be opened with mode '{mode}': objects are written whole.")
    binary = io.BufferedReader(_Reader(self), _CHUNK_BYTES)
    return binary if mode == "rb" else io.TextIOWrapper(binary, **({"encoding": "utf-8"} | options))

  def read_bytes(self) -> bytes:
    with _told(self):
      return bytes(file_system().cat_file(self.key))

  def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
    text = self.read_bytes().decode(encoding or "utf-8", errors or "strict")
    return text.replace("\r\n", "\n").replace("\r", "\n")

  def write_bytes(self, data: bytes) -> int:
    with _told(self, is_write=True):
      file_system().pipe_file(self.key, data)
    return len(data)

  def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
    return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

  def upload(self, local: str | os.PathLike[str]) -> None:
    """Makes the object of a file of this machine, in one step."""
    with _told(self, is_write=True):
      file_system().put_file(os.fspath(local), self.key)

  def download(self, local: str | os.PathLike[str]) -> None:
    with _told(self):
      file_system().get_file(self.key, os.fspath(local))

  def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
    self.write_bytes(b"")

  def rename(self, target: Any) -> Any:
    """In two steps: the object is under both names in between."""
    to = type(self)(str(target))
    to.write_bytes(self.read_bytes())
    self.unlink(missing_ok=True)
    return to

  def unlink(self, missing_ok: bool = False) -> None:
    try:
      with _told(self):
        file_system().rm_file(self.key)
    except FileNotFoundError:
      if not missing_ok:
        raise

  def seen(self) -> Seen | None:
    """What the object is now, with what `write_over` needs; None if there is none."""
    bucket, _, name = self.key.partition("/")
    fs = file_system()
    with contextlib.suppress(FileNotFoundError), _told(self):
      while True:
        headers, found = fs.call("GET", "b/{}/o/{}", bucket, name)
        facts = json.loads(found)
        now = email.utils.parsedate_to_datetime(headers["Date"])
        age_sec = (now - datetime.datetime.fromisoformat(facts["updated"])).total_seconds()
        with contextlib.suppress(FileExistsError):  # it has changed in between
          number = facts["generation"]
          _, data = fs.call("GET", "b/{}/o/{}", bucket, name, alt="media", ifGenerationMatch=number)
          return Seen(bytes(data), int(number), max(0.0, age_sec))
    return None

  def write_over(self, generation: int, data: bytes) -> int | None:
    """Writes the object if it is of this generation still (0: if there is none); its new generation.

    None says that it is of another. That may be the one which this very call has written: a request that was answered by
    an error is sent again. Look what is there.
    """
    bucket, _, name = self.key.partition("/")
    upload = f"{file_system().base.removesuffix('storage/v1/')}upload/storage/v1/b/{{}}/o"
    options = {"uploadType": "media", "name": name, "ifGenerationMatch": str(generation)}
    try:
      with _told(self, is_write=True):
        return int(file_system().call("POST", upload, bucket, data=data, json_out=True, **options)["generation"])
    except FileExistsError:
      return None

  def unlink_if(self, generation: int) -> None:
    """Deletes the object if it is of this generation still."""
    bucket, _, name = self.key.partition("/")
    with contextlib.suppress(FileNotFoundError, FileExistsError), _told(self):
      file_system().call("DELETE", "b/{}/o/{}", bucket, name, ifGenerationMatch=str(generation))

  def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
    """Does nothing: there are no folders."""

  def rmtree(self, missing_ok: bool = False) -> None:
    """Deletes all objects below."""
    with ThreadPoolExecutor(_THREADS) as pool:
      list(pool.map(lambda path: path.unlink(missing_ok=True), self.rglob("*")))

  def resolve(self, strict: bool = False) -> BucketPath:
    return self

  absolute = expanduser = resolve

  def _kind(self) -> str:
    """ "file", "directory", or "" for nothing."""
    if known_listings() is not None and len(self.parts) > 3:
      try:
        return _listed(self.parent).get(self.name, "")
      except FileNotFoundError:
        return ""
    try:
      with _told(self):
        return str(file_system().info(self.key)["type"])
    except FileNotFoundError:
      return ""


def _listed(folder: BucketPath) -> dict[str, str]:
  """Name -> "file" or "directory" of what is directly below; FileNotFoundError if nothing is."""
  known = known_listings()
  if known is not None and folder.key in known:
    found = known[folder.key]
  else:
    try:
      with _told(folder):
        entries = file_system().ls(folder.key, detail=True)
    except FileNotFoundError:
      entries = []
    found = {
      entry["name"].rstrip("/").rsplit("/", 1)[-1]: str(entry["type"])
      for entry in entries
      if entry["name"].rstrip("/") != folder.key
    }
    if known is not None:
      known[folder.key] = found
  if not found:
    raise FileNotFoundError(errno.ENOENT, "there is nothing below this name", str(folder))
  return found


class _Reader(io.RawIOBase):
  """The bytes of one object, by ranges."""

  def __init__(self, path: BucketPath) -> None:
    self._path, self._size, self._at = path, path.stat().st_size, 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._at

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
    return self._at

  def readinto(self, buffer: Any) -> int:
    end = min(self._at + len(buffer), self._size)
    if end <= self._at:
      return 0
    with _told(self._path):
      data = file_system().cat_file(self._path.key, start=self._at, end=end)
    buffer[: len(data)] = data
    self._at += len(data)
    return len(data)


@functools.cache
def file_system() -> Any:
  """gcsfs, which asks the bucket each time: others write there too, and a listing kept from before would lie.

  Raises:
    PrnError: gcsfs is not installed.
  """
  if importlib.util.find_spec("gcsfs") is None:
    raise PrnError("gs:// needs the package gcsfs: pip install 'prn-jax[gcs]' (or pip install gcsfs).")
  import aiohttp
  import fsspec

  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints a stack of calls where we raise the reason
  patience = aiohttp.ClientTimeout(sock_connect=_CONNECT_SEC, sock_read=_SILENCE_SEC)
  # As configuration, not as arguments: Orbax reaches gcsfs by its own way, through epath.
  for key, value in {"use_listings_cache": False, "requests_timeout": patience}.items():
    fsspec.config.conf.setdefault("gcs", {}).setdefault(key, value)
  return fsspec.filesystem("gcs")


@contextlib.contextmanager
def _told(path: BucketPath, *, is_write: bool = False) -> Iterator[None]:
  """Lets answers through ("there is no such object"), and makes a `BucketError` of everything else."""
  try:
    yield
  except FileNotFoundError:
    if is_write:
      raise BucketError(f"'{path}' cannot be written: there is no bucket of this name.", is_transient=False) from None
    raise FileNotFoundError(errno.ENOENT, "there is no such object", str(path)) from None
  except (*_ANSWERS, PrnError):
    raise
  except Exception as error:
    raise bucket_error(str(path), error) from error


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
  """Makes a `BucketError` of what a library raises that reaches the bucket by its own ways."""
  try:
    yield
  except PrnError:
    raise
  except Exception as error:
    raise bucket_error(str(path), error) from error


def bucket_error(path: str, error: BaseException) -> BucketError:
  """The error to raise for what gcsfs or TensorStore raised."""
  if isinstance(error, BucketError):
    return error
  text = str(error).strip() or type(error).__name__
  code = getattr(error, "code", None)
  is_permanent = code in _PERMANENT if isinstance(code, int) else any(w in text.lower() for w in _PERMANENT_WORDS)
  first = text.splitlines()[0].rstrip(".")
  if is_permanent:
    return BucketError(
      f"'{path}' cannot be used: {first}. Check the name of the bucket and that this machine's account may read and write "
      "there (`gcloud auth application-default login` on your own machine).",
      is_transient=False,
    )
  return BucketError(
    f"'{path}' could not be reached, although it was tried several times: {first}. Run the same command again.",
    is_transient=True,
  )
