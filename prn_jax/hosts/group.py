"""Many hosts: joins them when the environment asks for it, checks that they agree, and stops them at the same step.

```python
hosts = initialize(HostSettings())             # before the first use of a device; alone if nothing asks for more
with hosts.guard(), Preemption(hosts) as preemption, Watchdog(hosts) as watchdog:
  hosts.check_same({"config": config_sha256, "records": len(dataset), "steps": num_steps})
  for step, batch in batches:
    state, metrics = train_step(state, batch)
    watchdog.feed(step)                        # after the step's result has been read
    if preemption.requested(step):             # True at the same step on all hosts
      save(state); code = PREEMPTED; break
  hosts.close(code)
```

What happens when a host is missing, dies or hangs is measured in docs/pods.md.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from prn_jax import interrupts
from prn_jax.errors import PrnError
from prn_jax.hosts.cluster import Cluster, find_cluster
from prn_jax.hosts.exit_codes import HOST_LOST, PREEMPTED, end_process, exit_code_of, tell_supervisor
from prn_jax.hosts.peers import Peers
from prn_jax.hosts.roster import LAST, differences
from prn_jax.ranges import at_least

ASKED = "prn: asked to stop: saving after this step, or batch of an evaluation"


class HostsDifferError(PrnError):
  """The hosts were started with different code, config or data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSettings:
  """Settings of a run on many hosts; on one host only the step timeouts are used.

  Attributes:
    cluster: "auto" looks at the environment, "off" trains alone whatever it says, or a method of JAX ("slurm", "ompi",
      "k8s", "gcetpu", "gketpu", "mpi4py").
    join_timeout_sec: a host that is not there after so long is named, and the others end. PRN_JOIN_TIMEOUT_SEC in the
      environment wins (launchers know how far apart hosts start).
    silence_timeout_sec: a process that gives no sign of life for so long is taken for dead.
    start_timeout_sec: longest wait for another host in `check_same`.
    first_step_timeout_sec: longest first step, compilation included.
    step_timeout_sec: longest later step; where steps are slow, 20 times the usual one.
    pause_timeout_sec: longest save, report, or batch of an evaluation.
  """

  cluster: str = "auto"
  join_timeout_sec: float = dataclasses.field(default=55.0, metadata=at_least(0.001, "seconds"))
  silence_timeout_sec: float = dataclasses.field(default=30.0, metadata=at_least(0.001, "seconds"))
  start_timeout_sec: float = dataclasses.field(default=900.0, metadata=at_least(0.001, "seconds"))
  first_step_timeout_sec: float = dataclasses.field(default=3600.0, metadata=at_least(0.001, "seconds"))
  step_timeout_sec: float = dataclasses.field(default=300.0, metadata=at_least(0.001, "seconds"))
  pause_timeout_sec: float = dataclasses.field(default=3600.0, metadata=at_least(0.001, "seconds"))


@dataclasses.dataclass(frozen=True)
class Hosts:
  """The processes of this run. `peers` is None when this process is alone, and then every method returns at once."""

  process_index: int = 0
  process_count: int = 1
  peers: Peers | None = None
  settings: HostSettings = HostSettings()

  @property
  def is_main(self) -> bool:
    """Whether this process writes the run directory."""
    return self.process_index == 0

  def report(self, step: int) -> None:
    """Tells the others which step this process has completed (the watchdog does it)."""
    if self.peers is not None:
      self.peers.report(step)

  def gather(self, name: str, value: Any, timeout_sec: float | None = None) -> list[Any]:
    """One value of every process, in their order; also a barrier. Small JSON values, a name for each use.

    A process that does not come within `timeout_sec` (None: `start_timeout_sec`) of the first ends the run with
    HOST_LOST and its number.
    """
    if self.peers is None:
      return [value]
    return self.peers.gather(name, value, self.settings.start_timeout_sec if timeout_sec is None else timeout_sec)

  def check_same(self, facts: Mapping[str, str | int | float], name: str = "start check") -> None:
    """Checks that all processes have the same facts, and the same code and number of local devices.

    Args:
      facts: what must be equal: hash of the config, size of the data set, number of steps.
      name: the name of the exchange; another one for each call in a run.

    Raises:
      HostsDifferError: on all processes alike; names every fact that differs, and the processes that differ.
    """
    if self.peers is None:
      return
    import jax

    own = {**facts, "code": code_fingerprint(), "local devices": jax.local_device_count(), "jax": jax.__version__}
    found = differences(self.gather(name, own))
    if found:
      raise HostsDifferError(
        "the hosts do not agree: " + "; ".join(found) + ". Give all hosts the same code, config and data."
      )

  @contextlib.contextmanager
  def guard(self) -> Iterator[None]:
    """Ends this process fast when the body fails: a failed process must not hold the others, nor wait for them.

    On one host it does nothing. On many, the first process that fails tells the others, and all end with its code (see
    `exit_code_of`); a collective that failed because a peer is gone ends with HOST_LOST and the peer's name.
    """
    if self.peers is None:
      yield
      return
    try:
      yield
    except BaseException as error:
      text = f"{type(error).__name__}: {error}"
      if self.peers.ended or _is_connection_error(error):
        # The wire knows the name, or will in a moment; then its thread ends this process.
        self.peers.wait_for_verdict(3.0)
        end_process(HOST_LOST, f"process {self.process_index}: another host is gone: {text[:500]}")
      code = exit_code_of(error)
      if not isinstance(error, (PrnError, SystemExit, KeyboardInterrupt)):
        traceback.print_exc()
      self.peers.fail(code, text[:500])
      end_process(code, f"process {self.process_index} of {self.process_count}: {text}")

  def close(self, exit_code: int = 0) -> None:
    """Ends the run together with the others: waits until all are here, then leaves JAX's distributed service.

    The wait is long: process 0 still draws the report while the others are here already.

    Args:
      exit_code: what this process will return; used if leaving takes longer than 20 s although all are done.
    """
    if self.peers is None:
      return
    import jax

    self.gather(LAST, exit_code, self.settings.start_timeout_sec + self.settings.pause_timeout_sec)
    with time_limit(20.0, exit_code, "all hosts are done, but JAX's distributed service does not end"):
      jax.distributed.shutdown()
    self.peers.close()


