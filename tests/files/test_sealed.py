"""Folders under sha256: what is missing, changed or unreadable is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from prn_jax.errors import CheckpointError
from prn_jax.files.sealed import check_files, hashes

NAMES = ["a", "deep/b", "deep/c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  for name in NAMES:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(name.encode())
  return tmp_path


def test_whole(folder: Path) -> None:
  expected = hashes(folder, NAMES)
  assert expected["deep/b"] == hashlib.sha256(b"deep/b").hexdigest()
  (folder / "more").write_text("not in the index")
  check_files(folder, expected)


def test_faults(folder: Path) -> None:
  expected = hashes(folder, NAMES)
  (folder / "deep/c").write_bytes(b"deep/C")
  digest = hashlib.sha256(b"deep/C").hexdigest()[:12]
  with pytest.raises(CheckpointError) as caught:
    check_files(folder, expected, advice="Restore it.")
  assert str(caught.value) == (
    f"'{folder}/deep/c' has changed since it was saved (sha256 {digest}, expected {expected['deep/c'][:12]}): damaged or "
    "edited. Restore it."
  )
  check_files(folder, expected, part=0, parts=3)  # the other two processes look at the rest
  check_files(folder, expected, part=1, parts=3)
  with pytest.raises(CheckpointError, match="deep/c"):
    check_files(folder, expected, part=2, parts=3)
  (folder / "a").unlink()
  with pytest.raises(CheckpointError) as caught:
    check_files(folder, expected, part=1, parts=3)
  assert str(caught.value) == f"'{folder}' is incomplete: 'a' is missing."
  (folder / "deep/b").unlink()
  with pytest.raises(CheckpointError, match=r"'a' is missing, and 1 more of its 3 files\.$"):
    check_files(folder, expected)
