"""Many hosts, imitated by processes of this machine: what joins, what is refused, and how everything ends."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from launch.fake_pod import Pod
from prn_jax.errors import PrnError
from prn_jax.hosts import exit_codes
from prn_jax.hosts.cluster import Cluster, find_cluster
from prn_jax.hosts.exit_codes import BAD_INPUT, HOST_LOST, INTERNAL, PREEMPTED
from prn_jax.hosts.group import (
  Hosts,
  HostSettings,
  Preemption,
  code_fingerprint,
  gather_text,
  initialize,
  nothing_to_save,
)
from prn_jax.hosts.peers import Peers, split_address
from prn_jax.hosts.roster import LAST, differences
from tests.conftest import REPO

START_SEC = 90.0  # a loaded machine takes long to import JAX twice
SLURM = {
  "SLURM_JOB_ID": "4711",
  "SLURM_STEP_NODELIST": "gpu[07-10]",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
  "SLURM_LOCALID": "0",
}


def pod(
  *arguments: str, processes: int = 2, devices: int = 1, skip: Sequence[int] = (), join_sec: float = START_SEC
) -> Pod:
  environ = dict(os.environ) | {"PYTHONPATH": str(REPO), "PRN_JOIN_TIMEOUT_SEC": str(join_sec)}
  command = [sys.executable, "-m", "tests.hosts.host_program", *arguments]
  return Pod(command, processes=processes, devices=devices, skip=skip, environ=environ, out=io.StringIO())


def output(run: Pod, process: int) -> str:
  return "\n".join(line for line in run.lines if line.startswith(f"[{process}]"))


def ends_within(seconds: float, action: Callable[[Pod], None], process: int = 0) -> tuple[int, str]:
  """Does `action` in the middle of a run; the exit code and output of `process`, which must end in time."""
  with pod("100000", devices=2) as run:
    assert run.wait_for_line(f"[{process}] step 5 ", START_SEC), run.lines
    action(run)
    began = time.monotonic()
    code = run.processes[process].wait(seconds + 20)
    took_sec = time.monotonic() - began
    run.wait(grace_sec=0.0)
    assert took_sec < seconds, (took_sec, run.lines)
    return code, output(run, process)


# --- a run of its own ---


def test_all_processes_sum_up_over_all_devices() -> None:
  with pod("3", devices=2) as run:
    codes = run.wait(timeout_sec=START_SEC)
    assert codes == {0: 0, 1: 0}, run.lines
  for process in (0, 1):
    # Two devices hold 1 + step (process 0), two hold 2 + step (process 1).
    for step, total in enumerate((6, 10, 14)):
      assert f"step {step} sum {total}" in output(run, process)


def test_killed_worker_ends_the_others() -> None:
  code, text = ends_within(10.0, lambda run: run.processes[1].kill(), process=0)
  assert code == HOST_LOST, text
  assert re.search(r"process 1 \(\S+, pid \d+\) is gone, .*: it died or was killed", text), text
  assert "Run the same command again on all hosts: it goes on from the last checkpoint." in text
  assert "flushed" in text


@pytest.mark.slow
def test_killed_coordinator_ends_the_others() -> None:
  code, text = ends_within(10.0, lambda run: run.processes[0].kill(), process=1)
  # JAX may abort the process first; launch.supervise makes 76 of it, see tests/launch.
  assert code in (HOST_LOST, -signal.SIGABRT, 1), text  # 1 of JAX 0.7
  assert "process 0 (the coordinator" in text or "JAX distributed service detected fatal errors" in text, text


@pytest.mark.parametrize("stopped", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_stopped_process_is_named(stopped: int) -> None:
  code, text = ends_within(12.0, lambda run: run.processes[stopped].send_signal(signal.SIGSTOP), process=1 - stopped)
  assert code == HOST_LOST, text
  assert re.search(rf"process {stopped} \(.*\) has said nothing for 3 s", text), text


def test_process_that_lives_but_takes_no_steps() -> None:
  with pod("1000", "stall=1:4") as run:
    codes = run.wait(timeout_sec=START_SEC)
  assert codes == {0: HOST_LOST, 1: HOST_LOST}, run.lines
  text = output(run, 0) + output(run, 1)
  assert "no progress for 4 s while waiting for a step after step 4; last completed step 4." in text, text
  assert "most recent call first" in text
  assert "host_program.py" in text  # the stack shows where


def test_sigterm_to_one_stops_all_at_the_same_step() -> None:
  with pod("100000") as run:
    assert run.wait_for_line("[1] step 5 ", START_SEC), run.lines
    run.processes[1].send_signal(signal.SIGTERM)
    codes = run.wait(timeout_sec=30.0)
  assert codes == {0: PREEMPTED, 1: PREEMPTED}, run.lines
  steps = [line.rpartition(" ")[2] for line in run.lines if "preempted at step" in line]
  assert len(steps) == 2, run.lines
  assert steps[0] == steps[1]


@pytest.mark.parametrize("missing", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_missing_host_is_named(missing: int) -> None:
  began = time.monotonic()
  with pod("3", processes=3 if missing else 2, skip=[missing], join_sec=4.0) as run:
    codes = run.wait(timeout_sec=START_SEC)
  assert set(codes.values()) == {HOST_LOST}, run.lines
  assert time.monotonic() - began < 30.0
  for process in codes:
    if missing:
      assert "process 1 of 3 did not arrive at 127.0.0.1:" in output(run, process), run.lines
      assert "within 4 s. Here: 0 (" in output(run, process)
    else:
      assert "process 0 did not answer at 127.0.0.1:" in output(run, process), run.lines
      assert "Connection refused" in output(run, process)


def test_hosts_that_differ_are_named() -> None:
  with pod("3", "steps=1:2") as run:
    codes = run.wait(timeout_sec=START_SEC)
  assert codes == {0: BAD_INPUT, 1: BAD_INPUT}, run.lines
  assert "the hosts do not agree: steps: process 1 has 2, the other has 3. Give all hosts the same" in output(run, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("bad", BAD_INPUT), ("raise", INTERNAL)])
def test_all_end_with_the_code_of_the_first_that_fails(how: str, code: int) -> None:
  with pod("1000", f"{how}=1:4") as run:
    codes = run.wait(timeout_sec=START_SEC)
  assert codes == {0: code, 1: code}, run.lines
  reason = {"bad": "PrnError: image 'cat.jpg' is no image", "raise": "RuntimeError: the disk is on fire"}[how]
  assert f"ended ({reason}), last completed step 4" in output(run, 0), run.lines
  assert ("Traceback" in output(run, 1)) == (how == "raise")


# --- one process, no other hosts ---


def test_alone_without_an_environment() -> None:
  began = time.monotonic()
  hosts = initialize(environ={})
  assert (hosts.process_index, hosts.process_count, hosts.peers, hosts.is_main) == (0, 1, None, True)
  assert hosts.gather("anything", 7) == [7]
  hosts.check_same({"steps": 3})
  with pytest.raises(RuntimeError, match="passes through"), hosts.guard():
    raise RuntimeError("passes through")
  hosts.close(0)
  assert time.monotonic() - began < 5.0


def test_one_process_of_a_cluster_is_alone() -> None:
  environ = {"PRN_COORDINATOR": "nowhere:1", "PRN_NUM_PROCESSES": "1", "PRN_PROCESS_ID": "0"}
  assert initialize(environ=environ).process_count == 1


@pytest.mark.parametrize("text", ["soon", "0", "-3", ""])
def test_bad_join_timeout(text: str) -> None:
  with pytest.raises(PrnError, match=rf"PRN_JOIN_TIMEOUT_SEC='{text}': expected seconds, more than 0"):
    initialize(environ={"PRN_JOIN_TIMEOUT_SEC": text})


def test_sigterm_on_one_host() -> None:
  before = signal.getsignal(signal.SIGTERM)
  with Preemption(Hosts()) as preemption:
    assert not preemption.requested(0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption.requested(1)
    assert preemption.requested(2)
  assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_while_nothing_is_to_save(capfd: pytest.CaptureFixture[str]) -> None:
  """Reading a large data set takes minutes; the supervisor learns that it may start again."""
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(SystemExit) as stopped, nothing_to_save(Hosts()):
    os.kill(os.getpid(), signal.SIGTERM)
  assert stopped.value.code == PREEMPTED
  assert "before the first step; nothing to save. Run the same command again" in capfd.readouterr().err
  assert signal.getsignal(signal.SIGTERM) is before


def test_second_ctrl_c_interrupts() -> None:
  with Preemption(Hosts()) as preemption:
    signal.raise_signal(signal.SIGINT)
    assert preemption.requested(1)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)


WATCHDOG = """
  import time
  from prn_jax.hosts.exit_codes import before_exit
  from prn_jax.hosts.group import Hosts
  from prn_jax.hosts.watchdog import Watchdog
  before_exit(lambda: print("metrics are safe"))
  before_exit(lambda: 1 / 0)
  with Watchdog(Hosts(), step_sec=0.4, first_step_sec=1.0) as watchdog:
    time.sleep(0.6)
    watchdog.feed(0)
    with watchdog.phase("the evaluation", 5.0):
      time.sleep(0.8)
    print("still here", flush=True)
    BODY
