"""A trace of some steps, whatever part of them a process sees."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from prn_jax.train.profile import Tracer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
  """What the profiler was told; it fails as the real one does."""
  found: list[str] = []

  def stop() -> None:
    if found[-1:] != ["start"]:
      raise RuntimeError("No profile started")
    found.append("stop")

  monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: found.append("start"))
  monkeypatch.setattr(jax.profiler, "stop_trace", stop)
  return found


def steps(tracer: Tracer, first: int, end: int, calls: list[str]) -> list[int]:
  """Steps that were traced."""
  traced = []
  with tracer:
    for step in range(first, end):
      tracer.before(step)
      if calls[-1:] == ["start"]:
        traced.append(step)
      tracer.after(step, None)
  return traced


@pytest.mark.parametrize(
  ("first", "end", "traced"),
  [(0, 20, [5, 6, 7]), (6, 20, [6, 7]), (8, 20, []), (0, 7, [5, 6]), (0, 5, []), (6, 7, [6])],
)
def test_the_steps_of_the_window_that_are_done(
  first: int, end: int, traced: list[int], tmp_path: Path, calls: list[str]
) -> None:
  tracer = Tracer(tmp_path / "profile", (5, 7))
  assert steps(tracer, first, end, calls) == traced
  assert calls == (["start", "stop"] if traced else [])


def test_an_error_ends_the_trace(tmp_path: Path, calls: list[str]) -> None:
  def fail() -> None:
    with Tracer(tmp_path, (0, 3)) as tracer:
      tracer.before(0)
      raise ValueError("bad image")

  with pytest.raises(ValueError, match="bad image"):
    fail()
  assert calls == ["start", "stop"]


def test_no_trace_where_one_was_asked_for_is_told(tmp_path: Path, calls: list[str]) -> None:
  tracer = Tracer(tmp_path / "profile", (5, 10))
  assert steps(tracer, 0, 4, calls) == []
  assert "no profile was written: config.profile_steps=(5, 10)" in tracer.problem()
  (tmp_path / "profile").mkdir()
  assert not tracer.problem()
  assert not Tracer(tmp_path / "none", ()).problem()
