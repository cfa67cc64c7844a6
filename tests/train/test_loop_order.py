"""The order of a training: what follows an update, and what an evaluation decides."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest

from prn_jax.hosts.group import Hosts
from prn_jax.hosts.watchdog import Watchdog
from prn_jax.train import loop
from prn_jax.train.log import Stopwatch
from prn_jax.train.pauses import Pauses
from prn_jax.train.ratings import Ratings


class Recorder:
  """Stands for everything that the loop calls, and notes the calls in their order."""

  def __init__(self, monkeypatch: pytest.MonkeyPatch, total_steps: int, **answers: Any) -> None:
    self.calls: list[str] = []
    run = loop._Run.__new__(loop._Run)
    run.start_step = 0
    run.experiment = SimpleNamespace(  # type: ignore[assignment]
      total_steps=total_steps, log_steps=2, eval_steps=4, checkpoint_steps=3, evaluator=object()
    )
    run.watchdog = SimpleNamespace(feed=lambda step: self.calls.append(f"feed {step}"))  # type: ignore[assignment]
    run.totals = SimpleNamespace(add_up=lambda num_running: answers.get("is_finite", True))  # type: ignore[assignment]
    run.preemption = SimpleNamespace(requested=self.asked(answers.get("stop_at", math.inf)))  # type: ignore[assignment]
    run.ratings = SimpleNamespace(is_over=False)  # type: ignore[assignment]
    monkeypatch.setattr(run, "_timed", lambda batches: batches)
    monkeypatch.setattr(run, "_step", lambda step, batch: self.calls.append(f"step {step}"))
    for name in ("check_finite", "log", "save", "rate"):
      monkeypatch.setattr(
        run, f"_{name}", lambda *done, name=name: self.calls.append(" ".join([name, *map(str, done)]))
      )
    monkeypatch.setattr(run, "_evaluate", self.evaluated(answers.get("is_evaluated", True)))
    self.run = run

  def asked(self, stop_at: float) -> Any:
    return lambda done: self.calls.append(f"ask {done}") or done >= stop_at

  def evaluated(self, answer: bool) -> Any:
    return lambda done: self.calls.append(f"evaluate {done}") or answer

  def train(self) -> tuple[int, bool]:
    return self.run._train(iter([(step, None) for step in range(self.run.experiment.total_steps)]))


def test_the_order_of_what_follows_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
  recorder = Recorder(monkeypatch, 5)
  assert recorder.train() == (5, False)
  assert recorder.calls == [
    "step 0", "ask 1",
    "step 1", "log 2", "ask 2",
    "step 2", "feed 0", "save 3", "ask 3",
    "step 3", "feed 1", "log 4", "save 4", "ask 4", "evaluate 4", "rate 4",
    "step 4", "feed 2", "log 5", "save 5", "evaluate 5", "rate 5",
  ]  # fmt: skip


def test_a_step_that_is_not_finite_is_noticed_before_anything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
  recorder = Recorder(monkeypatch, 3, is_finite=False)
  recorder.train()
  assert recorder.calls[5:] == ["step 2", "feed 0", "check_finite", "log 3", "save 3", "evaluate 3", "rate 3"]


@pytest.mark.parametrize(
  ("answers", "done", "last"),
  [
    ({"stop_at": 4}, 4, ["log 4", "save 4", "ask 4"]),  # saved, and not evaluated
    ({"is_evaluated": False}, 4, ["save 4", "ask 4", "evaluate 4"]),  # asked to stop in an evaluation: no rating
  ],
)
def test_a_run_that_is_asked_to_stop(
  monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], done: int, last: list[str]
) -> None:
  recorder = Recorder(monkeypatch, 9, **answers)
  assert recorder.train() == (done, True)
  assert recorder.calls[-3:] == last


def test_ratings() -> None:
  ratings = Ratings("AP50", 2, None)
  for step, figure in [(2, 0.1), (4, 0.3), (6, math.nan), (6, 0.3)]:
    ratings.add(step, figure)
    assert not ratings.is_over
  assert ratings.best == (4, 0.3), "an equal figure is not better"
  ratings.add(8, 0.2)
  assert ratings.is_over
  assert ratings.why_over(8, 10) == (
    "no better AP50 in 2 evaluations (best 0.3000 at step 4): the run ends after 8 of 10 steps (config.eval.patience)"
  )
  again = Ratings("AP50", 2, (4, 0.3))
  again.take_up([(2, 0.1), (4, 0.3), (6, None)])
  assert not again.is_over
  again.add(8, 0.29)
  assert again.is_over
  assert not Ratings("", 0, None).is_over


def test_a_pause_is_no_training_time_however_deep(monkeypatch: pytest.MonkeyPatch) -> None:
  ticks = itertools.count(0.0, 1.0)
  monkeypatch.setattr("time.perf_counter", lambda: next(ticks))  # every look at the clock is a second
  hosts = Hosts()
  watch = Stopwatch(batch_size=8, start_step=0, total_steps=10)  # 0
  pauses = Pauses(hosts, Watchdog(hosts), watch, 60.0)
  with pauses.pause("a save"):  # 1
    pauses.meet("the others")  # 2, 3
  assert watch.lap(2)["images_per_sec"] == 2 * 8 / (5 - 3)  # 4 ends the pause of 3 s, 5 is now