"""


@pytest.mark.parametrize(
  ("body", "message"),
  [
    ("time.sleep(60)", "no progress for 0.4 s while waiting for a step after step 0; last completed step 0."),
    (
      "with watchdog.phase('saving', 0.3): time.sleep(60)",
      "no progress for 0.3 s while waiting for saving; last completed step 0.",
    ),
  ],
)
def test_watchdog_on_one_host(body: str, message: str) -> None:
  code = textwrap.dedent(WATCHDOG).replace("BODY", body)
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, timeout=60, check=False)
  assert done.returncode == HOST_LOST, done
  assert message in done.stderr
  assert "time.sleep" not in done.stdout
  assert done.stdout == "still here\nmetrics are safe\n"
  assert "while ending: ZeroDivisionError" in done.stderr
  assert "most recent call first" in done.stderr
  assert "No other host takes part" in done.stderr
  assert "on all hosts" not in done.stderr


def test_a_thread_of_the_wire_that_fails_ends_the_process(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  def fail(self: Peers) -> None:
    raise KeyError("values")

  ended: list[tuple[int, str]] = []
  monkeypatch.setattr(Peers, "_listen", fail)
  monkeypatch.setattr("prn_jax.hosts.peers.end_process", lambda *what: ended.append(what))
  wire = Peers("127.0.0.1:9", 1, 2, join_timeout_sec=1.0, silence_sec=1.0)
  wire._thread.join(10.0)
  assert ended == [(INTERNAL, "process 1 of 2: the connection to the other processes failed: KeyError: 'values'")]
  assert "Traceback" in capsys.readouterr().err


def test_the_others_wait_for_the_report_of_process_0(monkeypatch: pytest.MonkeyPatch) -> None:
  class Wire:
    """Notes how long it may wait."""

    def __init__(self) -> None:
      self.waits: dict[str, float] = {}

    def gather(self, name: str, value: object, timeout_sec: float) -> list[object]:
      self.waits[name] = timeout_sec
      return [value]

    def close(self) -> None:
      pass

  monkeypatch.setattr("jax.distributed.shutdown", lambda: None)
  wire = Wire()
  settings = HostSettings(start_timeout_sec=10.0, pause_timeout_sec=500.0)
  hosts = Hosts(1, 2, wire, settings)  # type: ignore[arg-type]
  hosts.gather("something", 1)
  hosts.close(0)
  assert wire.waits == {"something": 10.0, LAST: 510.0}


# --- the environment ---


def test_own_variables_win() -> None:
  environ = {
    "PRN_COORDINATOR": "node-0:8476", "PRN_NUM_PROCESSES": "4", "PRN_PROCESS_ID": "3",
    "JAX_COORDINATOR_ADDRESS": "other:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0",
  }  # fmt: skip
  assert find_cluster("auto", environ, 5.0) == Cluster("node-0:8476", 4, 3)
  assert find_cluster("off", environ, 5.0) is None
  jax_only = {key: value for key, value in environ.items() if key.startswith("JAX")}
  assert find_cluster("auto", jax_only, 5.0) == Cluster("other:1", 2, 0)


@pytest.mark.parametrize(
  ("environ", "message"),
  [
    (
      {"PRN_COORDINATOR": "node-0:1"},
      "PRN_COORDINATOR=node-0:1, PRN_NUM_PROCESSES is not set, PRN_PROCESS_ID is not set: set all three, or none",
    ),
    (
      {"PRN_COORDINATOR": "node-0:1", "PRN_NUM_PROCESSES": "2", "PRN_PROCESS_ID": "2"},
      "PRN_PROCESS_ID=2: expected a number of processes, and for each process its own number from 0",
    ),
    (
      {"PRN_COORDINATOR": "node-0:1", "PRN_NUM_PROCESSES": "two", "PRN_PROCESS_ID": "0"},
      "PRN_NUM_PROCESSES=two, PRN_PROCESS_ID=0: expected a number",
    ),
    ({"JAX_COORDINATOR_ADDRESS": "node-0:1"}, "JAX_COORDINATOR_ADDRESS=node-0:1 is set, but nothing says how many"),
  ],
)
def test_incomplete_environment(environ: dict[str, str], message: str) -> None:
  with pytest.raises(PrnError) as caught:
    find_cluster("auto", environ, 5.0)
  assert message in str(caught.value)


def test_slurm_step(monkeypatch: pytest.MonkeyPatch) -> None:
  for name, value in (SLURM | {"SLURM_STEP_NUM_NODES": "4"}).items():
    monkeypatch.setenv(name, value)
  port = 4711 % 4096 + 61440  # as JAX chooses it
  # One task a node: all GPUs of the node, not the one with the task's local number.
  assert find_cluster("auto", os.environ, 5.0) == Cluster(f"gpu07:{port}", 4, 2, None)
  monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")  # four tasks on one node: a GPU each
  assert find_cluster("slurm", os.environ, 5.0) == Cluster(f"gpu07:{port}", 4, 2, [0])


def test_slurm_without_srun_says_so(capsys: pytest.CaptureFixture[str]) -> None:
  assert find_cluster("auto", {"SLURM_NTASKS": "4"}, 5.0) is None
  assert (
    "SLURM_NTASKS=4, but this process was not started by srun; training on this host alone" in capsys.readouterr().err
  )


def test_detection_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr("prn_jax.hosts.cluster._ask_jax", lambda *_: time.sleep(3.0))
  with pytest.raises(PrnError, match=r"cannot find out which processes.*no answer within 0.2 s.*PRN_COORDINATOR"):
    find_cluster("auto", {}, 0.2)


@pytest.mark.parametrize("address", ["node-0", "node-0:", ":1234", "node-0:0", "node-0:70000", "node-0:http"])
def test_bad_coordinator_address(address: str) -> None:
  with pytest.raises(PrnError, match="expected HOST:PORT with a port from 1 to 65535"):
    split_address(address)


def test_coordinator_address() -> None:
  assert split_address("node-0:8476") == ("node-0", 8476)
  assert split_address("[fe80::1]:8476") == ("fe80::1", 8476)


# --- small parts ---


def test_differences_name_who_is_odd() -> None:
  same = {"code": "abc", "steps": 100}
  assert differences([same, same, same]) == []
  assert differences([same, same, {"code": "abc", "steps": 90}, same]) == [
    "steps: process 2 has 90, the 3 others have 100"
  ]
  assert differences([{"code": "abc"}, same]) == ["steps: process 1 has 100, the other has None"]
  assert differences([{"n": 0}, *[{"n": 1}] * 2, *[{"n": i} for i in range(2, 12)]])[0].endswith(
    "process 9 has 8 and 3 more, the 2 others have 1"
  )


def test_exit_codes_of_errors() -> None:
  class Divergence(Exception):
    exit_code = 1

  cases = [(PrnError("x"), 2), (ValueError("x"), 3), (SystemExit(5), 5), (SystemExit(), 0), (SystemExit("no"), 3)]
  assert [exit_codes.exit_code_of(error) for error, _ in cases] == [code for _, code in cases]
  assert exit_codes.exit_code_of(KeyboardInterrupt()) == 130
  assert exit_codes.exit_code_of(Divergence()) == 1


def test_code_fingerprint_is_stable() -> None:
  assert code_fingerprint() == code_fingerprint()
  assert len(code_fingerprint()) == 16


def test_missing_host_is_named_within_a_minute_by_default() -> None:
  assert HostSettings().join_timeout_sec < 60


def test_texts_of_several_processes_have_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
  texts = ["", "ä" * 2_000_000, "b"]
  lengths = np.array([len(text.encode()) for text in texts], np.int32)
  seen: list[Any] = []

  def allgather(value: np.ndarray) -> np.ndarray:
    seen.append(value)
    if value.ndim == 0:
      return lengths
    return np.stack([np.frombuffer(text.encode().ljust(lengths.max(), b"\0"), np.uint8) for text in texts])

  monkeypatch.setattr(jax, "process_count", lambda: 3)
  monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", allgather)
  assert gather_text("b") == texts
  assert (int(seen[0]), seen[1].shape, bytes(seen[1][:2])) == (1, (lengths.max(),), b"b\0")
