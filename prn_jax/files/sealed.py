"""Folders that are whole or not there: an index with the sha256 of every file is written last, and compared on load.

Without its index a folder is an unfinished save. What changes afterwards, by a disk or by hand, is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prn_jax.errors import CheckpointError
from prn_jax.files.disk import is_file, sha256
from prn_jax.files.listings import listed_once

_THREADS = 8  # hashing releases Python's lock


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
  """sha256 of files, by their path below the folder.

  Raises:
    OSError: a file cannot be read.
  """
  names = list(names)
  with ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(names, pool.map(sha256, [folder / name for name in names]), strict=True))


def check_files(folder: Path, expected: Mapping[str, str], *, advice: str = "", part: int = 0, parts: int = 1) -> None:
  """Compares the files of a folder with its index.

  Args:
    folder: what the names are below.
    expected: path of a file below the folder -> its sha256.
    advice: the end of the message: what to do.
    part, parts: reads the contents of every `parts`-th file only, from the `part`-th on: hosts share the work.

  Raises:
    CheckpointError: naming the first file that is missing, cannot be read or has changed.
  """
  end = f" {advice}" if advice else ""
  with listed_once():
    missing = [name for name in expected if not is_file(folder / name)]
  if missing:
    more = f", and {len(missing) - 1} more of its {len(expected)} files" if len(missing) > 1 else ""
    raise CheckpointError(f"'{folder}' is incomplete: '{missing[0]}' is missing{more}.{end}")
  try:
    found = hashes(folder, sorted(expected)[part::parts])
  except OSError as error:
    raise CheckpointError(f"'{error.filename or folder}' cannot be read: {error.strerror or error}.{end}") from None
  for name, digest in found.items():
    if digest != expected[name]:
      raise CheckpointError(
        f"'{folder / name}' has changed since it was saved (sha256 {digest[:12]}, expected {expected[name][:12]}): "
        f"damaged or edited.{end}"
      )
