"""Writing files: the old one or the new one, whole, and a message where neither is possible."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from prn_jax.errors import PrnError
from prn_jax.files.disk import sha256, write_text, written_beside
from prn_jax.formats import darknet_cfg
from tests.conftest import REPO


def test_new_file_in_a_new_folder(tmp_path: Path) -> None:
  path = tmp_path / "a" / "b" / "net.cfg"
  write_text(path, "x\n")
  assert path.read_text() == "x\n"
  assert [p.name for p in path.parent.iterdir()] == ["net.cfg"]
  assert sha256(path) == "73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac"


def test_undecodable_bytes_come_back(tmp_path: Path) -> None:
  (tmp_path / "in.cfg").write_bytes(b"# caf\xe9\n")
  write_text(tmp_path / "out.cfg", (tmp_path / "in.cfg").read_text("utf-8", errors="surrogateescape"))
  assert (tmp_path / "out.cfg").read_bytes() == b"# caf\xe9\n"


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
  old = os.umask(0o027)
  try:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
  finally:
    os.umask(old)
  assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def failing_write(path: Path, error: Exception) -> None:
  with written_beside(path) as file:
    file.write(b"half")
    raise error


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
  path = tmp_path / "net.weights"
  path.write_bytes(b"old")
  with pytest.raises(ZeroDivisionError):
    failing_write(path, ZeroDivisionError())
  assert path.read_bytes() == b"old"
  assert [p.name for p in tmp_path.iterdir()] == ["net.weights"]


def test_full_disk_is_a_message(tmp_path: Path) -> None:
  full = OSError(errno.ENOSPC, "No space left on device")
  with pytest.raises(PrnError, match=r"cannot write '.*/x': No space left on device\. Nothing was changed there\."):
    failing_write(tmp_path / "x", full)
  assert list(tmp_path.iterdir()) == []


def test_error_of_another_file_keeps_its_own_name(tmp_path: Path) -> None:
  with pytest.raises(FileNotFoundError, match=r"other\.txt"):
    failing_write(tmp_path / "x", FileNotFoundError(errno.ENOENT, "No such file", "other.txt"))


def test_folder_of_that_name_and_file_in_the_way(tmp_path: Path) -> None:
  (tmp_path / "folder").mkdir()
  (tmp_path / "file").write_text("")
  with pytest.raises(PrnError, match=r"cannot write '.*/folder': Is a directory\."):
    write_text(tmp_path / "folder", "x")
  with pytest.raises(PrnError, match=r"cannot write '.*/file/x': (Not a directory|File exists)\."):
    write_text(tmp_path / "file" / "x", "x")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
  path = tmp_path / "net.weights"
  path.write_bytes(b"old")
  code = f"""
    import os, signal
    from pathlib import Path
    from prn_jax.files.disk import written_beside
    with written_beside(Path({str(path)!r})) as file:
      file.write(b"new" * 1_000_000)
      file.flush()
      os.kill(os.getpid(), signal.SIGKILL)
  """
  done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=REPO, check=False)
  assert done.returncode == -signal.SIGKILL
  assert path.read_bytes() == b"old"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_cfgs_of_windows_and_old_macs(tmp_path: Path, encoding: str, end: str) -> None:
  lines = [
    "[net]",
    "width=32",
    "height=64",
    "channels=3",
    "# 网络",
    "[conv]",
    "filters=6",
    "size=1",
    "activation=linear",
    "",
  ]
  path = tmp_path / "x.cfg"
  path.write_bytes(end.join(lines).encode(encoding))
  graph = darknet_cfg.read(path).graph
  assert (graph.width, graph.height, len(graph)) == (32, 64, 1)
