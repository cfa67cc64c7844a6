"""Names that no file can have, and the limits of what is forgiven; the sources' tests hold the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prn_jax.data_pipelines.reading.named_files import NamedFiles
from tests.data_pipelines.pictures import write


@pytest.mark.parametrize(
  "name",
  [
    "",
    " ",
    "a" * 200_000,
    "a/" * 100_000,
    "x/" * 2000,
    "http://[::1",
    "\0",
    "~\0x",
    "\ud800",
    "~nobody/x",
    "..",
    "/",
    "C:\\",
  ],
)
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
  write(tmp_path / "a.txt", "")
  files = NamedFiles([tmp_path])
  assert files.find(name) is None
  assert files.note("the list") is None


def test_case_is_forgiven_only_where_one_file_fits(tmp_path: Path) -> None:
  for name in ("Dir/A.txt", "Dir/b.txt", "Dir/B.txt"):
    write(tmp_path / name, "")
  files = NamedFiles([tmp_path])
  assert files.find("dir/a.TXT") == tmp_path / "Dir" / "A.txt"
  assert files.find("DIR/b.txt") == tmp_path / "Dir" / "b.txt"  # its own case beats the other
  assert files.find("Dir/B.TXT") is None


def test_folders_are_searched_in_turn(tmp_path: Path) -> None:
  write(tmp_path / "one" / "x" / "a.txt", "")
  write(tmp_path / "two" / "data" / "x" / "a.txt", "")
  write(tmp_path / "two" / "data" / "b.txt", "")
  files = NamedFiles([tmp_path / "one", tmp_path / "two"])
  assert files.find("data/x/a.txt") == tmp_path / "one" / "x" / "a.txt"  # beside the list, though shortened
  assert files.find("data/b.txt") == tmp_path / "two" / "data" / "b.txt"
  assert files.find("data/x", os.path.isdir) == tmp_path / "one" / "x"
  assert files.missing("C:\\data\\gone.txt") == Path("/data/gone.txt")
