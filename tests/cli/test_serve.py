"""`prn serve` as a process: it says where it is, answers, and ends in order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from prn_jax.api import Model
from prn_jax.cli.main import main
from prn_jax.network import init_variables
from tests.conftest import REPO
from tests.nets import tiny_detector

PHOTO = REPO / "prn_jax" / "assets" / "street.jpg"


def address_of(server: subprocess.Popen[str]) -> str:
  """Where it says that it is."""
  assert server.stderr is not None
  for line in server.stderr:
    if " at http://" in line:
      return line.split()[-1]
  raise AssertionError(f"the server ended with {server.wait()}")


def ask(address: str) -> Any:
  request = urllib.request.Request(f"{address}predict", PHOTO.read_bytes(), method="POST")
  with urllib.request.urlopen(request, timeout=60) as answer:
    return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_and_ends_in_order(number: signal.Signals, tmp_path: Path) -> None:
  graph = tiny_detector()
  Model(graph, init_variables(graph), names=("car", "person")).save(tmp_path / "tiny")
  command = [sys.executable, "-m", "prn_jax", "serve", str(tmp_path / "tiny"), "--port", "0", "--batch", "1", "--json"]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPO) as server:
    try:
      found = ask(address_of(server))
      server.send_signal(number)
      out, err = server.communicate(timeout=60)
    finally:
      server.kill()
  assert (found["width"], found["height"]) == (640, 480)
  assert server.returncode == 0, err
  assert json.loads(out) == {"requests": 1}
  assert ("ends as soon as all is answered" in err) == (number is signal.SIGINT)
  assert "Traceback" not in err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
  with socket.create_server(("127.0.0.1", 0)) as other:
    port = other.getsockname()[1]
    assert main(["serve", "traffic-tiny-prn", "--port", str(port)]) == 2
  expected = f"cannot listen at port {port} of 127.0.0.1: Address already in use. Give another one with --port (0: any that is free)."
  assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "text"),
  [
    (["--port", "99999"], "--port 99999: expected 0 to 65535."),
    (["--batch", "0"], "--batch 0: expected at least 1: images per run of the network."),
    (["--max-mb", "0"], "--max-mb 0: expected at least 0.001: megabytes of a request."),
    (["--timeout", "nan"], "--timeout nan: expected at least 0.1: seconds until a request is answered."),
    (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
    (["--host", "192.0.2.1", "--port", "0"], "cannot listen at port 0 of 192.0.2.1: "),
  ],
)
def test_what_cannot_be(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["serve", "traffic-tiny-prn", *options]) == 2
  assert text in capsys.readouterr().err


def test_the_package_that_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.delitem(sys.modules, "prn_jax.serve.app", raising=False)
  monkeypatch.setitem(sys.modules, "starlette", None)
  for name in [name for name in sys.modules if name.startswith("starlette.")]:
    monkeypatch.delitem(sys.modules, name)
  assert main(["serve", "traffic-tiny-prn"]) == 2
  assert "prn serve needs the package 'starlette" in capsys.readouterr().err
