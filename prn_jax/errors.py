"""Every error that a user can cause. The text says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrnError(ValueError):
  """Bad input from the user; the command line prints its text and exits with status 2."""


class GraphError(PrnError):
  """A network that cannot exist: a wrong link, shape or field."""


class CfgError(PrnError):
  """A Darknet cfg file that cannot be read."""


class OutOfScopeError(PrnError):
  """Valid Darknet, but deliberately not supported (recurrent, XNOR, YOLOv1)."""


class WeightsError(PrnError):
  """A weights file that does not belong to its network, or is damaged."""


class CheckpointError(PrnError):
  """A saved model that is incomplete, damaged, or of another network."""


class ModelNotFoundError(PrnError):
  """No registered model, file or directory has this name."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
  """Returns " (did you mean 'x'?)" for the nearest known word, or "" if nothing is near."""
  near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
  return f" (did you mean '{near[0]}'?)" if near else ""
