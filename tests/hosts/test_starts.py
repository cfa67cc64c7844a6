"""Starts that fail again and again, without the processes around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prn_jax.errors import PrnError
from prn_jax.hosts import exit_codes, starts
from prn_jax.hosts.exit_codes import DIVERGED, HOST_LOST, NO_START
from prn_jax.hosts.group import Hosts
from prn_jax.hosts.starts import FILE, Starts

GONE = "process 0: another host is gone: process 1 (node-1, pid {}) did not come within {} s"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(exit_codes, "_judges", [])
  monkeypatch.setattr(exit_codes, "_callbacks", [])


def end(code: int, message: str) -> tuple[int, str]:
  """What `end_process` would end with; the process of this start is over then."""
  for judge in exit_codes._judges:
    code, message = judge(code, message)
  for callback in exit_codes._callbacks:
    callback()
  exit_codes._judges.clear()
  exit_codes._callbacks.clear()
  return code, message


def fail(folder: Path, message: str, code: int = HOST_LOST, step: int = 4) -> tuple[int, str]:
  Starts(folder, Hosts(), step)
  return end(code, message)


def test_the_third_alike_is_the_last(tmp_path: Path) -> None:
  assert fail(tmp_path, GONE.format(10, 30)) == (HOST_LOST, GONE.format(10, 30))
  assert json.loads((tmp_path / FILE).read_text()) == {"step": 4, "reasons": [GONE.format(10, 30)]}
  assert fail(tmp_path, GONE.format(11, 30.1))[0] == HOST_LOST
  code, message = fail(tmp_path, GONE.format(12, 30))
  assert code == NO_START
  assert message == (
    f"{GONE.format(12, 30)}\nprn: this was start number 3 in a row after step 4 that ended before its first step; the ones "
    f"before it: {GONE.format(11, 30.1)}. Another one would end so too: none is asked for. If it is only slow, raise the "
    "limit that the message names (config.hosts.*); otherwise repair what it names. The next start counts from one."
  )
  assert not (tmp_path / FILE).exists()
  assert fail(tmp_path, GONE.format(13, 30))[0] == HOST_LOST


def test_only_what_is_alike_and_in_a_row_counts(tmp_path: Path) -> None:
  other = "no progress for 9 s while waiting for the first step"
  for message in (GONE.format(1, 1), other, GONE.format(2, 1), other):
    assert fail(tmp_path, message)[0] == HOST_LOST
  fail(tmp_path, other)
  assert fail(tmp_path, other, step=8)[0] == HOST_LOST, "another checkpoint was reached"
  fail(tmp_path, other, step=8)
  (tmp_path / FILE).write_text("{")
  assert fail(tmp_path, other, step=8)[0] == HOST_LOST


@pytest.mark.parametrize("how", ["a step", "an end", "bad input", "another code"])
def test_what_forgets_earlier_starts(tmp_path: Path, how: str) -> None:
  fail(tmp_path, GONE.format(1, 1))
  fail(tmp_path, GONE.format(2, 1))
  if how == "another code":
    assert fail(tmp_path, "loss is not finite", DIVERGED) == (DIVERGED, "loss is not finite")
  elif how == "bad input":
    with pytest.raises(PrnError, match="no image"), Starts(tmp_path, Hosts(), 4):
      raise PrnError("no image")
  else:
    with Starts(tmp_path, Hosts(), 4) as starts:
      if how == "a step":
        starts.succeeded()
        assert end(HOST_LOST, GONE.format(3, 1))[0] == HOST_LOST
  assert not (tmp_path / FILE).exists()


def test_a_killed_start_does_not_count(tmp_path: Path) -> None:
  """A kill leaves no word; a machine that is taken away may be so many times."""
  for _ in range(5):
    Starts(tmp_path, Hosts(), 4)
    exit_codes._judges.clear()
  assert not (tmp_path / FILE).exists()


def test_whose_time_out_speaks_first_makes_no_difference() -> None:
  told = (
    "process 0 of 2: no progress for 10 s while waiting for the first step at 64x64; no step completed yet",
    "process 0 of 2: process 1 (vm, pid 7) ended (no progress for 10 s while waiting for the first step at 64x64)",
    "process 1 (vm, pid 7), it has not told of a completed step: did not come to 'step' within 10 s of the first",
  )
  assert len({starts._kind(message) for message in told}) == 1
  assert starts._kind(told[0]) != starts._kind(GONE.format(7, 20))
