"""Metrics that are added up while steps run."""

from __future__ import annotations

import numpy as np
import pytest

from prn_jax.train.step_metrics import CHECK_STEPS, Totals


def metrics(loss: float, grad_norm: float = 1.0, iou: tuple[float, float] = (0.0, 0.0)) -> dict[str, np.ndarray]:
  return {
    "loss": np.array([loss, 1], np.float32), "grad_norm": np.array([grad_norm, 1], np.float32),
    "iou": np.array(iou, np.float32),
  }  # fmt: skip


def test_means_are_over_all_steps_since_the_last_line() -> None:
  totals = Totals()
  assert not totals
  totals.add(metrics(1.0, iou=(2.0, 4.0)))
  totals.add(metrics(2.0, iou=(0.0, 0.0)))
  assert totals
  assert totals.take() == {"loss": 1.5, "grad_norm": 1.0, "iou": 0.5}
  assert not totals
  totals.add(metrics(5.0))
  assert totals.take()["loss"] == 5.0


class Running:
  """A value of a step that is not finished: to read it would be to wait."""

  def __array__(self, *_: object, **__: object) -> np.ndarray:
    raise AssertionError("it was read")


def test_what_runs_is_not_read_and_what_is_finished_does_not_pile_up() -> None:
  totals = Totals()
  for step in range(3 * CHECK_STEPS):
    totals.add(metrics(float(step)))
    assert totals.add_up(num_running=2)
    assert len(totals._waiting) < CHECK_STEPS + 2
  totals._waiting[-2:] = [{"loss": Running()}, {"loss": Running()}]  # type: ignore[dict-item]
  for _ in range(CHECK_STEPS):
    totals._waiting.insert(0, metrics(0.0))
  assert totals.add_up(num_running=2)
  assert len(totals._waiting) == 2


@pytest.mark.parametrize("bad", [metrics(np.nan), metrics(-np.inf), metrics(1.0, np.inf), metrics(np.inf)])
def test_one_bad_step_is_noticed(bad: dict[str, np.ndarray]) -> None:
  totals = Totals()
  seen = []
  for step in range(2 * CHECK_STEPS):
    totals.add(bad if step == 3 else metrics(1e38))
    seen.append(totals.add_up(num_running=0))
  assert seen.index(False) == CHECK_STEPS - 1, "large is not infinite, until the bad step is added up"
