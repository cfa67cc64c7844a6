"""What a user names as a path: a file or folder of this machine, or objects in a bucket (`gs://BUCKET/NAME`).

Every path that a user gives goes through `to_path`. What it returns for gs:// has the methods of `pathlib.Path` that read,
list and delete; writing goes through `prn_jax.files.disk`. Libraries that open files by their name need `local_copy`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prn_jax.errors import BucketError, PrnError

if TYPE_CHECKING:
  from prn_jax.files.buckets import BucketPath

# pathlib makes one slash of two, so that Path("gs://b/x") reads gs:/b/x. A letter alone is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")
WRITE_TEST = ".write-test-"  # begins the name of an object that only finds out whether it can be written
_THREADS = 16
_OTHERS = {
  "s3": "mount it (mountpoint-s3), or copy it (aws s3 sync)",
  "http": "download it first",
  "https": "download it first",
}


def to_path(text: str | os.PathLike[str]) -> Path:
  """The path that a user means: file:// and gs:// are understood, `~` and `~user` are replaced by home directories, where
  there is one, as in a shell.

  Raises:
    PrnError: another scheme, or a bucket without a name.
  """
  if is_remote(text):
    return cast(Path, text)
  given = os.fspath(text)
  found = _SCHEME.match(given)
  if found:
    scheme, rest = found[1].lower(), given[found.end() :]
    if scheme == "file" and (found[2] or not Path(given).exists()):
      return Path(urllib.parse.unquote("/" + rest.removeprefix("localhost").lstrip("/")))
    if scheme == "gs":
      return _in_bucket(given, rest)
    if found[2]:
      advice = _OTHERS.get(scheme, "mount it, or copy it to this machine")
      raise PrnError(
        f"'{given}': {scheme}:// is not supported; expected a path of this machine or gs://BUCKET/NAME. To use what lies "
        f"there, {advice}."
      )
  return expanded(given)


def expanded(path: str | os.PathLike[str]) -> Path:
  """A path of this machine with `~` and `~user` replaced by home directories; a name without one stays as it is."""
  try:
    return Path(path).expanduser()
  except (RuntimeError, ValueError):  # ValueError: "~" followed by a NUL
    return Path(path)


def _in_bucket(given: str, name: str) -> Path:
  if not name.strip("/"):
    raise PrnError(f"'{given}' names no bucket; expected gs://BUCKET/NAME.")
  from prn_jax.files.buckets import SCHEME, BucketPath

  return cast(Path, BucketPath(SCHEME + name.strip("/")))


def is_remote(path: object) -> bool:
  """Whether a path that `to_path` made lies in a bucket."""
  return isinstance(path, os.PathLike) and os.fspath(path).startswith("gs://")


def bucket_path(path: Path) -> BucketPath:
  """The same path, for the checker of types; only for those where `is_remote`."""
  assert is_remote(path), path
  return cast("BucketPath", path)


def explained(path: Path) -> contextlib.AbstractContextManager[None]:
  """A block in which a library reads or writes `path` by its own ways: if that is in a bucket, what it raises becomes a
  `BucketError`, which tells whether running again can help."""
  if not is_remote(path):
    return contextlib.nullcontext()
  from prn_jax.files import buckets

  return buckets.explained(path)


def bucket_error(path: Path, error: BaseException) -> BucketError:
  """The error to raise for what a library raised that reaches a bucket by its own ways."""
  from prn_jax.files import buckets

  return buckets.bucket_error(str(path), error)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
  """A file of this machine with the content of `path` and its name: the file itself, or a copy until the end of the block.

  Raises:
    FileNotFoundError: there is no such object. BucketError: it cannot be read.
  """
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="prn-jax-") as folder:
    copy = Path(folder, path.name)
    bucket_path(path).download(copy)
    yield copy


def make_folder(folder: Path) -> None:
  """Makes a folder; in a bucket, where there are none, finds out whether objects can be written.

  Raises:
    OSError: it cannot be made. BucketError: the bucket cannot be written.
  """
  if not is_remote(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return
  test = folder / f"{WRITE_TEST}{secrets.token_hex(4)}"
  test.write_bytes(b"")
  test.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
  """Deletes a folder with all that is in it; does nothing where there is none."""
  if is_remote(folder):
    bucket_path(folder).rmtree(missing_ok=True)
  else:
    shutil.rmtree(folder, ignore_errors=True)


def files_below(folder: Path) -> list[str]:
  """Every file at any depth, by its path below `folder`, sorted; none where there is no folder."""
  below = folder.rglob("*") if is_remote(folder) else (path for path in folder.rglob("*") if path.is_file())
  return sorted(path.relative_to(folder).as_posix() for path in below)


def upload_all(local: Path, folder: Path, last: str = "") -> list[str]:
  """Makes objects below `folder` of all files below `local`; gives their names. `last` comes when all others are there."""
  names = files_below(local)
  with ThreadPoolExecutor(_THREADS) as pool:
    list(
      pool.map(lambda name: bucket_path(folder / name).upload(local / name), [name for name in names if name != last])
    )
  if last in names:
    bucket_path(folder / last).upload(local / last)
  return names


@contextlib.contextmanager
def folder_beside(folder: Path, mark: str) -> Iterator[Path]:
  """Gives an empty folder to fill; at the end it takes the place of `folder`, with all that was in that.

  Args:
    folder: what shall appear.
    mark: a file that the block writes. In a bucket, where folders cannot be renamed, it is the first to go and the last to
      come, so that the folder is whole wherever the file is there.
  """
  if not is_remote(folder):
    part = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(part, ignore_errors=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return
  with tempfile.TemporaryDirectory(prefix="prn-jax-") as temporary:
    part = Path(temporary)
    yield part
    (folder / mark).unlink(missing_ok=True)
    for old in set(files_below(folder)) - set(files_below(part)):
      (folder / old).unlink(missing_ok=True)
    upload_all(part, folder, last=mark)
