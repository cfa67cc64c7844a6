"""The limits of the watchdog, with a clock of its own: they follow the speed of the run."""

from __future__ import annotations

import pytest

from prn_jax.hosts import watchdog
from prn_jax.hosts.group import Hosts
from prn_jax.hosts.watchdog import Watchdog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
  now = [1000.0]
  monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
  return now


def limit_sec(dog: Watchdog) -> float:
  """How long the watchdog would still wait, at the time of its last news."""
  what, _, seconds = dog._phases[-1] if dog._phases else dog._waiting
  assert what
  return seconds


def test_slow_steps_get_longer(clock: list[float]) -> None:
  dog = Watchdog(Hosts(), step_sec=300.0, first_step_sec=3600.0)
  assert limit_sec(dog) == 3600.0
  with dog.phase("the first step", 3600.0, is_first_step=True):
    clock[0] += 700.0
  for step in range(6):
    dog.feed(step)
    # Nothing is usual yet: twice the first step with its compilation. Then 20 times the usual one.
    assert limit_sec(dog) == (1400.0 if step < 5 else 20 * 400.0)
    clock[0] += 400.0


def test_fast_steps_keep_the_setting(clock: list[float]) -> None:
  dog = Watchdog(Hosts(), step_sec=300.0, first_step_sec=3600.0)
  for step in range(10):
    dog.feed(step)
    clock[0] += 0.5
    with dog.phase("evaluation", 3600.0):
      clock[0] += 1000.0  # says nothing about a step
    clock[0] += 0.5
  assert limit_sec(dog) == 300.0


def test_a_phase_in_parts_has_its_limit_for_each(clock: list[float]) -> None:
  dog = Watchdog(Hosts(), step_sec=300.0)
  with dog.phase("the end", 100.0):
    clock[0] += 90.0
    with dog.phase("evaluation", 50.0) as renew:
      for _ in range(4):
        clock[0] += 40.0
        renew()
        assert dog._phases[-1][1] == clock[0] + 50.0
    assert dog._phases[-1] == ("the end", clock[0] + 100.0, 100.0)
  assert not dog._phases


def test_time_in_which_the_process_was_stopped_does_not_count(
  clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
  """Looks come every second; one comes an hour late. The limit of 300 s is over after 300 s of running."""
  dog = Watchdog(Hosts(), step_sec=300.0, first_step_sec=300.0)
  barks: list[float] = []

  def wait(interval_sec: float) -> bool:
    clock[0] += interval_sec if clock[0] != 1010.0 else 3600.0 + interval_sec
    return bool(barks)

  monkeypatch.setattr(dog._stop, "wait", wait)
  monkeypatch.setattr(dog, "_bark", lambda what, limit_sec: barks.append(clock[0]))
  dog._run()
  assert barks == [1000.0 + 3600.0 + 301.0]
