"""The server: what it answers, what it refuses, and that a crowd loses nothing."""

from __future__ import annotations

import dataclasses
import io
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from prn_jax.api import Model
from prn_jax.errors import PrnError
from prn_jax.graph.builder import Builder
from prn_jax.network import init_variables
from prn_jax.run.detector import DetectOptions
from prn_jax.serve.settings import ServeSettings
from tests.nets import tiny_detector
from tests.serve.running import LOOPBACK, Answer, Server, serving

NAMES = ("cat", "dog & <b>cow</b>")
CONF = 0.2
MAX_MB = 0.2
HOSTS = ("localhost", LOOPBACK)


def photo(seed: int, side: int = 40) -> bytes:
  pixels = np.random.default_rng(seed).integers(0, 255, (side, side + 8, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  return buffer.getvalue()


@pytest.fixture(scope="module")
def model() -> Model:
  graph = dataclasses.replace(tiny_detector(), name="pets <i>")
  return Model(graph, init_variables(graph), names=NAMES)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[Server]:
  settings = ServeSettings(batch=4, max_mb=MAX_MB, timeout_sec=60.0, hosts=HOSTS)
  with serving(model, settings, DetectOptions(conf=CONF)) as server:
    yield server


def test_json_holds_what_the_model_finds(server: Server, model: Model) -> None:
  answer = server.predict(photo(1))
  assert answer.status == 200
  found = model(photo(1), conf=CONF).to_dict()
  assert len(found["detections"]) > 1
  assert answer.json["model"] == "pets <i>"
  assert (answer.json["width"], answer.json["height"]) == (48, 40)
  assert "path" not in answer.json
  assert [one["name"] for one in answer.json["detections"]] == [one["name"] for one in found["detections"]]
  for ours, theirs in zip(answer.json["detections"], found["detections"], strict=True):
    assert ours["box_xyxy_px"] == pytest.approx(theirs["box_xyxy_px"], abs=1e-2)
    assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)


def test_options_of_a_request(server: Server, model: Model) -> None:
  answer = server.predict(photo(1), "?conf=0.3&nms=0.9&classes=cat").json["detections"]
  found = model(photo(1), conf=0.3, nms=0.9, classes=["cat"])
  assert len(answer) == len(found)
  assert {one["name"] for one in answer} == {"cat"}


def test_a_form_and_a_picture(server: Server) -> None:
  body = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="../../a.png"\r\n\r\n' + photo(1) + b"\r\n--x--\r\n"
  )
  form = {"Content-Type": "multipart/form-data; boundary=x"}
  assert server.predict(body, headers=form).json["detections"] == server.predict(photo(1)).json["detections"]
  answer = server.predict(body, "?format=image", form)
  assert answer.headers["content-type"] == "image/jpeg"
  assert Image.open(io.BytesIO(answer.body)).size == (48, 40)


@pytest.mark.parametrize(
  ("query", "body", "status", "text"),
  [
    ("", b"", 400, r"the request has no body; send the bytes of a photo: curl --data-binary @photo.jpg ADDRESS/predict"),
    ("", b"hello", 400, r"image of 5 bytes is not an image: it starts with b'hello'"),
    ("", photo(1)[:300], 400, r"(?i)truncated|incomplete|broken"),
    ("", bytes(int(MAX_MB * 1e6) + 1), 413, r"the request is larger than 0.2 MB"),
    ("?cnf=1", b"x", 400, r"unknown parameter 'cnf' \(did you mean 'conf'\?\); expected conf, nms, classes, format"),
    ("?conf=1&conf=0", b"x", 400, r"parameter 'conf' is given twice"),
    ("?conf=high", b"x", 400, r"conf=high; expected a number, for example 0.25"),
    ("?conf=nan", b"x", 400, r"conf is nan; expected a number from 0 to 1"),
    ("?classes=bird", b"x", 400, r"'bird' is no class of network"),
    ("?format=xml", b"x", 400, r"format=xml; expected json or image"),
  ],
)  # fmt: skip
def test_what_is_refused(server: Server, query: str, body: bytes, status: int, text: str) -> None:
  answer = server.predict(body, query)
  assert answer.status == status
  assert re.search(text, answer.error)


def test_a_form_without_its_photo(server: Server) -> None:
  form = {"Content-Type": "multipart/form-data; boundary=x"}
  assert "the form has 0 files; expected one photo" in server.predict(b"--x--\r\n", headers=form).error
  empty = b'--x\r\nContent-Disposition: form-data; name="i"; filename="a"\r\n\r\n\r\n--x--\r\n'
  assert "the file of the form is empty" in server.predict(empty, headers=form).error
  assert server.predict(b"no form at all", headers=form).status == 400


