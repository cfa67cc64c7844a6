"""What tests of trainings share."""

from __future__ import annotations

import pytest

from tests.train.blank import empty


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
  """Runs in this process draw none of their curves, which would take as long as the training of a small network."""
  for module in ("detect.metrics.plots", "train.curves", "run.classification_report"):
    monkeypatch.setattr(f"prn_jax.{module}.save_png", empty)
