"""Published weights: the manifest, and fetching them from a server on this machine; nothing here needs the network."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prn_jax.cli.main import main
from prn_jax.errors import ModelNotFoundError, PrnError
from prn_jax.graph.cost import cost
from prn_jax.models import registry
from prn_jax.zoo import manifest as zoo
from prn_jax.zoo.fetch import MismatchError, Patience
from tests.conftest import REPO, STRICT
from tests.file_server import Served, names, serving

QUICK = Patience(timeout_sec=0.4, retry_delays_sec=(0.01, 0.01, 0.01))


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
  with serving() as running:
    yield running


# -- the manifest ----------------------------------------------------------------------------------
@pytest.mark.parametrize("model", sorted(zoo.ENTRIES))
def test_size_of_every_entry_is_that_of_its_graph(model: str) -> None:
  entry = zoo.ENTRIES[model]
  values = 4 * cost(registry.build_graph(model)).weight_file_floats
  if entry.size_source is None:
    assert entry.sizes == (20 + values, 16 + values)
  else:
    assert entry.sizes == (entry.size,)
    assert entry.size - values in (16, 20)
  if entry.rounded_size:  # printed in 2^20 bytes, sometimes cut off instead of rounded
    digits = len(entry.rounded_size.partition(".")[2])
    assert abs(entry.size / 2**20 - float(entry.rounded_size)) < 10**-digits


@pytest.mark.parametrize("model", sorted(zoo.ENTRIES))
def test_every_entry_is_complete(model: str) -> None:
  entry = zoo.ENTRIES[model]
  assert entry.url.startswith("https://")
  assert entry.published_at.startswith("https://")
  assert entry.licence
  assert entry.cfg == registry.get_spec(model).reference
  assert entry.published == registry.get_spec(model).published
  classes = {"detect": "data/coco.names", "classify": "data/imagenet.shortnames.list"}
  assert entry.names == classes[registry.get_spec(model).task]
  if entry.checksum:
    assert len(entry.checksum.value) == {"sha256": 64, "git-blob": 40}[entry.checksum.kind]
    assert int(entry.checksum.value, 16)
    assert entry.checksum.value == entry.checksum.value.lower()
    assert entry.checksum.source


def test_every_model_has_weights_or_a_reason() -> None:
  own = {name for name in registry.list_models() if registry.get_spec(name).status == "own"}
  assert set(zoo.ENTRIES) | set(zoo.NOT_PUBLISHED) | own == set(registry.list_models())
  assert not set(zoo.ENTRIES) & set(zoo.NOT_PUBLISHED)
  for model in zoo.NOT_PUBLISHED:
    with pytest.raises(
      PrnError, match=r"no weights that can be downloaded: .*https://.* These have: .*yolov3-tiny-prn"
    ):
      zoo.get_entry(model)
  for model in own:
    there = "come with prn_jax" if registry.get_spec(model).weights else "nobody has published weights of it: train it"
    with pytest.raises(PrnError, match=there):
      zoo.get_entry(model)
  with pytest.raises(ModelNotFoundError, match="did you mean 'yolov4'"):
    zoo.get_entry("yolo4")


def test_weights_of_the_partial_residual_network() -> None:
  entry = zoo.get_entry("yolov3_tiny_prn")
  assert entry.sizes == (19_759_052,)
  assert str(entry.checksum) == "git-blob:7d6a2b50c72fd56f4c4c35e042db7842a52eb963"


def test_git_blob_id(tmp_path: Path) -> None:
  file = tmp_path / "file"
  for content, expected in (
    (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),  # git hash-object
    (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
  ):
    file.write_bytes(content)
    assert zoo.git_blob_id(file) == expected


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
  monkeypatch.delenv("PRN_CACHE", raising=False)
  assert zoo.default_folder() == Path("/cache/prn_jax/weights")
  monkeypatch.delenv("XDG_CACHE_HOME")
  assert zoo.default_folder() == Path.home() / ".cache/prn_jax/weights"
  monkeypatch.setenv("PRN_CACHE", "/mine")
  assert zoo.default_folder() == Path("/mine")


# -- weights ---------------------------------------------------------------------------------------
TINY = zoo.ENTRIES["tiny-darknet"]


def tiny_weights(value: float = 0.25) -> bytes:
  """A file of tiny-darknet as Darknet 0.1 wrote them."""
  return struct.pack("<iiii", 0, 1, 0, 7) + np.full((TINY.size - 16) // 4, value, "<f4").tobytes()


def test_weights_without_a_checksum(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(tiny_weights()))
  done = zoo.download(TINY, tmp_path, url, patience=QUICK)
  assert (done.path, done.size) == (tmp_path / "tiny-darknet.weights", 4_185_968)
  assert (done.verified, done.is_new) == (False, True)
  assert (tmp_path / "tiny-darknet.weights.sha256").read_text() == f"{done.sha256}  tiny-darknet.weights\n"
  server.requests.clear()
  again = zoo.download(TINY, tmp_path, url, patience=QUICK)
  assert again == dataclasses.replace(done, is_new=False)
  assert server.requests == []
  done.path.write_bytes(tiny_weights(0.5))
  with pytest.raises(MismatchError, match=rf"there already, but it is damaged .*{done.sha256}.*Remove it"):
    zoo.download(TINY, tmp_path, url, patience=QUICK)
  done.path.write_bytes(b"short")
  with pytest.raises(MismatchError, match=r"must have 4,185,968 bytes; found 5"):
    zoo.download(TINY, tmp_path, url, patience=QUICK)


def test_real_weights_are_right(shared: Path, tmp_path: Path) -> None:
  """The copy of Redmon's file whose size the manifest states."""
  real = shared / "data" / "weights" / "tiny-darknet-imagenet" / "tiny.weights"
  done = zoo.download(TINY, tmp_path, real.as_uri())
  assert done.sha256 == "f1c3fe6b9bab9af69ae2a090682df3e5b9d83accba69551315f030ce1b37ea81"
  assert done.path.read_bytes() == real.read_bytes()


