"""The wire between the processes of a run: roll call, signs of life, exchange of values, and the last words.

JAX's own coordinator aborts the whole process (SIGABRT, no message of ours) when a host is missing or dies, and says
nothing when one hangs. So process 0 takes a roll call first, on the very port that JAX will use afterwards (one port to
open in a firewall), and the connections of the roll call stay open for the whole run:

- every process says once a second that it lives and at which step it is; a closed or silent connection ends all others
  with `HOST_LOST` and the name of the process that is gone;
- `gather` exchanges small values and is a barrier that names who has not come;
- `fail` tells the others why this process ends, so that all end with the same code.

Lines of JSON over TCP, at most `MAX_LINE` bytes each. Like JAX's own service it trusts its network.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
import traceback
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.files.structured import parse_json
from prn_jax.files.values import shown
from prn_jax.hosts.exit_codes import HOST_LOST, INTERNAL, end_process
from prn_jax.hosts.roster import MAX_LINE, RESTART, Roster

Message = dict[str, Any]


def read_message(line: bytes, address: tuple[str, int]) -> Message:
  """What process 0 at `address` says; PrnError for what is no message of ours."""
  root = parse_json(line, f"what process 0 ({address[0]}:{address[1]}) says")
  for key in ("text", "tick", "gathered"):
    if not isinstance(root.get(key, "").raw, str):
      raise root[key].fault(f"is {shown(root[key].raw)}; expected text")
  if "gathered" in root:
    root["values"].items()
  if "end" in root:
    root["end"].whole(0, 255)
  return dict(root.raw)


class Peers:
  """One process's end of the wire; process 0 also runs the `Roster` that all, itself included, are connected to."""

  def __init__(self, coordinator: str, index: int, count: int, *, join_timeout_sec: float, silence_sec: float) -> None:
    """Starts the roll call in the background; `join` waits for it.

    Args:
      coordinator: "host:port" of process 0; the port is free again for JAX when `join` returns.
      index: this process, 0 <= index < count.
      count: processes of the run.
      join_timeout_sec: how long to wait for a process that is missing.
      silence_sec: a process that says nothing for so long is taken for dead.

    Raises:
      PrnError: the address has no port, or process 0 cannot listen on it.
    """
    self.index, self.count = index, count
    self._address = split_address(coordinator)
    self._silence_sec, self._join_timeout_sec = silence_sec, join_timeout_sec
    self._lock = threading.Lock()
    self._socket: socket.socket | None = None
    self._went = threading.Event()
    self._ended = threading.Event()
    self._answers: dict[str, list[Any]] = {}
    self._answered = threading.Condition()
    self._step, self._step_time = -1, time.monotonic()
    self._failing = self._quiet = False
    self.summary = ""  # what process 0 last said about the slowest process
    self._roster: Roster | None = None
    if index == 0:
      self._roster = Roster(self._address, count, join_timeout_sec, silence_sec)
    self._thread = threading.Thread(target=self._run, name="prn-peers", daemon=True)
    self._thread.start()

  @property
  def ended(self) -> bool:
    """Whether the run is over because of another process; this one is about to end."""
    return self._ended.is_set()

  def join(self) -> None:
    """Waits until every process is here; a missing one ends this process with HOST_LOST and its number."""
    self._went.wait()

  def report(self, step: int) -> None:
    """Notes the last completed step; it travels with the next sign of life."""
    self._step, self._step_time = step, time.monotonic()

  def gather(self, name: str, value: Any, timeout_sec: float) -> list[Any]:
    """Exchanges one value of every process; all of them must call it with the same names in the same order.

    Args:
      name: the name of the exchange, used once in a run.
      value: anything that JSON holds.
      timeout_sec: a process that has not come after so long ends the run with its number.

    Returns:
      The values in the order of the processes.
    """
    self._send({"gather": name, "value": value, "timeout": timeout_sec})
    with self._answered:
      self._answered.wait_for(lambda: name in self._answers)
      return self._answers.pop(name)

  def fail(self, code: int, text: str) -> None:
    """Tells the others that this process ends with `code`; they end with the same. Returns when they know, or in 2 s."""
    self._failing = True
    self._send_sign_of_life()
    self._send({"failed": code, "text": text})
    self._ended.wait(2.0)
    if self._roster is not None:
      self._roster.outlive_others()

  def wait_for_verdict(self, timeout_sec: float) -> None:
    """After a failed collective: gives the wire time to name the process that is gone, which ends this one."""
    self._ended.wait(timeout_sec)
    if self._ended.is_set():
      time.sleep(timeout_sec)  # the other thread is printing and will not return

  def close(self) -> None:
    """Hangs up without alarm; call it after a `gather` that all processes passed."""
    self._quiet = True
    self._thread.join(2.0)
    if self._roster is not None:
      self._roster.close()

  def _run(self) -> None:
    """The thread. It must not die alone: whoever waits in `join` or `gather` would wait for ever."""
    try:
      self._listen()
    except Exception as error:  # whatever it is
      if self._quiet or self._failing or self._ended.is_set():
        return
      if not isinstance(error, PrnError):
        traceback.print_exc()
      text = f"the connection to the other processes failed: {type(error).__name__}: {error}"
      self._send({"failed": INTERNAL, "text": text})
      end_process(INTERNAL, f"process {self.index} of {self.count}: {text}")

  def _listen(self) -> None:
    self._connect()
    interval_sec = min(1.0, self._silence_sec / 5)
    buffer, heard, said = b"", time.monotonic(), 0.0
    while not self._quiet:
      assert self._socket is not None
      if time.monotonic() - said > interval_sec:
        self._send_sign_of_life()
        said = time.monotonic()
      data = _receive(self._socket, min(0.25, self._silence_sec / 10))
      if data:
        heard = time.monotonic()
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
          self._handle(read_message(line, self._address))
      elif data is not None:
        self._coordinator_lost("closed its connection, so it died or was killed: its own log says why")
      elif time.monotonic() - heard > self._silence_sec:
        self._coordinator_lost(f"has said nothing for {self._silence_sec:g} s: stopped, frozen or cut off")
    with contextlib.suppress(OSError):
      assert self._socket is not None
      self._socket.close()

  def _handle(self, message: Message) -> None:
    if "go" in message:
      self._went.set()
    elif "gathered" in message:
      self._quiet = self._quiet or bool(message.get("last"))
      with self._answered:
        self._answers[message["gathered"]] = message["values"]
        self._answered.notify_all()
    elif "tick" in message:
      self.summary = message["tick"]
    elif "end" in message:
      self._end(message["end"], message.get("text", "no reason was given"))

  def _end(self, code: int, text: str) -> None:
    self._ended.set()
    if self._failing or self._quiet:
      return  # this process knows better why it ends
    if self._roster is not None:
      self._roster.outlive_others()
    end_process(code, f"process {self.index} of {self.count}: {text}")

  def _coordinator_lost(self, what: str) -> None:
    host, port = self._address
    if self._quiet or self._failing or self._ended.is_set():
      self._quiet = True
      return
    self._end(HOST_LOST, f"process 0 (the coordinator, {host}:{port}) {what}. {RESTART}")

  def _connect(self) -> None:
    """Connects to the roll call and says who we are, again and again until process 0 answers in our language."""
    deadline, trouble = time.monotonic() + self._join_timeout_sec, ""
    host, port = ("127.0.0.1", self._address[1]) if self.index == 0 else self._address
    hello = {"hello": self.index, "of": self.count, "host": socket.gethostname(), "pid": os.getpid()}
    while time.monotonic() < deadline:
      try:
        wire = socket.create_connection((host, port), timeout=2.0)
        wire.sendall(_line(hello))
        answer = _read_line(wire)
        if answer.startswith(b"{"):
          wire.settimeout(5.0)
          self._socket = wire
          self._handle(read_message(answer, self._address))
          return
        trouble = "another program answers there, perhaps an earlier run that has not ended"
        wire.close()
      except (OSError, ValueError) as error:
        trouble = str(error) or type(error).__name__
      time.sleep(0.3)
    end_process(
      HOST_LOST,
      f"process {self.index} of {self.count}: process 0 did not answer at {host}:{port} within "
      f"{self._join_timeout_sec:g} s ({trouble}). Check that process 0 runs on that host, that the name is right, and "
      "that this host reaches the port (firewall).",
    )

  def _send_sign_of_life(self) -> None:
    self._send({"step": self._step, "age": time.monotonic() - self._step_time})

  def _send(self, message: Message) -> None:
    if self._socket is None:
      return
    with self._lock, contextlib.suppress(OSError):  # a broken wire is noticed by the reader
      self._socket.sendall(_line(message))


