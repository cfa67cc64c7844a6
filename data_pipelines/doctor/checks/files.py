"""Checks of image files by their names and headers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prn_jax.data_pipelines.doctor.checkup import Exam, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.photos import Photo
from prn_jax.data_pipelines.doctor.split import Split
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import format_of_name
from prn_jax.data_pipelines.records import EDGE_TOLERANCE_PX
from prn_jax.data_pipelines.spec import parse_spec
from prn_jax.files.places import is_remote, to_path

LARGE_PIXELS = 24_000_000
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}


def _seen(split: Split) -> Iterator[tuple[int, Photo]]:
  return ((image, photo) for image, photo in enumerate(split.photos) if photo is not None)


@register_check(Check.IMAGE_OTHER_SIZE, Severity.SERIOUS)
def other_size(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for image, photo in _seen(split):
    stated = tuple(split.stated_wh_px[image].tolist())
    if all(stated) and stated != photo.size_wh and not _is_stored_frame(split, image, photo):
      width, height = photo.size_wh
      yield Spot(f"is {width}x{height}, the annotations say {stated[0]}x{stated[1]}", image=image)


def _is_stored_frame(split: Split, image: int, photo: Photo) -> bool:
  """Whether the annotations speak of the picture as it is stored, before the turn that EXIF asks for."""
  return photo.stored_wh != photo.size_wh and tuple(split.stated_wh_px[image].tolist()) == photo.stored_wh


def outside_frame(split: Split, image: int, size_wh: tuple[int, int]) -> int:
  """Number of boxes of an image that reach beyond a frame of this size."""
  boxes = split.boxes_xyxy_px[split.boxes_of(image)]
  return int((boxes[:, 2:] > np.array(size_wh) + EDGE_TOLERANCE_PX).any(1).sum())


@register_check(
  "boxes.unrotated_frame", Severity.SERIOUS, "boxes in the frame of the picture as it is stored, which EXIF turns",
  "Turn the boxes as EXIF turns the picture, or save the picture without the EXIF tag (--fix does what is certain).",
)  # fmt: skip
def unrotated_frame(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for image, photo in _seen(split):
    if photo.stored_wh == photo.size_wh:
      continue
    upright, stored = (outside_frame(split, image, size) for size in (photo.size_wh, photo.stored_wh))
    if (upright and not stored) or _is_stored_frame(split, image, photo):
      said = "the annotations state the stored size" if _is_stored_frame(split, image, photo) else "no size is stated"
      fit = f", and {upright} boxes fit only there" if upright and not stored else ""
      size = f"{photo.stored_wh[0]}x{photo.stored_wh[1]}"
      yield Spot(f"is stored as {size} with EXIF orientation {photo.orientation}; {said}{fit}", image=image)


@register_check(
  "images.exif_rotated", Severity.NOTE, "a picture that is turned or mirrored by its EXIF tag alone",
  "Nothing here, where it is turned; save it upright (--fix) if other programs shall read it.",
)  # fmt: skip
def exif_rotated(exam: Exam) -> Iterator[Spot]:
  for image, photo in _seen(exam.split):
    if photo.orientation > 1:
      yield Spot(f"has EXIF orientation {photo.orientation}", image=image)


@register_check(
  "images.cmyk", Severity.LOOK, "a picture in the colours of a printer (CMYK)",
  "Convert it to RGB; programs disagree about its colours.",
)  # fmt: skip
def cmyk(exam: Exam) -> Iterator[Spot]:
  for image, photo in _seen(exam.split):
    if photo.mode == "CMYK":
      yield Spot(f"is a {photo.format} in CMYK", image=image)


@register_check(
  "images.16_bit", Severity.NOTE, "a picture of 16 bits a channel, of which the upper 8 are used",
  "Look whether it looks right: scans and depth maps may use the lower bits alone.",
)  # fmt: skip
def sixteen_bit(exam: Exam) -> Iterator[Spot]:
  for image, photo in _seen(exam.split):
    if photo.is_16_bit:
      yield Spot(f"is a {photo.format} of 16 bits a channel", image=image)


@register_check(
  "images.animated", Severity.LOOK, "a file of several frames or pages, of which the first is used",
  "Save the frame that was labelled as a file of its own.",
)  # fmt: skip
def animated(exam: Exam) -> Iterator[Spot]:
  for image, photo in _seen(exam.split):
    if photo.num_frames > 1:
      yield Spot(f"is a {photo.format} of {photo.num_frames} frames", image=image)


@register_check(
  "images.wrong_ending", Severity.NOTE, "a file of another format than its ending says",
  "Rename it; programs that go by the ending fail.",
)  # fmt: skip
def wrong_ending(exam: Exam) -> Iterator[Spot]:
  for image, photo in _seen(exam.split):
    path = exam.split.images[image]
    said = None if path is None else format_of_name(path)
    if said is not None and _SAME_FORMAT.get(photo.format, photo.format) != said:
      yield Spot(f"is a {photo.format}, its name says {said}", image=image)


@register_check(
  "images.case_differs", Severity.LOOK, "two image files whose names differ in upper and lower case alone",
  "Rename one: on Windows and macOS they are one file.",
)  # fmt: skip
def case_differs(exam: Exam) -> Iterator[Spot]:
  by_name: dict[str, int] = {}
  for image, path in enumerate(exam.split.images):
    if path is None:
      continue
    first = by_name.setdefault(str(path).casefold(), image)
    if exam.split.images[first] != path:
      yield Spot(f"differs from {exam.split.image_name(first)} in upper and lower case alone", image=image)


@register_check(
  "images.very_large", Severity.NOTE, "a picture of more than 24 million pixels",
  "Prepare the data once (prn data prepare --max-side), or cut large pictures into tiles.",
)  # fmt: skip
def very_large(exam: Exam) -> Iterator[Spot]:
  for image, photo in _seen(exam.split):
    width, height = photo.stored_wh
    if width * height > LARGE_PIXELS:
      yield Spot(f"is {width}x{height}, {width * height / 1e6:.0f} million pixels", image=image)


@register_check(Check.IMAGE_REPEATED_ID, Severity.SERIOUS)
def repeated_id(exam: Exam) -> Iterator[Spot]:
  by_id: dict[str, list[int]] = defaultdict(list)
  for image, image_id in enumerate(exam.split.image_ids):
    by_id[str(image_id)].append(image)
  for image_id, images in by_id.items():
    for image in images[1:]:
      yield Spot(f"has the id '{image_id}' of {exam.split.image_name(images[0])}", image=image)


@register_check(
  "paths.outside_folder", Severity.NOTE, "an image that lies outside the folder of the data set",
  "Move it there; a copy of the folder lacks it.",
)  # fmt: skip
def outside_folder(exam: Exam) -> Iterator[Spot]:
  folder = _folder(exam.split.spec)
  if folder is None:
    return
  outside = [image for image, path in enumerate(exam.split.images) if path is not None and not _is_below(path, folder)]
  if 2 * len(outside) < len(exam.split):  # elsewhere on purpose, where most are
    for image in outside:
      yield Spot(f"lies outside {folder}", image=image)


def _folder(spec: str) -> Path | None:
  source, parts = parse_spec(spec)
  if source.kind in ("darknet", "yolo"):
    return to_path(parts[0]).parent
  return to_path(parts[-1] if source.kind == "coco" else parts[0]) if source.kind in ("coco", "voc") else None


def _is_below(path: Path, folder: Path) -> bool:
  """By the names alone: links to pictures elsewhere are meant."""
  if is_remote(path) or is_remote(folder):
    return str(path).startswith(str(folder))
  return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
