"""Shards of prepared data that lie in a bucket: ArrayRecord reads files of this machine only, so that each is copied when it
is first read, and kept, by its checksum, for the next run.

The copies lie in $PRN_SHARD_CACHE, by default ~/.cache/prn_jax/shards. All processes of a machine share them; delete the
folder to be rid of them.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prn_jax.data_pipelines.records import DataError
from prn_jax.files.disk import sha256
from prn_jax.files.places import bucket_path

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
  given = os.environ.get("PRN_SHARD_CACHE")
  return (
    Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prn_jax" / "shards"
  )


def check_room(shards: Mapping[str, int], where: str) -> None:
  """Raises DataError unless the disk has room for all that is not there yet.

  Args:
    shards: sha256 -> bytes.
    where: what the message calls the data.
  """
  folder = cache_folder()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise DataError(
      f"cannot make the folder '{folder}' for copies of shards: {error.strerror}. {_advice(where)}"
    ) from None
  missing = sum(size for digest, size in shards.items() if not (folder / digest).is_file())
  free = shutil.disk_usage(folder).free
  if missing > free:
    raise DataError(
      f"{where}: its shards are copied to '{folder}' when they are read; that takes {missing / 1e9:.1f} GB, and {free / 1e9:.1f} "
      f"GB are free. {_advice(where)}"
    )
  if missing:
    _LOG.info("shards of %s (%.1f GB) are copied to %s as they are read.", where, missing / 1e9, folder)


def copied(shard: Path, digest: str) -> Path:
  """The copy of a shard on this machine.

  Args:
    shard: a shard in a bucket.
    digest: its sha256.

  Raises:
    DataError: the shard has another checksum, or there is no room for it. BucketError: it cannot be read.
  """
  if not re.fullmatch(r"[0-9a-f]{64}", digest):
    raise DataError(f"its checksum '{digest[:80]}' in the list of shards is no sha256")
  copy = cache_folder() / digest
  if copy.is_file():
    return copy
  try:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=copy.parent) as folder:
      part = Path(folder, digest)
      bucket_path(shard).download(part)
      if sha256(part) != digest:
        raise DataError("its sha256 differs from the one in the list of shards: damaged or edited")
      part.replace(copy)
  except OSError as error:
    raise DataError(
      f"it cannot be copied to '{copy.parent}': {error.strerror or error}. {_advice(str(shard))}"
    ) from None
  return copy


def _advice(where: str) -> str:
  return f"Set PRN_SHARD_CACHE to a folder on a larger disk, or mount the bucket of {where} (gcsfuse)."