def split_address(address: str) -> tuple[str, int]:
  """("node-0", 1234) of "node-0:1234"; IPv6 hosts in brackets.

  Raises:
    PrnError: no host, no port, or a port outside 1..65535.
  """
  host, _, port = address.rpartition(":")
  host = host.strip("[]")
  if not host or not port.isdigit() or not 0 < int(port) < 65536:
    raise PrnError(f"coordinator address {address!r}: expected HOST:PORT with a port from 1 to 65535, like node-0:8476")
  return host, int(port)


def _line(message: Message) -> bytes:
  data = json.dumps(message).encode() + b"\n"
  assert len(data) <= MAX_LINE, f"a message of {len(data)} bytes"
  return data


def _receive(wire: socket.socket, timeout_sec: float) -> bytes | None:
  """What has arrived; None if nothing did, b"" if the connection is closed or broken."""
  with selectors.DefaultSelector() as wait:
    try:
      wait.register(wire, selectors.EVENT_READ)
      return wire.recv(65536) if wait.select(timeout_sec) else None
    except (OSError, ValueError):
      return b""


def _read_line(wire: socket.socket) -> bytes:
  """The first line, byte by byte so that nothing of the next is lost; ends early at what is no line of ours."""
  data = b""
  while not data.endswith(b"\n") and len(data) < MAX_LINE:
    byte = wire.recv(1)
    if not byte:
      raise ConnectionResetError("the connection was closed at once")
    data += byte
    if not data.startswith(b"{"):
      break
  return data
