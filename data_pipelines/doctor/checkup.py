"""The registry of checks behind `prn data doctor`, and one examination of a data set by all of them.

A check is a function of an `Exam` that yields a `Spot` for everything it finds:

    @register_check("images.one_colour", Severity.LOOK, "pictures of one colour", "Look whether they were decoded right.")
    def one_colour(exam: Exam) -> Iterator[Spot]:
      ...

What the sources report while they read is part of the result under the ids of `findings.Check`.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.alike import Pair, copies_between, copies_within, scenes_within
from prn_jax.data_pipelines.doctor.split import Split
from prn_jax.data_pipelines.findings import Check
from prn_jax.errors import printable

DEFAULT_MAX_BOXES = 100  # of a training's configuration


class Severity(StrEnum):
  """How bad a finding is; SERIOUS makes `prn data doctor` end with exit code 1."""

  SERIOUS = "serious"  # figures become wrong, or a part of the data is lost
  LOOK = "worth a look"  # often a mistake, sometimes meant
  NOTE = "note"  # right, but good to know


class Needs(StrEnum):
  """What a check looks at beside annotations; the value is why it was not run where this is missing."""

  ANNOTATIONS = "nothing more"
  BOXES = "the data are for classification"
  PIXELS = "pixels were not looked at (--quick)"
  NETWORK = "no network was given (--model or --size)"
  HEADS = "no network with detection heads was given (--model)"
  AGAINST = "no other split was given (--against)"
  AGAINST_PIXELS = "no other split was given (--against), or pixels were not looked at (--quick)"


@dataclass(frozen=True)
class Spot:
  """One thing that a check found.

  Attributes:
    text: what is wrong there, with its values.
    image: position of the image in the split that is examined; None where it is about the data as a whole.
    box: position of the box among all boxes of the split.
    place: where it stands, if the image and the box do not say so.
    partner: number of another split and position in it (or 0, the examined one) of the image it is compared with.
  """

  text: str
  image: int | None = None
  box: int | None = None
  place: str | None = None
  partner: tuple[int, int] | None = None


Find = Callable[["Exam"], Iterable[Spot]]


@dataclass(frozen=True)
class DoctorCheck:
  """One thing that is looked for.

  Attributes:
    id: "PLACE.FAULT"; for programs, and stays.
    severity: how bad it is.
    meaning: what was found, without its values.
    fix: what to do about it.
    needs: without this it is not run.
    find: yields what it finds; None where the sources find it while they read.
  """

  id: str
  severity: Severity
  meaning: str
  fix: str
  needs: Needs = Needs.ANNOTATIONS
  find: Find | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Network:
  """What a check needs to know of the network that shall learn from the data.

  Attributes:
    size_wh: its input in pixels.
    resize: "stretch" or "letterbox".
    cell_px: (width, height) of a cell of its finest head; None where it is not known.
    anchors_wh_px: (k, 2) in pixels of the input; None of a network without anchors.
    max_boxes: objects of an image that a training takes.
  """

  size_wh: tuple[int, int] | None = None
  resize: str = "stretch"
  cell_px: tuple[float, float] | None = None
  anchors_wh_px: NDArray[np.float64] | None = None
  max_boxes: int = DEFAULT_MAX_BOXES


@dataclass(frozen=True, eq=False)
class Exam:
  """What checks look at.

  Attributes:
    splits: the one that is examined, and those that it is compared with.
    network: what is known of the network.
    has_pixels: whether images were decoded.
  """

  splits: tuple[Split, ...]
  network: Network = Network()
  has_pixels: bool = True

  @property
  def split(self) -> Split:
    """The one that is examined."""
    return self.splits[0]

  @property
  def others(self) -> Iterator[tuple[int, Split]]:
    """Number and split of those that it is compared with."""
    return ((number, split) for number, split in enumerate(self.splits) if number)

  @functools.cached_property
  def copies(self) -> list[Pair]:
    """Images of the split that are copies or near copies of earlier ones."""
    return copies_within(self.split)

  @functools.cached_property
  def scenes(self) -> list[tuple[int, int]]:
    """Neighbours of one film that show the same scene, and are no near copies."""
    copies = {(pair.first, pair.second) for pair in self.copies}
    return [pair for pair in scenes_within(self.split) if pair not in copies]

  @functools.cached_property
  def copies_of_others(self) -> dict[int, list[Pair]]:
    """Number of another split -> images that are copies or near copies of one of it."""
    return {number: copies_between(other, self.split) for number, other in self.others}

  def has(self, needs: Needs) -> bool:
    """Whether a check of such needs can be run."""
    return {
      Needs.ANNOTATIONS: True,
      Needs.BOXES: not self.split.is_classification,
      Needs.PIXELS: self.has_pixels,
      Needs.NETWORK: not self.split.is_classification and self.network.size_wh is not None,
      Needs.HEADS: not self.split.is_classification and self.network.cell_px is not None,
      Needs.AGAINST: len(self.splits) > 1,
      Needs.AGAINST_PIXELS: len(self.splits) > 1 and self.has_pixels,
    }[needs]

  def place(self, spot: Spot) -> str:
    """Where a spot is: what it says itself, else the line of its box, the image, or the data as a whole."""
    if spot.place is not None:
      return spot.place
    if spot.box is not None:
      return self.split.place_of_box(spot.box)
    return self.split.spec if spot.image is None else self.split.image_name(spot.image)


_CHECKS: dict[str, DoctorCheck] = {}

# What a source reports is serious if it leaves something out, unless the rest is as good as before.
_MILDER = {
  Check.LABEL_NO_SIZE: Severity.LOOK,
  Check.LABEL_DUPLICATE: Severity.LOOK,
  Check.LABEL_LEFT_OVER: Severity.LOOK,
  Check.IMAGE_DUPLICATE: Severity.LOOK,
  Check.IMAGE_OTHER_ENDING: Severity.LOOK,
  Check.CLASS_NO_IMAGES: Severity.LOOK,
  Check.MEMBER_DUPLICATE: Severity.LOOK,
}


def register_check(
  check: str, severity: Severity, meaning: str = "", fix: str = "", needs: Needs = Needs.ANNOTATIONS
) -> Callable[[Find], Find]:
  """Registers a function that looks for one thing.

  Args:
    check: its id, "PLACE.FAULT"; one of `findings.Check` brings its meaning and fix.
    severity: how bad it is.
    meaning, fix: what was found, and what to do about it.
    needs: what it looks at beside annotations.

  Raises:
    ValueError: the id is registered already, or meaning and fix are missing.
  """

  def register(find: Find) -> Find:
    known = next((one for one in Check if one == check), None)
    said, todo = (known.meaning, known.fix) if known else (meaning, fix)
    if check in _CHECKS or not (said and todo):
      raise ValueError(f"the check '{check}' is registered twice, or says no meaning and fix")
    _CHECKS[check] = DoctorCheck(str(check), severity, said, todo, needs, find)
    return find

  return register


def checks() -> tuple[DoctorCheck, ...]:
  """Every check, by id: those of the doctor, those of the sources, and those of extensions."""
  import prn_jax.data_pipelines.doctor.checks  # noqa: F401  (registers those that come with the package)

  found = {str(check): _of_sources(check) for check in Check} | _CHECKS
  return tuple(found[id] for id in sorted(found))


def _of_sources(check: Check) -> DoctorCheck:
  severity = _MILDER.get(check, Severity.NOTE if check.kind is None else Severity.SERIOUS)
  return DoctorCheck(str(check), severity, check.meaning, check.fix)


@dataclass(frozen=True)
class Found:
  """All that one check found.

  Attributes:
    check: which.
    spots: what, in the order of the data.
    places: where each is.
  """

  check: DoctorCheck
  spots: tuple[Spot, ...]
  places: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    """{"id", "severity", "meaning", "fix", "count", "places": [{"place", "text"}]}."""
    places = [
      {"place": printable(place), "text": printable(spot.text)}
      for place, spot in zip(self.places, self.spots, strict=True)
    ]
    return {
      "id": self.check.id, "severity": str(self.check.severity), "meaning": self.check.meaning, "fix": self.check.fix,
      "count": len(places), "places": places,
    }  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
  """The result of `examine`.

  Attributes:
    exam: what was looked at.
    found: checks that found something, the worst first.
    not_run: id of a check -> why it could not be run.
  """

  exam: Exam
  found: tuple[Found, ...]
  not_run: dict[str, str]

  @property
  def is_serious(self) -> bool:
    return any(one.check.severity is Severity.SERIOUS for one in self.found)

  @property
  def counts(self) -> dict[str, int]:
    """Number of findings of each severity."""
    counts: Counter[str] = Counter()
    for one in self.found:
      counts[str(one.check.severity)] += len(one.spots)
    return {str(severity): counts[severity] for severity in Severity}

  def to_json(self) -> dict[str, Any]:
    split = self.exam.split
    return {
      "spec": split.spec,
      "against": [other.spec for _, other in self.exam.others],
      "images": len(split),
      "objects": len(split.classes),
      "classes": list(split.names),
      "is_serious": self.is_serious,
      "counts": self.counts,
      "findings": [one.to_json() for one in self.found],
      "not_run": self.not_run,
    }


def examine(exam: Exam) -> Diagnosis:
  """Runs every check."""
  spots: dict[str, list[Spot]] = defaultdict(list)
  for problem in exam.split.problems:
    spots[problem.check].append(Spot(problem.reason, place=problem.place))
  for note in exam.split.notes:
    spots[note.check].append(Spot(note.text, place=note.place))
  not_run = {}
  every = checks()
  for check in every:
    if check.find is None:
      continue
    if exam.has(check.needs):
      spots[check.id] += check.find(exam)
    else:
      not_run[check.id] = str(check.needs)
  found = [_found(exam, check, spots[check.id]) for check in every if spots.get(check.id)]
  rank = list(Severity)
  return Diagnosis(exam, tuple(sorted(found, key=lambda one: rank.index(one.check.severity))), not_run)


def _found(exam: Exam, check: DoctorCheck, spots: Sequence[Spot]) -> Found:
  return Found(check, tuple(spots), tuple(map(exam.place, spots)))


def table() -> str:
  """The checks that the doctor adds to those of the sources, as a table in Markdown."""
  known = set(map(str, Check))
  rows = [(f"`{one.id}`", str(one.severity), one.meaning, one.fix) for one in checks() if one.id not in known]
  lines = ["| id | severity | what was found | what to do |", "|---|---|---|---|"]
  return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
