"""The roll call of process 0, spoken to through plain sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from launch.fake_pod import free_port
from prn_jax.errors import PrnError
from prn_jax.hosts.exit_codes import BAD_INPUT, HOST_LOST
from prn_jax.hosts.peers import read_message
from prn_jax.hosts.roster import LAST, Roster


class Caller:
  """A process of the run, or something that says so."""

  def __init__(self, port: int) -> None:
    self.wire = socket.create_connection(("127.0.0.1", port), timeout=5.0)
    self.file = self.wire.makefile("rb")

  def say(self, **message: Any) -> None:
    self.wire.sendall(json.dumps(message).encode() + b"\n")

  def hello(self, index: int, of: int = 2) -> None:
    self.say(hello=index, of=of, host=f"node-{index}", pid=100 + index)

  def hear(self, key: str) -> dict[str, Any]:
    """The next message with `key`; signs of life before it are skipped."""
    while True:
      message: dict[str, Any] = json.loads(self.file.readline())
      if key in message:
        return message

  def hang_up(self) -> None:
    self.file.close()
    self.wire.close()


@contextlib.contextmanager
def roll_call(count: int = 2, join_sec: float = 30.0, silence_sec: float = 30.0) -> Iterator[tuple[Roster, int]]:
  port = free_port()
  roster = Roster(("node-0", port), count, join_sec, silence_sec)
  try:
    yield roster, port
  finally:
    roster._members.clear()  # nobody to wait for
    roster.close()


@contextlib.contextmanager
def callers(port: int, number: int) -> Iterator[list[Caller]]:
  found = [Caller(port) for _ in range(number)]
  try:
    yield found
  finally:
    for caller in found:
      caller.hang_up()


@contextlib.contextmanager
def started(silence_sec: float = 30.0) -> Iterator[list[Caller]]:
  """Two processes after a complete roll call."""
  with roll_call(silence_sec=silence_sec) as (_, port), callers(port, 2) as both:
    for index, caller in enumerate(both):
      caller.hello(index)
    for caller in both:
      caller.hear("go")
    yield both


def test_port_is_free_when_all_are_here() -> None:
  with roll_call() as (_, port), callers(port, 2) as (first, second):
    first.hello(0)
    assert first.hear("waiting")
    second.hello(1)
    for caller in (first, second):
      assert caller.hear("go")
    socket.create_server(("", port)).close()  # JAX listens there next, while the connections stay open
    first.say(gather="a", value=1, timeout=9)
    second.say(gather="a", value=2, timeout=9)
    assert second.hear("gathered")["values"] == [1, 2]


def test_strangers_are_ignored() -> None:
  with roll_call() as (_, port), callers(port, 5) as (*strangers, first, second):
    for stranger, data in zip(strangers, (b"GET / HTTP/1.1\r\n\r\n", b'{"hello": "x"}\n', b"[1]\n"), strict=True):
      stranger.wire.sendall(data)
      with contextlib.suppress(ConnectionResetError):
        assert stranger.file.read() == b""  # hung up
    first.hello(0)
    second.hello(1)
    assert second.hear("go")


def test_process_may_come_again_during_the_roll_call() -> None:
  with roll_call() as (_, port), callers(port, 3) as (early, first, second):
    early.hello(1)
    early.hear("waiting")
    early.hang_up()
    first.hello(0)
    first.hear("tick")  # time to notice
    second.hello(1)
    assert second.hear("go")


def test_missing_processes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
  with roll_call(count=4, join_sec=0.5) as (_, port), callers(port, 2) as (first, second):
    first.hello(0, of=4)
    second.hello(2, of=4)
    for caller in (first, second):
      verdict = caller.hear("end")
      assert verdict["end"] == HOST_LOST
      assert f"processes 1, 3 of 4 did not arrive at node-0:{port} within 0.5 s. " in verdict["text"]
      assert "Here: 0 (node-0), 2 (node-2). Check on the missing hosts" in verdict["text"]
    with callers(port, 1) as (late,):
      late.hello(1, of=4)
      assert late.hear("end") == verdict  # no second start


def test_waiting_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
  monkeypatch.setattr("prn_jax.hosts.roster.NAG_SEC", 0.2)
  with roll_call() as (_, port), callers(port, 1) as (first,):
    first.hello(0)
    first.hear("tick")
    time.sleep(0.5)
  assert f"prn: waiting for process 1 of 2 at node-0:{port}" in capsys.readouterr().err


def test_other_number_of_processes() -> None:
  with roll_call() as (_, port), callers(port, 1) as (first,):
    first.hello(1, of=4)
    verdict = first.hear("end")
  assert verdict["end"] == BAD_INPUT
  assert "process 1 (node-1, pid 101) was started as one of 4 processes, process 0 as one of 2." in verdict["text"]


def test_two_with_the_same_number() -> None:
  with roll_call(count=3) as (_, port), callers(port, 2) as both:
    for caller in both:
      caller.hello(1, of=3)
    for caller in both:
      verdict = caller.hear("end")
      assert verdict["end"] == BAD_INPUT
      assert "two processes say that they are process 1: node-1 pid 101 and node-1 pid 101. Give" in verdict["text"]


def test_late_process_of_an_exchange_is_named() -> None:
  with started() as (first, second):
    second.say(step=41, age=2.0)
    first.say(gather="start check", value=1, timeout=0.4)
    verdict = first.hear("end")
  assert verdict["end"] == HOST_LOST
  assert "process 1 (node-1, pid 101), last completed step 41, " in verdict["text"]
  assert "did not come to 'start check' within 0.4 s of the first." in verdict["text"]


def test_silent_process_is_named() -> None:
  with started(silence_sec=1.0) as (first, second):
    for step in range(20):
      first.say(step=step, age=0.0)
      time.sleep(0.1)
    verdict = first.hear("end")
    second.hear("end")
  assert verdict["end"] == HOST_LOST
  assert "process 1 (node-1, pid 101) has said nothing for 1 s, it has not told of a completed step" in verdict["text"]


def test_lost_process_is_named() -> None:
  with started() as (first, second):
    second.say(step=7, age=0.0)
    second.hang_up()
    verdict = first.hear("end")
  assert verdict["end"] == HOST_LOST
  assert "process 1 (node-1, pid 101) is gone, last completed step 7, 0 s ago: it died" in verdict["text"]


def test_failure_is_passed_on_with_its_code() -> None:
  with started() as (first, second):
    second.say(failed=2, text="PrnError: no such image")
    verdict = first.hear("end")
  assert (verdict["end"], verdict["text"][:77]) == (
    2,
    "process 1 (node-1, pid 101) ended (PrnError: no such image), it has not told ",
  )


def test_slowest_process_is_known_to_all() -> None:
  with started() as (first, second):
    first.say(step=9, age=0.0)
    second.say(step=7, age=3.0)
    first.hear("tick")  # perhaps from before
    assert "slowest of 2: process 1 (node-1, pid 101), last completed step 7, " in first.hear("tick")["tick"]


def test_no_alarm_after_the_last_exchange() -> None:
  with started() as (first, second):
    for caller in (first, second):
      caller.say(gather=LAST, value=0, timeout=9)
    assert first.hear("gathered")["last"] is True
    second.hang_up()
    first.wire.settimeout(0.6)
    with pytest.raises(TimeoutError):
      first.hear("end")


def test_port_that_is_taken() -> None:
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
    with pytest.raises(
      PrnError, match=rf"process 0 cannot listen on port {port} .*Address already in use.*another port"
    ):
      Roster(("node-0", port), 2, 1.0, 1.0)


@pytest.mark.parametrize(
  ("line", "said"),
  [
    (b"GET / HTTP/1.1", r":1 is no valid JSON: Expecting value at column 1"),
    (b"[" * 5000 + b"]" * 5000, r"is nested (too deeply|more than \d+ levels deep)"),  # the latter from Python 3.13 on
    (b"[1]", r"is \[1\]; expected keys with values"),
    (b'{"end": "soon", "text": "x"}', r": end is 'soon'; expected a whole number from 0 to 255"),
    (b'{"gathered": "losses"}', r"has no 'values'; it has 'gathered'"),
    (b'{"tick": 3}', r": tick is 3; expected text"),
  ],
)
def test_what_is_no_message(line: bytes, said: str) -> None:
  with pytest.raises(PrnError, match=rf"what process 0 \(a:1\) says ?{said}"):
    read_message(line, ("a", 1))