@pytest.mark.parametrize(
  "path", ["/../../etc/passwd", "/page.html", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/predict/x"]
)
def test_no_address_is_a_file(server: Server, path: str) -> None:
  answer = server.ask("GET", path)
  assert answer.status == 404
  assert answer.error == "nothing is here; there are /, /predict, /healthz, /metrics."


def test_wrong_method(server: Server) -> None:
  answer = server.ask("GET", "/predict")
  assert (answer.status, answer.error) == (405, "GET does nothing here; expected POST.")


def test_pages_of_the_web_are_refused(server: Server) -> None:
  """A name of theirs that leads here (DNS rebinding), and a form or script on their page."""
  assert (
    "answers to localhost, 127.0.0.1 alone, not to 'evil.example'"
    in server.ask("GET", "/", headers={"Host": "evil.example"}).error
  )
  answer = server.predict(photo(1), headers={"Origin": "https://evil.example"})
  assert (answer.status, answer.error) == (403, "a page of 'https://evil.example' may not use this server.")
  assert server.predict(photo(1), headers={"Origin": f"http://{LOOPBACK}:{server.port}"}).status == 200


def test_page_escapes_names_and_runs_its_own_script_alone(server: Server) -> None:
  answer = server.ask("GET", "/")
  text = answer.body.decode()
  assert "<h1>pets &lt;i&gt;</h1>" in text
  assert not re.search(r"""(src|href)=["']?(?!#)""", text)
  assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_crowd_with_bad_ones_in_it_loses_nothing(server: Server, model: Model) -> None:
  """200 at once; every fifth is no image, every seventh asks for something else; each gets its own answer."""
  own = {seed: model(photo(seed), conf=CONF) for seed in range(6)}

  def ask(number: int) -> Answer:
    if number % 5 == 0:
      return server.predict(b"no image")
    return server.predict(photo(number % 6), "?conf=0.9" if number % 7 == 0 else "")

  with ThreadPoolExecutor(50) as pool:
    answers = list(pool.map(ask, range(200)))
  for number, answer in enumerate(answers):
    if number % 5 == 0:
      assert answer.status == 400
      continue
    wanted = own[number % 6]
    assert answer.status == 200, answer.body
    scores = [one["score"] for one in answer.json["detections"]]
    least = 0.9 if number % 7 == 0 else CONF
    assert scores == pytest.approx([float(s) for s in wanted.scores if s > least], abs=1e-4)
  figures = metrics(server)
  assert figures["prn_batch_images_sum"] > figures["prn_batch_images_count"]  # batches were formed
  assert figures["prn_open_requests"] == figures["prn_waiting_images"] == 0


def metrics(server: Server) -> dict[str, float]:
  text = server.ask("GET", "/metrics").body.decode()
  return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def test_metrics_and_health(server: Server) -> None:
  before = metrics(server).get('prn_requests_total{path="/predict",status="200"}', 0)
  server.predict(photo(2))
  server.ask("GET", "/a/name/of/an/attacker")
  after = metrics(server)
  assert after['prn_requests_total{path="/predict",status="200"}'] == before + 1
  assert after['prn_requests_total{path="other",status="404"}'] >= 1
  assert not any("attacker" in name for name in after)
  expected = {"status": "ok", "model": "pets <i>", "task": "detect", "width": 32, "height": 32}
  assert server.ask("GET", "/healthz").json == expected


def test_slow_clients_and_a_full_house(model: Model) -> None:
  """One place: whoever holds it without sending is sent away after the time, and meanwhile others hear that it is taken."""
  with serving(model, ServeSettings(batch=1, timeout_sec=1.0, waiting=1)) as server:
    with socket.create_connection((LOOPBACK, server.port)) as slow:
      slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
      time.sleep(0.3)
      answer = server.predict(photo(1))
      assert (answer.status, answer.headers["retry-after"]) == (503, "1")
      assert "too many photos are waiting" in answer.error
      assert server.ask("GET", "/healthz").status == 200
      slow.settimeout(20)
      assert b"the photo did not arrive within 1 s" in slow.makefile("rb").read()
    assert server.predict(photo(1)).status in (200, 504)  # the place is free again
    assert metrics(server)["prn_open_requests"] == 0


def test_a_network_that_fails_is_the_servers_fault(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
  """Not the client's, whose photo was right."""

  def failing(*args: object) -> None:
    raise PrnError("network 'pets' gave NaN")

  with serving(model, ServeSettings(batch=1)) as server:
    monkeypatch.setattr("prn_jax.serve.batches._results", failing)
    answer = server.predict(photo(1))
  assert (answer.status, answer.error) == (500, "an error of the server; its log holds the details.")


def test_a_classifier() -> None:
  g = Builder(width=16, height=16, name="tiny")
  g.conv(3, size=3, padding=1, name="conv")
  g.avgpool(name="pool")
  g.softmax(name="softmax")
  graph = g.graph()
  with serving(Model(graph, init_variables(graph), names=("a", "b", "c")), ServeSettings(batch=1)) as server:
    top = server.predict(photo(1)).json["top"]
    assert sorted(one["name"] for one in top) == ["a", "b", "c"]
    assert "classifies and takes no conf" in server.predict(photo(1), "?conf=0.1").error
    assert "a classifier has no boxes to draw" in server.predict(photo(1), "?format=image").error


def test_settings() -> None:
  assert ServeSettings(batch=6).batch_sizes == (1, 2, 4, 6)
  assert ServeSettings(batch=1).batch_sizes == (1,)
  with pytest.raises(PrnError, match=r"batch is 0; expected at least 1: images per run of the network"):
    ServeSettings(batch=0)
