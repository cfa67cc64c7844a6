"""Every reader on a few damaged inputs; `python -m tests.fuzz` goes on without a bound."""

from __future__ import annotations

import logging

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz

INPUTS, SECONDS = 150, 3.0


@pytest.mark.parametrize("name", READERS)
def test_no_foreign_exception(name: str, caplog: pytest.LogCaptureFixture) -> None:
  caplog.set_level(logging.ERROR)
  figures = fuzz(name, INPUTS, seed=1, seconds=SECONDS)
  assert figures.inputs
  assert not figures.foreign, str(figures)
  assert figures.refused or name in ("metrics",), "nothing was refused: the inputs do not reach the reader"
