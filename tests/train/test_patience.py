"""A run that gets no better ends early, and stays at its end when it is started again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from prn_jax.formats import darknet_cfg
from prn_jax.train import evaluation
from prn_jax.train.config import DataConfig, Duration, EvalConfig, TrainConfig
from prn_jax.train.experiment import open_experiment
from prn_jax.train.log import evaluations, read_metrics
from prn_jax.train.loop import train
from prn_jax.train.outcome import Outcome, Reason
from tests.nets import smooth_detector

pytestmark = pytest.mark.usefixtures("blank_pictures")

FIGURES = {2: 0.1, 4: 0.3, 6: 0.3, 8: 0.2, 10: 0.9}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
  """Trains with evaluations that give `FIGURES`."""
  cfg = tmp_path / "smooth.cfg"
  cfg.write_text(darknet_cfg.dump(smooth_detector()))
  step = [0]
  original = evaluation.Validation.__call__

  def figures(self: evaluation.Validation, *args: Any) -> evaluation.Figures:
    found = original(self, *args)
    return dataclasses.replace(found, values=found.values | {"AP50": FIGURES[step[0]]})

  monkeypatch.setattr(evaluation.Validation, "__call__", figures)

  def go(patience: int, stop_after: int | None = None) -> Outcome:
    config = TrainConfig(
      model=str(cfg), batch_size=8, bn_momentum=0.9, total=Duration(steps=10), checkpoint_every=Duration(steps=2),
      data=DataConfig(train="synthetic:traffic:8", valid="synthetic:traffic:2@valid", cache_mb=50),
      eval=EvalConfig(every=Duration(steps=2), patience=patience, num_pictures=0),
    )  # fmt: skip
    with monkeypatch.context() as patch:
      from prn_jax.train import loop

      before = loop._Run._evaluate

      def at(self: Any, done: int) -> bool:
        step[0] = done
        return before(self, done)

      patch.setattr(loop._Run, "_evaluate", at)
      if stop_after is not None:
        patch.setattr("prn_jax.hosts.group.Preemption.requested", lambda self, done: done >= stop_after)
      return train(open_experiment(config), tmp_path / "run")

  return go


@pytest.mark.slow
def test_it_ends_after_evaluations_without_a_better_figure(
  run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  """In one go, or interrupted between the two evaluations that decide: the same end."""
  assert run(2, stop_after=7).reason is Reason.PREEMPTED
  outcome = run(2)
  assert (outcome.reason, outcome.step, outcome.best) == (Reason.DONE, 8, (4, 0.3))
  said = (
    "no better AP50 in 2 evaluations (best 0.3000 at step 4): the run ends after 8 of 10 steps (config.eval.patience)"
  )
  assert said in capsys.readouterr().err
  assert evaluations(tmp_path / "run", "AP50", 10) == [(2, 0.1), (4, 0.3), (6, 0.3), (8, 0.2)]
  rows = read_metrics(tmp_path / "run")
  again = run(2)
  assert (again.step, again.digest) == (8, outcome.digest), "it has ended, also at another start"
  assert read_metrics(tmp_path / "run") == rows
  assert {path.name for path in (tmp_path / "run").iterdir()} >= {"best.weights", "train_samples.jpg", "curves.png"}
  longer = run(0)
  assert (longer.step, longer.best) == (10, (10, 0.9)), "without patience it goes on from there"
