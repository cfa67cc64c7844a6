"""Downloads, against a server on this machine that misbehaves; nothing here needs the network."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prn_jax.zoo import fetch as downloads
from prn_jax.zoo.fetch import DownloadError, MismatchError, Patience, fetch
from tests.file_server import Served, names, serving

QUICK = Patience(timeout_sec=0.4, retry_delays_sec=(0.01, 0.01, 0.01))
ONCE = Patience(timeout_sec=0.4, retry_delays_sec=())
CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
  with serving() as running:
    yield running


def fetched(url: str, target: Path, content: bytes = CONTENT, patience: Patience = QUICK) -> str:
  """Fetches, and verifies that it is `content`."""

  def verify(path: Path) -> str:
    if path.read_bytes() != content:
      raise MismatchError("other bytes than expected.")
    return "right"

  return fetch(url, target, sizes=[len(content)], verify=verify, patience=patience)


# -- a download that goes well, at last ------------------------------------------------------------
def test_fetch(server: SimpleNamespace, tmp_path: Path) -> None:
  seen: list[tuple[int, int | None]] = []
  target = tmp_path / "new" / "folder" / "w"
  result = fetch(
    server.serve(Served(CONTENT)), target, sizes=[len(CONTENT)], verify=lambda path: path.name,
    progress=lambda here, whole: seen.append((here, whole)),
  )  # fmt: skip
  assert result == "w.part"
  assert target.read_bytes() == CONTENT
  assert names(target.parent) == ["w"]
  assert seen[0] == (0, len(CONTENT))
  assert seen[-1] == (len(CONTENT), len(CONTENT))
  assert seen == sorted(seen)


def test_resumes_within_a_call(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(CONTENT, cuts=[100_000, 50_000]))
  assert fetched(url, tmp_path / "w") == "right"
  ranges = [request.headers.get("Range") for request in server.requests]
  assert ranges == [None, "bytes=100000-", "bytes=150000-"]
  assert server.requests[1].headers["If-Range"] == '"one"'


def test_resumes_in_a_later_call(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(CONTENT, cuts=[100_000]))
  with pytest.raises(DownloadError, match=r"broke off after 100,000 of 300,000 bytes.*the same command goes on"):
    fetched(url, tmp_path / "w", patience=ONCE)
  assert names(tmp_path) == ["w.part", "w.part.json"]
  assert fetched(url, tmp_path / "w", patience=ONCE) == "right"
  assert server.requests[1].headers["Range"] == "bytes=100000-"
  assert names(tmp_path) == ["w"]


def test_does_not_ask_again_for_what_is_whole(server: SimpleNamespace, tmp_path: Path) -> None:
  """Killed between the last byte and the rename."""
  url = server.serve(Served(CONTENT))
  (tmp_path / "w.part").write_bytes(CONTENT)
  (tmp_path / "w.part.json").write_text(json.dumps({"url": url, "validator": '"one"', "size": len(CONTENT)}))
  assert fetched(url, tmp_path / "w") == "right"
  assert server.requests == []


@pytest.mark.parametrize("notes", ["", "not json", "[]", '{"url": "http://elsewhere/", "size": 300000}', '{"size": 5}'])
def test_a_part_of_unknown_origin_is_not_used(server: SimpleNamespace, tmp_path: Path, notes: str) -> None:
  (tmp_path / "w.part").write_bytes(b"x" * 1000)
  if notes:
    (tmp_path / "w.part.json").write_text(notes)
  assert fetched(server.serve(Served(CONTENT)), tmp_path / "w") == "right"
  assert "Range" not in server.requests[0].headers


def test_a_server_without_ranges_starts_again(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(CONTENT, ranges=False, cuts=[100_000]))
  assert fetched(url, tmp_path / "w") == "right"
  assert server.requests[1].headers["Range"] == "bytes=100000-"


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_another_version_of_the_file_starts_again(
  server: SimpleNamespace, tmp_path: Path, knows_if_range: bool
) -> None:
  url = server.serve(Served(b"x" * len(CONTENT), cuts=[100_000]))
  with pytest.raises(DownloadError, match="broke off"):
    fetched(url, tmp_path / "w", patience=ONCE)
  server.serve(Served(CONTENT, etag='"two"', knows_if_range=knows_if_range))
  assert fetched(url, tmp_path / "w") == "right"


def test_a_file_that_became_shorter_starts_again(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(CONTENT, etag=None, cuts=[200_000]))
  with pytest.raises(DownloadError, match="broke off"):
    fetched(url, tmp_path / "w", patience=ONCE)
  server.serve(Served(CONTENT[:100_000], etag=None))
  assert fetched(url, tmp_path / "w", CONTENT[:100_000]) == "right"


def test_pieces_that_do_not_belong_together_are_fetched_anew(server: SimpleNamespace, tmp_path: Path) -> None:
  """A server without ETag and dates cannot tell that the file has changed; the verification can."""
  url = server.serve(Served(b"x" * len(CONTENT), etag=None, cuts=[100_000]))
  with pytest.raises(DownloadError, match="broke off"):
    fetched(url, tmp_path / "w", patience=ONCE)
  server.serve(Served(CONTENT, etag=None))
  assert fetched(url, tmp_path / "w") == "right"
  assert names(tmp_path) == ["w"]


def test_a_server_that_fails_twice(server: SimpleNamespace, tmp_path: Path) -> None:
  assert fetched(server.serve(Served(CONTENT, statuses=[500, 503])), tmp_path / "w") == "right"
  assert len(server.requests) == 3


def test_a_slow_server(server: SimpleNamespace, tmp_path: Path) -> None:
  """Slow is waited for; silent is asked again."""
  assert fetched(server.serve(Served(CONTENT, pauses=[0.1, 0.8])), tmp_path / "slow") == "right"
  assert len(server.requests) == 1
  assert fetched(server.serve(Served(CONTENT, pauses=[0.8])), tmp_path / "silent") == "right"
  assert len(server.requests) == 3


def test_a_server_that_does_not_say_the_length(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(CONTENT, says_length=False, cuts=[100_000]))
  assert fetched(url, tmp_path / "w") == "right"


def test_redirect_and_file_address(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(b"", location=server.serve(Served(CONTENT), "/real")))
  assert fetched(url, tmp_path / "a") == "right"
  assert fetched((tmp_path / "a").as_uri(), tmp_path / "b") == "right"
  with pytest.raises(DownloadError, match="No such file"):
    fetched((tmp_path / "none").as_uri(), tmp_path / "c")


def test_proxies(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """A proxy is used as the environment says, but never for this machine."""
  monkeypatch.delenv("no_proxy", raising=False)
  monkeypatch.delenv("NO_PROXY", raising=False)
  monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
  assert fetched(server.serve(Served(CONTENT)), tmp_path / "direct") == "right"
  monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
  server.files["http://weights.invalid/file"] = Served(CONTENT)
  assert fetched("http://weights.invalid/file", tmp_path / "proxy") == "right"


# -- refusals --------------------------------------------------------------------------------------
def test_wrong_content_is_refused_and_kept_aside(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(b"x" * len(CONTENT)))
  with pytest.raises(MismatchError, match=r"other bytes than expected.*refused.*w\.bad"):
    fetched(url, tmp_path / "w")
  assert names(tmp_path) == ["w.bad"]
  assert len(server.requests) == 1
  server.serve(Served(CONTENT))
  assert fetched(url, tmp_path / "w") == "right"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_wrong_size_is_refused_before_it_comes(server: SimpleNamespace, tmp_path: Path, kind: str) -> None:
  url = server.serve(Served(b"<html>", kind=kind))
  with pytest.raises(MismatchError, match=rf"offers 6 bytes \({kind.split(';')[0]}\); expected 300,000 bytes"):
    fetched(url, tmp_path / "w")
  assert names(tmp_path) == []


def test_wrong_size_of_unknown_length(server: SimpleNamespace, tmp_path: Path) -> None:
  with pytest.raises(MismatchError, match="leads to a web page; expected a file of 300,000 bytes"):
    fetched(server.serve(Served(b"<html>", says_length=False, kind="text/html")), tmp_path / "w")
  with pytest.raises(MismatchError, match="sends more than 300,000 bytes"):
    fetched(server.serve(Served(CONTENT + b"x", says_length=False)), tmp_path / "w")
  with pytest.raises(DownloadError, match=r"broke off after 6 of 300,000 bytes\. Gave up after 4 attempts"):
    fetched(server.serve(Served(b"123456", says_length=False)), tmp_path / "w")


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_missing_file_is_not_asked_for_again(server: SimpleNamespace, tmp_path: Path, status: int) -> None:
  with pytest.raises(DownloadError, match=rf"/file': the server answers {status} .*--url"):
    fetched(server.serve(Served(CONTENT, statuses=[status])), tmp_path / "w")
  assert len(server.requests) == 1
  assert names(tmp_path) == []


def test_a_server_that_always_fails(server: SimpleNamespace, tmp_path: Path) -> None:
  with pytest.raises(DownloadError, match=r"answers 500 .*Gave up after 4 attempts; 0 bytes are here"):
    fetched(server.serve(Served(CONTENT, statuses=[500] * 9)), tmp_path / "w")
  assert names(tmp_path) == []


def test_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  with socket.socket() as closed:
    closed.bind(("127.0.0.1", 0))
    port = closed.getsockname()[1]
  with pytest.raises(DownloadError, match=r"'127\.0\.0\.1' refuses connections"):
    fetched(f"http://127.0.0.1:{port}/", tmp_path / "w")

  def unknown(*args: object, **kwargs: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

  monkeypatch.setattr(socket, "getaddrinfo", unknown)
  monkeypatch.setattr(urllib.request, "getproxies", dict)
  with pytest.raises(DownloadError, match=r"host 'weights.invalid' is unknown .*Is this machine on the network\?"):
    fetched("http://weights.invalid/", tmp_path / "w")


@pytest.mark.parametrize(
  "url", ["ftp://host/w", "data:text/plain,w", "yolov3.weights", "/tmp/w", "http://", "http://host:x/", "http://[::1/w"]
)
def test_unusable_addresses(url: str, tmp_path: Path) -> None:
  with pytest.raises(DownloadError, match="expected an address that begins with https://"):
    fetched(url, tmp_path / "w")
  with pytest.raises(DownloadError, match="not a valid address"):
    fetched("http://127.0.0.1/a b", tmp_path / "w")
  with pytest.raises(DownloadError, match="not a valid address"):
    fetched("http://127.0.0.1/ä", tmp_path / "w")
  assert names(tmp_path) == []


@pytest.mark.parametrize(
  ("old", "new"), [("https://host/w", "http://host/w"), ("http://host/w", "file:///w"), ("http://host/w", "ftp://h/w")]
)
def test_unsafe_redirects_are_refused(old: str, new: str, tmp_path: Path) -> None:
  answer = (tmp_path / "answer").open("wb")
  with pytest.raises(DownloadError, match=r"redirects from https? to .* refused, it is not safe"):
    downloads._Redirects().redirect_request(urllib.request.Request(old), answer, 302, "Found", {}, new)
  assert answer.closed


def test_a_redirect_to_a_file_is_refused(server: SimpleNamespace, tmp_path: Path) -> None:
  with pytest.raises(DownloadError, match=r"answers 302 .*not allowed"):
    fetched(server.serve(Served(b"", location="file:///etc/hostname")), tmp_path / "w")


def test_a_full_disk(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  url = server.serve(Served(CONTENT))
  if Path("/dev/full").exists():
    (tmp_path / "w.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"disk of .* is full: no room for 300,000 bytes"):
      fetched(url, tmp_path / "w")
  monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
  with pytest.raises(DownloadError, match=r"1,000 bytes free; 300,000 more are needed"):
    fetched(url, tmp_path / "w")
  assert "w" not in names(tmp_path)


def test_a_folder_that_is_none(server: SimpleNamespace, tmp_path: Path) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(DownloadError, match=r"cannot write '.*file/w\.part': .*Choose another folder"):
    fetched(server.serve(Served(CONTENT)), tmp_path / "file" / "w")
  assert server.requests == []


@pytest.mark.skipif(downloads.fcntl is None, reason="no file locks")
def test_two_downloads_at_once(server: SimpleNamespace, tmp_path: Path) -> None:
  url = server.serve(Served(CONTENT))
  with (tmp_path / "w.part").open("ab") as other:
    downloads.fcntl.flock(other, downloads.fcntl.LOCK_EX)
    with pytest.raises(DownloadError, match="being downloaded by another process"):
      fetched(url, tmp_path / "w")
  assert fetched(url, tmp_path / "w") == "right"