def gather_text(text: str) -> list[str]:
  """A text of any length from every process, in their order; each of them must call it.

  `Hosts.gather` is for small values: it speaks through process 0, and says who is late. This one is a collective of JAX.
  """
  import jax

  if jax.process_count() == 1:
    return [text]
  import numpy as np
  from jax.experimental import multihost_utils

  own = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(own)))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: len(own)] = own
  rows = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def initialize(settings: HostSettings | None = None, environ: Mapping[str, str] = os.environ) -> Hosts:
  """Joins the processes of this run, if the environment says that there are several. Call it before any device is used.

  The environment asks for it with PRN_COORDINATOR + PRN_NUM_PROCESSES + PRN_PROCESS_ID, with JAX_COORDINATOR_ADDRESS (+
  JAX_NUM_PROCESSES + JAX_PROCESS_ID), or by being a Slurm step, a Cloud TPU pod, an Open MPI or Kubernetes job that JAX
  recognises. A missing host ends this process with HOST_LOST after `join_timeout_sec`, and is named.

  Raises:
    PrnError: the environment is incomplete or contradicts itself.
  """
  settings = settings or HostSettings()
  settings = dataclasses.replace(settings, join_timeout_sec=_join_timeout_sec(settings, environ))
  cluster = find_cluster(settings.cluster, environ, settings.join_timeout_sec)
  if cluster is None or cluster.process_count == 1:
    return Hosts(settings=settings)
  peers = Peers(
    cluster.coordinator,
    cluster.process_id,
    cluster.process_count,
    join_timeout_sec=settings.join_timeout_sec,
    silence_sec=settings.silence_timeout_sec,
  )
  peers.join()
  tell_supervisor("joined")
  atexit.register(tell_supervisor, "ended")
  who = f"process {cluster.process_id} of {cluster.process_count}"
  limit_sec = settings.join_timeout_sec + settings.silence_timeout_sec
  problem = f"{who}: JAX could not connect all hosts at {cluster.coordinator} although all answered the roll call"
  with time_limit(limit_sec, HOST_LOST, problem):
    _start_jax(cluster, settings)
  hosts = Hosts(cluster.process_id, cluster.process_count, peers, settings)
  with time_limit(settings.start_timeout_sec, HOST_LOST, f"{who}: its devices or those of another host did not start"):
    _check_devices(hosts)
  return hosts


def _start_jax(cluster: Cluster, settings: HostSettings) -> None:
  import jax

  host = cluster.coordinator.rpartition(":")[0]
  proxied = any(name.lower() in ("http_proxy", "https_proxy", "grpc_proxy") for name in os.environ)
  for name in ("no_proxy", "NO_PROXY") if proxied else ():  # gRPC would ask the proxy for the coordinator, and wait
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))
  with contextlib.suppress(AttributeError):  # always on before it became an option
    jax.config.update("jax_enable_preemption_service", True)
  # Longer than our own, so that our message comes before JAX's abort.
  limits: dict[str, Any] = {
    "initialization_timeout": int(settings.join_timeout_sec + settings.silence_timeout_sec) + 30,
    "heartbeat_timeout_seconds": int(settings.silence_timeout_sec) + 15,
    "shutdown_timeout_seconds": 60,
  }
  known = inspect.signature(jax.distributed.initialize).parameters
  jax.distributed.initialize(
    cluster.coordinator,
    cluster.process_count,
    cluster.process_id,
    local_device_ids=cluster.local_device_ids,
    cluster_detection_method="deactivate",
    **{name: value for name, value in limits.items() if name in known},
  )


