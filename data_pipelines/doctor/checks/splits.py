"""Checks of pictures that are in two splits: what was trained on cannot test."""

from __future__ import annotations

from collections.abc import Iterator

from prn_jax.data_pipelines.doctor.alike import scenes_between
from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check

_MOVE = "Take them out of one of the two: a validation on pictures of the training says nothing of others."


def _spots(exam: Exam, is_exact: bool) -> Iterator[Spot]:
  for number, pairs in exam.copies_of_others.items():
    other = exam.splits[number]
    for pair in pairs:
      if pair.is_exact is not is_exact:
        continue
      name = other.image_name(pair.first)
      how = f"is equal to {name}" if is_exact else f"looks like {name} (correlation {pair.likeness:.3f})"
      yield Spot(f"{how} of {other.spec}", image=pair.second, partner=(number, pair.first))


@register_check(
  "splits.copies", Severity.SERIOUS, "an image file that is in another split too, byte by byte", _MOVE,
  Needs.AGAINST_PIXELS,
)  # fmt: skip
def copies(exam: Exam) -> Iterator[Spot]:
  yield from _spots(exam, True)


@register_check(
  "splits.near_copies", Severity.SERIOUS, "a picture that looks like one of another split", _MOVE,
  Needs.AGAINST_PIXELS,
)  # fmt: skip
def near_copies(exam: Exam) -> Iterator[Spot]:
  yield from _spots(exam, False)


@register_check(
  "splits.same_scene", Severity.LOOK, "neighbours of one film in two splits, by their names and pictures",
  "Divide films as a whole: the validation is too easy otherwise.", Needs.AGAINST_PIXELS,
)  # fmt: skip
def same_scene(exam: Exam) -> Iterator[Spot]:
  for number, other in exam.others:
    told = {pair.second for pair in exam.copies_of_others[number]}
    for theirs, ours in scenes_between(other, exam.split):
      if ours not in told:
        text = f"shows the same scene as {other.image_name(theirs)} of {other.spec}"
        yield Spot(text, image=ours, partner=(number, theirs))
