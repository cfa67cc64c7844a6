"""Checks of what pictures show, by their pixels."""

from __future__ import annotations

from collections.abc import Iterator

from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.photos import Pixels
from prn_jax.data_pipelines.findings import Check


def _seen(exam: Exam) -> Iterator[tuple[int, Pixels]]:
  for image, photo in enumerate(exam.split.photos):
    if photo is not None and photo.pixels is not None:
      yield image, photo.pixels


@register_check(Check.IMAGE_COPIES, Severity.LOOK, needs=Needs.PIXELS)
def copies(exam: Exam) -> Iterator[Spot]:
  for pair in exam.copies:
    if pair.is_exact:
      text = f"is equal to {exam.split.image_name(pair.first)} byte by byte"
      yield Spot(text, image=pair.second, partner=(0, pair.first))


@register_check(
  "images.near_copies", Severity.LOOK, "a picture that looks like another: stored anew, or the next frame of a film",
  "Keep one of them, unless a film is meant; never divide them between training and validation.", Needs.PIXELS,
)  # fmt: skip
def near_copies(exam: Exam) -> Iterator[Spot]:
  for pair in exam.copies:
    if not pair.is_exact:
      text = f"looks like {exam.split.image_name(pair.first)} (correlation {pair.likeness:.3f})"
      yield Spot(text, image=pair.second, partner=(0, pair.first))


@register_check(
  "images.grey_among_colour", Severity.NOTE, "a picture without colour where most have colour",
  "Look whether the network shall know both.", Needs.PIXELS,
)  # fmt: skip
def grey_among_colour(exam: Exam) -> Iterator[Spot]:
  seen = list(_seen(exam))
  grey = [image for image, pixels in seen if pixels.is_grey]
  if 2 * len(grey) < len(seen):
    for image in grey:
      yield Spot("has no colour", image=image)


@register_check(
  "images.one_colour", Severity.LOOK, "a picture of one colour",
  "Look whether the file was written right.", Needs.PIXELS,
)  # fmt: skip
def one_colour(exam: Exam) -> Iterator[Spot]:
  for image, pixels in _seen(exam):
    if pixels.is_flat:
      yield Spot("shows one colour alone", image=image)
