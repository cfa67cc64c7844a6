"""What a run came to, and why it ended."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
  """Why a run ended."""

  DONE = "done"
  PREEMPTED = "preempted"


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a run came to.

  Attributes:
    reason: see `Reason`.
    step: updates done.
    values: figures of the last evaluation, NaN where one is not defined.
    best: (step, figure) of the best checkpoint, if anything was evaluated.
    seconds: duration of this part of the run.
    digest: sha256 of the parameters.
  """

  reason: Reason
  step: int
  values: dict[str, float]
  best: tuple[int, float] | None
  seconds: float
  digest: str

  def to_json(self) -> dict[str, Any]:
    """The last line of `prn train --json`."""
    return {
      "reason": str(self.reason),
      "step": self.step,
      "metrics": self.values,
      "best": None if self.best is None else {"step": self.best[0], "metric": self.best[1]},
      "seconds": self.seconds,
      "params_sha256": self.digest,
    }