@pytest.mark.parametrize(("value", "wrong"), [(-1.0, "a negative variance"), (np.nan, "values that are not finite")])
def test_impossible_weights_are_refused(server: SimpleNamespace, tmp_path: Path, value: float, wrong: str) -> None:
  with pytest.raises(MismatchError, match=rf"layer '\w+' has {wrong}.*refused"):
    zoo.download(TINY, tmp_path, server.serve(Served(tiny_weights(value))), patience=QUICK)
  assert names(tmp_path) == ["tiny-darknet.weights.bad"]


def test_a_header_that_does_not_fit_is_refused(server: SimpleNamespace, tmp_path: Path) -> None:
  with pytest.raises(MismatchError, match=r"begins with b'PK\\x03\\x04.*not a Darknet weights file"):
    zoo.download(TINY, tmp_path, server.serve(Served(b"PK\x03\x04" * (TINY.size // 4))), patience=QUICK)


def test_weights_with_a_checksum(server: SimpleNamespace, tmp_path: Path) -> None:
  content = tiny_weights()
  (tmp_path / "original").write_bytes(content)
  blob = zoo.git_blob_id(tmp_path / "original")
  entry = dataclasses.replace(TINY, checksum=zoo.Checksum("git-blob", blob, "its tree"))
  url = server.serve(Served(content))
  done = zoo.download(entry, tmp_path / "a", url, patience=QUICK)
  assert (done.verified, done.sha256) == (True, zoo.sha256(tmp_path / "original"))
  by_sha256 = dataclasses.replace(TINY, checksum=zoo.Checksum("sha256", done.sha256, "its page"))
  assert zoo.download(by_sha256, tmp_path / "b", url, patience=QUICK).verified is True
  server.serve(Served(tiny_weights(0.5)))
  with pytest.raises(MismatchError, match=rf"expected git-blob {blob} \(its tree\); found [0-9a-f]{{40}}.*refused"):
    zoo.download(entry, tmp_path / "c", url, patience=QUICK)
  assert names(tmp_path / "c") == ["tiny-darknet.weights.bad"]


# -- the command line ------------------------------------------------------------------------------
def test_command_downloads_and_verifies(
  server: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  url = server.serve(Served(tiny_weights()))
  path = tmp_path / "tiny-darknet.weights"
  result = subprocess.run(
    [sys.executable, "-m", "prn_jax.cli.main", "models", "--download", "tiny_darknet", "--url", url, "--json"],
    capture_output=True, text=True, check=True,
    env=os.environ | {"PYTHONPATH": str(REPO), "PYTHONWARNINGS": STRICT, "PRN_CACHE": str(tmp_path)},
  )  # fmt: skip
  values = json.loads(result.stdout.splitlines()[-1])
  digest = zoo.sha256(path)
  assert (values["path"], values["size"]) == (str(path), TINY.size)
  assert (values["checksum"], values["verified"], values["downloaded"]) == (f"sha256:{digest}", False, True)
  assert result.stderr == f"fetching {url}\n"
  assert main(["models", "--download", "tiny-darknet", "--to", str(tmp_path)]) == 0  # without the network
  text = capsys.readouterr().out
  assert "there already" in text
  assert digest in text
  assert "no checksum of it is published" in text
  assert "public domain" in text


def test_command_refuses_other_weights(
  server: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  entry = zoo.ENTRIES["yolov3-tiny-prn"]
  url = server.serve(Served(bytes(entry.size)))
  assert main(["models", "--download", "yolov3-tiny-prn", "--url", url, "--to", str(tmp_path)]) == 2
  error = capsys.readouterr().err
  assert "expected git-blob 7d6a2b50c72fd56f4c4c35e042db7842a52eb963" in error
  assert f"found {zoo.git_blob_id(tmp_path / 'yolov3-tiny-prn.weights.bad')}" in error
  assert names(tmp_path) == ["yolov3-tiny-prn.weights.bad"]


def test_bar_on_a_terminal(
  server: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  url = server.serve(Served(tiny_weights()))
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
  monkeypatch.setenv("COLUMNS", "200")
  assert main(["models", "--download", "tiny-darknet", "--url", url, "--to", str(tmp_path), "--json"]) == 0
  captured = capsys.readouterr()
  assert "4.2/4.2 MB" in captured.err
  assert json.loads(captured.out)["downloaded"] is True


def test_listing_needs_no_network() -> None:
  """The list says which weights there are, and neither it nor an import opens a connection."""
  code = (
    "import socket, sys\n"
    "def refuse(*args, **kwargs): raise AssertionError('network')\n"
    "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
    "import prn_jax, prn_jax.zoo.manifest, prn_jax.zoo.fetch\n"
    "from prn_jax.cli.main import main\n"
    "sys.exit(main(['models']) or main(['models', '--json']))\n"
  )
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
  lines = {line.split()[0]: line for line in result.stdout.splitlines()[:-1] if line.strip()}
  assert " 20 MB " in lines["yolov3-tiny-prn"]
  assert " - " in lines["yolov3-tiny-3l"]
  rows = {row["name"]: row for row in json.loads(result.stdout.splitlines()[-1])["models"]}
  assert rows["yolov3-tiny-prn"]["weights"]["size"] == 19_759_052
  assert rows["yolov3-tiny-3l"]["weights"] is None


@pytest.mark.parametrize(
  ("args", "text"),
  [
    (["--to", "folder"], "belong to --download"),
    (["--url", "http://h/w"], "belong to --download"),
    (["--download", "yolov3-tiny-3l"], "published the cfg alone"),
    (["--download", "yolo"], "no model is called 'yolo'"),
    (["--download", "yolov4", "--url", "s3://weights"], "expected an address that begins with https://"),
  ],
)
def test_command_misuse(args: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["models", *args, *([] if "--to" in args or "--download" not in args else ["--to", str(tmp_path)])]) == 2
  assert text in capsys.readouterr().err
  assert names(tmp_path) == []
