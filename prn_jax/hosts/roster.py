"""The side of process 0 of `peers`: who is here, at which step, who is missing, who is gone."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.files.structured import parse_json
from prn_jax.hosts.exit_codes import BAD_INPUT, HOST_LOST

MAX_LINE = 1 << 20
LINGER_SEC = 2.0
NAG_SEC = 10.0  # how often a roll call that is not complete says who is missing
RESTART = "Run the same command again on all hosts: it goes on from the last checkpoint."


@dataclasses.dataclass(eq=False)
class Member:
  """One connection; `index` is -1 until it has said which process it is."""

  wire: socket.socket
  index: int = -1
  host: str = "?"
  pid: int = 0
  buffer: bytes = b""
  heard_time: float = dataclasses.field(default_factory=time.monotonic)
  step: int = -1
  step_time: float = dataclasses.field(default_factory=time.monotonic)

  def __str__(self) -> str:
    return f"process {self.index} ({self.host}, pid {self.pid})"

  def progress(self) -> str:
    """Where it was when last heard of."""
    if self.step < 0:
      return "it has not told of a completed step"
    return f"last completed step {self.step}, {time.monotonic() - self.step_time:.0f} s ago"


@dataclasses.dataclass
class Exchange:
  """A `gather` that not every process has reached."""

  deadline: float
  timeout_sec: float
  values: dict[int, Any] = dataclasses.field(default_factory=dict)


class Roster:
  """Takes the roll call and watches over the run, in a thread of process 0."""

  def __init__(self, address: tuple[str, int], count: int, join_timeout_sec: float, silence_sec: float) -> None:
    """Listens on all interfaces at the port of `address`.

    Raises:
      PrnError: the port is taken or not allowed.
    """
    self._name = f"{address[0]}:{address[1]}"
    self._count, self._silence_sec, self._join_timeout_sec = count, silence_sec, join_timeout_sec
    self._start = time.monotonic()
    self._members: dict[int, Member] = {}
    self._wires: list[Member] = []  # all that said hello, also those that do not fit in
    self._exchanges: dict[str, Exchange] = {}
    self._select = selectors.DefaultSelector()
    self._verdict: dict[str, Any] | None = None
    self._over = self._closed = False
    self._nag_time, self._tick_time = self._start + NAG_SEC, self._start
    self._listener: socket.socket | None = _listen(address[1], self._name)
    self._select.register(self._listener, selectors.EVENT_READ)
    self._thread = threading.Thread(target=self._run, name="prn-roster", daemon=True)
    self._thread.start()

  def outlive_others(self, timeout_sec: float = LINGER_SEC) -> None:
    """Waits until the others have hung up.

    If process 0 left first, the reset of its sockets could overtake its last words, and JAX would abort the others.
    """
    deadline = time.monotonic() + timeout_sec
    while any(index > 0 for index in list(self._members)) and time.monotonic() < deadline:
      time.sleep(0.02)

  def close(self) -> None:
    """Stops the thread and hangs up, after the others."""
    self.outlive_others()
    self._closed = True
    self._thread.join(2.0)
    for member in self._wires:
      member.wire.close()
    self._select.close()

  def _run(self) -> None:
    while not self._closed:
      for key, _ in self._select.select(timeout=0.2):
        if key.fileobj is self._listener:
          self._accept()
        else:
          self._read(key.data)
      if self._verdict is None and not self._over:
        self._look_at_the_clock()

  def _accept(self) -> None:
    assert self._listener is not None
    with contextlib.suppress(OSError):
      wire, _ = self._listener.accept()
      wire.settimeout(5.0)
      self._select.register(wire, selectors.EVENT_READ, Member(wire))

  def _read(self, member: Member) -> None:
    try:
      data = member.wire.recv(65536)
    except OSError:
      data = b""
    if not data:
      self._drop(member)
      return
    member.heard_time = time.monotonic()
    *lines, member.buffer = (member.buffer + data).split(b"\n")
    try:
      if len(member.buffer) > MAX_LINE:
        raise ValueError("line too long")
      for line in lines:
        self._handle(member, parse_json(line, "a message").raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
      self._drop(member)  # a port scanner, not one of us

  def _handle(self, member: Member, message: dict[str, Any]) -> None:
    if member.index < 0:
      self._greet(member, message)
    elif "step" in message:
      member.step, member.step_time = int(message["step"]), time.monotonic() - float(message["age"])
    elif "gather" in message:
      self._gather(member, message)
    elif "failed" in message:
      self._end(int(message["failed"]), f"{member} ended ({message['text']}), {member.progress()}.")

  def _greet(self, member: Member, message: dict[str, Any]) -> None:
    index, of = int(message["hello"]), int(message["of"])
    member.index, member.host, member.pid = index, str(message["host"]), int(message["pid"])
    self._wires.append(member)
    self._send(member, self._verdict or {"waiting": True})
    other = self._members.get(index)
    if of != self._count or not 0 <= index < self._count:
      self._end(
        BAD_INPUT,
        f"{member} was started as one of {of} processes, process 0 as one of {self._count}. Start all with the same "
        "number of processes and numbers from 0.",
      )
    elif other is not None:
      self._end(
        BAD_INPUT,
        f"two processes say that they are process {index}: {other.host} pid {other.pid} and {member.host} pid "
        f"{member.pid}. Give every process its own number (PRN_PROCESS_ID).",
      )
    elif self._verdict is None:
      self._members[index] = member
      if len(self._members) == self._count:
        self._all_here()

  def _all_here(self) -> None:
    """Frees the port for JAX before anyone is told to go on."""
    assert self._listener is not None
    self._select.unregister(self._listener)
    self._listener.close()
    self._listener = None
    self._broadcast({"go": True})

  def _gather(self, member: Member, message: dict[str, Any]) -> None:
    name, timeout_sec = str(message["gather"]), float(message["timeout"])
    exchange = self._exchanges.setdefault(name, Exchange(time.monotonic() + timeout_sec, timeout_sec))
    exchange.values[member.index] = message["value"]
    if len(exchange.values) < self._count:
      return
    del self._exchanges[name]
    self._over = self._over or name == LAST
    values = [exchange.values[index] for index in range(self._count)]
    self._broadcast({"gathered": name, "values": values, "last": self._over})

  def _drop(self, member: Member) -> None:
    self._select.unregister(member.wire)
    member.wire.close()
    if member in self._wires:
      self._wires.remove(member)
    if self._members.get(member.index) is not member:
      return
    del self._members[member.index]
    if self._listener is None and not self._over:
      self._end(
        HOST_LOST, f"{member} is gone, {member.progress()}: it died or was killed, its own log says why. {RESTART}"
      )

  def _look_at_the_clock(self) -> None:
    now = time.monotonic()
    if now > self._tick_time + 1.0:
      self._tick_time = now
      self._broadcast({"tick": self._summary()})  # our own sign of life
    if self._listener is not None:
      self._check_roll_call(now)
      return
    for member in self._members.values():
      if now - member.heard_time > self._silence_sec:
        silent = f"{member} has said nothing for {self._silence_sec:g} s, {member.progress()}"
        self._end(HOST_LOST, f"{silent}: stopped, frozen or cut off from the network. {RESTART}")
        return
    for name, exchange in self._exchanges.items():
      if now > exchange.deadline:
        late = [m for i, m in sorted(self._members.items()) if i not in exchange.values]
        text = "; ".join(f"{m}, {m.progress()}" for m in late[:8])
        within = f"did not come to '{name}' within {exchange.timeout_sec:g} s of the first"
        self._end(HOST_LOST, f"{text}: {within}. Look at the log there. {RESTART}")
        return

  def _summary(self) -> str:
    if not self._members:
      return ""
    slowest = min(self._members.values(), key=lambda member: (member.step, member.step_time))
    return f"slowest of {self._count}: {slowest}, {slowest.progress()}"

  def _check_roll_call(self, now: float) -> None:
    missing = sorted(set(range(self._count)) - set(self._members))
    if now - self._start > self._join_timeout_sec:
      here = ", ".join(f"{i} ({m.host})" for i, m in sorted(self._members.items())[:8])
      self._end(
        HOST_LOST,
        f"{_processes(missing)} of {self._count} did not arrive at {self._name} within {self._join_timeout_sec:g} s. "
        f"Here: {here}{', ...' if len(self._members) > 8 else ''}. Check on the missing hosts that the command runs with "
        f"PRN_PROCESS_ID={missing[0]} (or what the cluster sets), that its log has no earlier error, and that the port "
        "can be reached (firewall).",
      )
    elif now > self._nag_time:
      self._nag_time += NAG_SEC
      print(f"prn: waiting for {_processes(missing)} of {self._count} at {self._name}", file=sys.stderr, flush=True)

  def _end(self, code: int, text: str) -> None:
    if self._verdict is None:
      self._verdict = {"end": code, "text": text}
      self._broadcast(self._verdict)

  def _broadcast(self, message: dict[str, Any]) -> None:
    for member in self._wires:
      self._send(member, message)

  def _send(self, member: Member, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # noticed when reading
      member.wire.sendall(json.dumps(message).encode() + b"\n")


LAST = "end of the run"  # the exchange after which closed connections are no alarm


def differences(facts: Iterable[dict[str, Any]]) -> list[str]:
  """Who differs from the others, in words: "steps: process 1 has 90, the 3 others have 100"."""
  facts, found = list(facts), []
  for key in sorted({key for each in facts for key in each}):
    values = [each.get(key) for each in facts]
    counts = collections.Counter(map(repr, values))
    if len(counts) > 1:
      # Of equally common values the one of the lowest process is taken for the right one.
      usual = max(counts, key=lambda text: counts[text])
      odd = [f"process {i} has {value!r}" for i, value in enumerate(values) if repr(value) != usual]
      more = f" and {len(odd) - 8} more" if len(odd) > 8 else ""
      have = "the other has" if counts[usual] == 1 else f"the {counts[usual]} others have"
      found.append(f"{key}: {', '.join(odd[:8])}{more}, {have} {usual}")
  return found


def _processes(indices: list[int]) -> str:
  shown = ", ".join(map(str, indices[:16])) + (f" and {len(indices) - 16} more" if len(indices) > 16 else "")
  return f"process{'es' if len(indices) > 1 else ''} {shown}"


def _listen(port: int, name: str) -> socket.socket:
  families = [socket.AF_INET6, socket.AF_INET] if socket.has_dualstack_ipv6() else [socket.AF_INET]
  trouble: OSError | None = None
  for family in families:
    try:
      return socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=4096)
    except OSError as error:
      trouble = trouble or error
  raise PrnError(
    f"process 0 cannot listen on port {port} (coordinator address {name}): {trouble}. Another run may still be there: "
    "end it, or choose another port on all hosts."
  ) from trouble
