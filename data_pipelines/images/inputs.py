"""Turns what users name (files, folders, globs, URLs, lists of these) into a list of images."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from prn_jax.data_pipelines.images.formats import IMAGE_SUFFIXES, is_image_name
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.disk import is_folder
from prn_jax.files.places import files_below, is_remote, to_path
from prn_jax.files.structured import read_lines

LIST_SUFFIXES = (".txt", ".lst", ".list")
MAX_DOWNLOAD_BYTES = 256 * 2**20
TIMEOUT_SEC = 20.0


class InputError(PrnError):
  """A source that names no image."""


def is_url(source: str) -> bool:
  return source.startswith(("http://", "https://"))


def is_several(source: str | os.PathLike[str]) -> bool:
  """Whether a source is a folder or a pattern, and so stands for several images."""
  text = os.fspath(source)
  return not is_url(text) and (os.path.isdir(text) or (glob.has_magic(text) and not os.path.isfile(text)))


def expand(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
  """Paths and URLs of the images that `sources` name, in order, each once.

  A folder stands for the images directly and deeper in it (by suffix), sorted; a pattern with *, ? or [ for what it
  matches; a list (.txt, .lst, .list) for the paths and URLs in it, one a line, sought beside the list and then in the
  working directory, as `named_files` says; anything else for itself, so that a file without a suffix can be named.
  A line of a list that names no file stays in the result, so that it is reported with the images that cannot be read.

  Raises:
    InputError: a source does not exist, a folder or pattern holds no image, or a list that is the only source names no
      file that is here.
  """
  found: list[str] = []
  for source in [os.fspath(source) for source in sources]:
    if not is_url(source) and is_remote(path := to_path(source)):
      found += _in_bucket(path, is_alone=len(sources) == 1)
    elif os.path.isfile(source) and Path(source).suffix.lower() in LIST_SUFFIXES:
      found += _listed(source, is_alone=len(sources) == 1)
    elif is_url(source) or os.path.isfile(source):
      found.append(source)
    elif os.path.isdir(source):
      found += _images_below(source)
    elif glob.has_magic(source):
      matches = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
      if not matches:
        raise InputError(f"pattern '{source}' matches no file. Is the folder right? Quote it only for recursion (**).")
      found += matches
    else:
      folder = Path(source).parent
      nearby = [path.name for path in folder.iterdir()] if is_folder(folder) else []
      raise InputError(f"'{source}' does not exist{did_you_mean(Path(source).name, nearby)}.")
  return list(dict.fromkeys(found))


def _in_bucket(path: Path, *, is_alone: bool) -> list[str]:
  """What a path in a bucket names, as `expand` says."""
  if path.is_file():
    return _listed(str(path), is_alone=is_alone) if path.suffix.lower() in LIST_SUFFIXES else [str(path)]
  is_pattern = glob.has_magic(path.name)
  files = path.parent.glob(path.name) if is_pattern else (path / name for name in files_below(path))
  found = [str(file) for file in files if is_pattern or is_image_name(file)]
  if not found:
    raise InputError(f"'{path}' names no image: there is none of this name, and none below it.")
  return found


def _listed(source: str, *, is_alone: bool) -> list[str]:
  """The images of a list; the list itself where none is here, since a pattern of the shell also matches label files."""
  path = to_path(source)
  try:
    names = [line.strip() for line in read_lines(path, InputError) if line.strip()]
  except InputError:
    if is_alone:
      raise
    return [source]
  files = NamedFiles([path.parent, Path()])
  paths = [name for name in names if not is_url(name)]
  places = dict(zip(paths, files.find_all(paths), strict=True))
  if not any(is_url(name) or places[name] for name in names):
    if not is_alone:
      return [source]
    first = (
      f"none of its {len(names)} lines names a file that is here; the first is '{names[0]}'" if names else "it is empty"
    )
    raise InputError(
      f"list '{source}': {first}. Expected one path or URL of an image a line, relative to the list or to this folder."
    )
  if note := files.note(source):
    logging.getLogger(__name__).warning("%s", note)
  return [name if is_url(name) else str(places[name] or files.missing(name)) for name in names]


def _images_below(folder: str) -> list[str]:
  paths = sorted(str(p) for p in Path(folder).rglob("*") if is_image_name(p) and p.is_file())
  if not paths:
    count = sum(len(files) for _, _, files in os.walk(folder))
    raise InputError(
      f"folder '{folder}' holds no image among its {count} files. Known types: {', '.join(IMAGE_SUFFIXES)}."
    )
  return paths


def fetch(url: str) -> bytes:
  """Downloads one image into memory.

  Raises:
    InputError: no network, an HTTP error, or more than `MAX_DOWNLOAD_BYTES`.
  """
  import urllib.error
  import urllib.request  # late: with all that it brings, most pictures come from a disk

  request = urllib.request.Request(url, headers={"User-Agent": "prn_jax"})
  try:
    with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as response:
      data: bytes = response.read(MAX_DOWNLOAD_BYTES + 1)
  except (urllib.error.URLError, TimeoutError, OSError) as error:
    raise InputError(f"cannot fetch '{url}': {getattr(error, 'reason', None) or error}.") from None
  if len(data) > MAX_DOWNLOAD_BYTES:
    raise InputError(f"'{url}' is larger than {MAX_DOWNLOAD_BYTES / 2**20:.0f} MiB, too large for an image.")
  return data
