"""Runs a reader on mutated inputs and counts how each ended."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prn_jax.errors import PrnError
from tests.fuzz import labels  # noqa: F401  (registers its readers)
from tests.fuzz.readers import READERS
from tests.timing import least_seconds

MAX_SECONDS = 2.0
MAX_MESSAGE = 20_000  # beyond ten times the input; names of 5,000 characters occur in messages


@dataclasses.dataclass
class Figures:
  """How the inputs of one reader ended.

  Attributes:
    reader: its name.
    inputs, refused, accepted, foreign: numbers of inputs.
    slowest: seconds of the processor that one input took at most.
    faults: place -> (number of inputs, text) of foreign exceptions, bad messages and inputs that took too long.
  """

  reader: str
  inputs: int = 0
  refused: int = 0
  accepted: int = 0
  foreign: int = 0
  slowest: float = 0.0
  faults: dict[str, str] = dataclasses.field(default_factory=dict)
  places: Counter[str] = dataclasses.field(default_factory=Counter)

  def fault(self, place: str, text: str) -> None:
    self.foreign += 1
    self.places[place] += 1
    self.faults.setdefault(place, text)

  def __str__(self) -> str:
    line = (
      f"{self.reader:20} inputs {self.inputs:>9,}  refused {self.refused:>9,}  accepted {self.accepted:>9,}  "
      f"foreign {self.foreign:>6,}  slowest {self.slowest:.3f} s"
    )
    return "\n".join([line, *(f"  {number} x {self.faults[place]}" for place, number in self.places.most_common())])


def fuzz(name: str, inputs: int, seed: int = 0, seconds: float = float("inf")) -> Figures:
  """Figures of one reader.

  Args:
    name: of `READERS`.
    inputs: how many; fewer where the time is over first.
    seed: other inputs for another seed.
    seconds: time limit.
  """
  reader, rng, figures = READERS[name], random.Random(f"{name} {seed}"), Figures(name)
  with tempfile.TemporaryDirectory(prefix="prn_fuzz_") as place, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    folder = Path(place, "a", "b", "c")  # so that "../.." stays inside
    folder.mkdir(parents=True)
    read, seeds = reader.prepare(folder)
    for content in seeds:
      read(content)  # a seed that is refused is a mistake of ours
    end = time.monotonic() + seconds
    while figures.inputs < inputs and time.monotonic() < end:
      content = rng.choice(reader.mutators)(rng.choice(seeds), seeds, rng)
      _one(read, content, figures)
  return figures


def _quietly(read: Callable[[bytes], object], content: bytes) -> None:
  with contextlib.suppress(Exception):
    read(content)


def _one(read: Callable[[bytes], object], content: bytes, figures: Figures) -> None:
  start = time.process_time()
  try:
    read(content)
    figures.accepted += 1
  except PrnError as error:
    figures.refused += 1
    text = str(error)
    if (
      len(text) > MAX_MESSAGE + 10 * len(content)
      or not text.strip()
      or any("\ud800" <= c <= "\udfff" or c in "\0\x1b\x07" for c in text)
    ):
      figures.fault("message", f"a message of {len(text)} characters: {text[:200]!r} from {content[:200]!r}")
  except Exception as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [
      f for f in traceback.extract_tb(error.__traceback__) if "prn_jax" in f.filename or "data_pipelines" in f.filename
    ]
    at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else f"{frame.filename}:{frame.lineno}"
    figures.fault(
      f"{at} {type(error).__name__}", f"{at}: {type(error).__name__}: {str(error)[:200]!r} from {content[:300]!r}"
    )
  took = time.process_time() - start
  if took > MAX_SECONDS:  # of other work, or of this file?
    took = min(took, least_seconds(lambda: _quietly(read, content), MAX_SECONDS))
  figures.inputs += 1
  figures.slowest = max(figures.slowest, took)
  if took > MAX_SECONDS:
    figures.fault("slow", f"an input took {took:.1f} s: {content[:300]!r}")
