"""Every error that a user can cause. The text says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from typing import Any

BAD_INPUT, RUN_AGAIN = 2, 76  # exit codes, see prn_jax.hosts.exit_codes

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
  """Text that every terminal and file takes: half characters and control characters are escaped, lines are kept."""
  return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class PrnError(ValueError):
  """Bad input from the user; the command line prints its text and exits with status 2.

  The text can be printed whatever names and values it quotes.
  """

  def __str__(self) -> str:
    return printable(super().__str__())


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


class BucketError(PrnError):
  """A bucket that cannot be used: no right, no such bucket, no credentials, or out of reach.

  It never means that something is missing or damaged: who catches other errors of a file must let this one through.

  Attributes:
    is_transient: the same request may succeed later; `prn train` then ends with the exit code that means "run again".
  """

  def __init__(self, text: str, *, is_transient: bool) -> None:
    super().__init__(text)
    self.is_transient = is_transient
    self.exit_code = RUN_AGAIN if is_transient else BAD_INPUT

  def __reduce__(self) -> Any:
    return functools.partial(BucketError, is_transient=self.is_transient), (str(self),)


class ModelNotFoundError(PrnError):
  """No registered model, file or directory has this name."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
  """Returns " (did you mean 'x'?)" for the nearest known word, or "" if nothing is near."""
  near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
  return f" (did you mean '{near[0]}'?)" if near else ""
