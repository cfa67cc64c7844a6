"""Turns what users name (files, folders, globs, URLs) into a list of images."""

from __future__ import annotations

import glob
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from prn_jax.data_pipelines.image_formats import IMAGE_SUFFIXES, is_image_name
from prn_jax.errors import PrnError, did_you_mean

MAX_DOWNLOAD_BYTES = 256 * 2**20
TIMEOUT_SEC = 20.0


class InputError(PrnError):
  """A source that names no image."""


def is_url(source: str) -> bool:
  return source.startswith(("http://", "https://"))


def expand(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
  """Paths and URLs of the images that `sources` name, in order, each once.

  A folder stands for the images directly and deeper in it (by suffix), sorted; a pattern with *, ? or [ for what it
  matches; anything else for itself, so that a file without a suffix can be named.

  Raises:
    InputError: a source does not exist, or a folder or pattern holds no image.
  """
  found: list[str] = []
  for source in [os.fspath(source) for source in sources]:
    if is_url(source) or os.path.isfile(source):
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
      nearby = [path.name for path in folder.iterdir()] if folder.is_dir() else []
      raise InputError(f"'{source}' does not exist{did_you_mean(Path(source).name, nearby)}.")
  return list(dict.fromkeys(found))


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
  request = urllib.request.Request(url, headers={"User-Agent": "prn_jax"})
  try:
    with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as response:
      data: bytes = response.read(MAX_DOWNLOAD_BYTES + 1)
  except (urllib.error.URLError, TimeoutError, OSError) as error:
    raise InputError(f"cannot fetch '{url}': {getattr(error, 'reason', None) or error}.") from None
  if len(data) > MAX_DOWNLOAD_BYTES:
    raise InputError(f"'{url}' is larger than {MAX_DOWNLOAD_BYTES / 2**20:.0f} MiB, too large for an image.")
  return data