def _check_devices(hosts: Hosts) -> None:
  import jax

  if (jax.process_index(), jax.process_count()) != (hosts.process_index, hosts.process_count):
    raise PrnError(
      f"process {hosts.process_index} of {hosts.process_count} started, but its devices "
      f"({jax.devices()[0].platform}) say process {jax.process_index()} of {jax.process_count()}. Were devices used "
      "before initialize(), or does the platform not know the other hosts?"
    )


def _join_timeout_sec(settings: HostSettings, environ: Mapping[str, str]) -> float:
  text = environ.get("PRN_JOIN_TIMEOUT_SEC")
  if text is None:
    return settings.join_timeout_sec
  try:
    value = float(text)
  except ValueError:
    value = -1.0
  if value <= 0:
    raise PrnError(f"PRN_JOIN_TIMEOUT_SEC={text!r}: expected seconds, more than 0")
  return value


@contextlib.contextmanager
def time_limit(limit_sec: float, code: int, message: str) -> Iterator[None]:
  """Ends this process with `code` if the body takes longer; for calls that no exception can interrupt."""
  timer = threading.Timer(limit_sec, lambda: end_process(code, f"{message} (waited {limit_sec:g} s)", stacks=True))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


class Preemption:
  """Says when to save and stop because of SIGTERM: at the same step on all hosts.

  On one host SIGTERM and the first Ctrl-C ask for it (a second Ctrl-C interrupts as usual). On many, JAX's preemption
  service passes a SIGTERM of any host on to all and agrees on a step; `requested` must then be called at every step,
  from the same first step on.
  """

  def __init__(self, hosts: Hosts) -> None:
    self._hosts = hosts
    self._noticed = False
    self._old: dict[int, Any] = {}
    self._patient = contextlib.ExitStack()

  def __enter__(self) -> Preemption:
    if self._hosts.process_count == 1 and threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._old[number] = signal.signal(number, self._notice)
      self._patient.enter_context(interrupts.patient(lambda: _write_stderr(f"{ASKED} (Ctrl-C again: stop at once)")))
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
    self._patient.close()
    for number, handler in self._old.items():
      signal.signal(number, handler)
    self._old.clear()

  def requested(self, step: int) -> bool:
    """Whether to save and stop now; stays True once it was. Call it once after every step."""
    if self._hosts.process_count > 1 and not self._noticed:
      from jax.experimental import multihost_utils

      self._noticed = bool(multihost_utils.reached_preemption_sync_point(step))
    return self._noticed

  @property
  def is_noticed(self) -> bool:
    """Whether to end early what is done again at the next start: an evaluation.

    On many hosts this stays False until `requested` was True: one that left an evaluation alone would leave the others
    waiting for its share.
    """
    return self._noticed

  def _notice(self, number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and self._noticed:
      raise KeyboardInterrupt
    self._noticed = True
    if number != signal.SIGINT:
      _write_stderr(ASKED)
    elif not interrupts.is_installed:  # else it has been said already, at once
      _write_stderr(f"{ASKED} (Ctrl-C again: stop at once)")


@contextlib.contextmanager
def nothing_to_save(hosts: Hosts) -> Iterator[None]:
  """Until the training starts: SIGTERM ends this process with PREEMPTED at once, for there is nothing to save yet.

  On many hosts JAX's preemption service holds the signal, and `Preemption` learns of it at its first step.
  """
  if hosts.process_count > 1 or threading.current_thread() is not threading.main_thread():
    yield
    return

  def leave(number: int, frame: FrameType | None) -> None:
    _write_stderr("prn: asked to stop before the first step; nothing to save. Run the same command again.")
    raise SystemExit(PREEMPTED)

  old = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, old)


def _write_stderr(line: str) -> None:
  """For signal handlers. Not print: the signal may have interrupted a print that holds the lock of the stream."""
  os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{line}\n".encode())


def code_fingerprint() -> str:
  """sha256 over the Python files of prn_jax, 16 digits: equal code, equal text."""
  import prn_jax

  root, digest = Path(prn_jax.__file__).resolve().parent, hashlib.sha256()
  # followlinks: in a checkout, data_pipelines and configs are links to the folders beside the package
  found = sorted(Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
  for path in found:
    if path.suffix == ".py":
      digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
      digest.update(path.read_bytes())
  return digest.hexdigest()[:16]


def _is_connection_error(error: BaseException) -> bool:
  """Whether a collective failed because of a peer; anything else (out of memory, no disk) is this process's own.

  The text decides: the same failure of gloo is a JaxRuntimeError or a ValueError, depending on where it is noticed.
  """
  signs = ("gloo", "nccl", "heartbeat", "coordination service", "connection reset", "connection closed")
  is_of_jax = isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, PrnError)
  return is_of_jax and any(sign in str(error).lower() for sign in signs)
