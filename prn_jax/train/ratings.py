"""What the evaluations of a run gave: which checkpoint is the best, and whether to go on."""

from __future__ import annotations

import math
from collections.abc import Iterable


class Ratings:
  """The rated figure of every evaluation of a run so far.

  Args:
    name: the figure that rates a checkpoint, as "AP50"; "" without evaluations.
    patience: so many evaluations in a row without a better one end the run (`eval.patience`); 0 never does.
    best: (step, figure) of the best checkpoint of earlier parts of the run.
  """

  def __init__(self, name: str, patience: int, best: tuple[int, float] | None) -> None:
    self.name, self.best, self._patience = name, best, patience
    self._history: list[tuple[int, float]] = []

  def take_up(self, history: Iterable[tuple[int, float | None]]) -> None:
    """The evaluations of earlier parts of the run, (step, figure); None where the figure was not defined."""
    self._history = [(step, -math.inf if figure is None else figure) for step, figure in history]

  def add(self, step: int, figure: float) -> None:
    """An evaluation, in place of an earlier one of the same step; NaN where the figure is not defined."""
    is_defined = math.isfinite(figure)
    self._history = [one for one in self._history if one[0] != step]
    self._history.append((step, figure if is_defined else -math.inf))
    if is_defined and (self.best is None or figure > self.best[1]):
      self.best = (step, figure)

  @property
  def is_over(self) -> bool:
    """Whether so many evaluations in a row were no better than one before that the run ends."""
    if not self._patience or len(self._history) <= self._patience:
      return False
    figures = [figure for _, figure in self._history]
    return max(figures[-self._patience :]) <= max(figures[: -self._patience])

  def why_over(self, step: int, total_steps: int) -> str:
    """What to say when `is_over` ends a run before its last step."""
    best_step, figure = max(self._history, key=lambda one: (one[1], -one[0]))
    return (
      f"no better {self.name} in {self._patience} evaluations (best {figure:.4f} at step {best_step:,}): the run ends "
      f"after {step:,} of {total_steps:,} steps (config.eval.patience)"
    )
