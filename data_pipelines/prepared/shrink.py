"""Images brought to a smaller size before training, their boxes along with them."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.feed.decoding import read_reduced
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import StatedSizeError, check_stated_size, image_size
from prn_jax.data_pipelines.images import ImageError, read_image
from prn_jax.data_pipelines.images.orientation import orientation
from prn_jax.data_pipelines.records import DataError, Problem, Record, image_name
from prn_jax.errors import PrnError
from prn_jax.ranges import between, check

_OVERSAMPLING = 2  # a JPEG may be decoded at 1/2, 1/4 or 1/8 where this many times the wanted size is left
MAX_SIDE = 16384


class ImageFormat(StrEnum):
  """How prepared images are stored."""

  JPEG = "jpeg"
  PNG = "png"


@dataclass(frozen=True)
class ShrinkOptions:
  """How images are stored; with no size given they keep their own.

  Attributes:
    size: (width, height) in pixels of every image, whatever its aspect, as a network that stretches sees it; smaller
      images are enlarged.
    max_side: the longer side is at most this; the aspect stays, smaller images too.
    min_side: the shorter side is at most this (256 is usual for ImageNet); the aspect stays, smaller images too.
    image_format: jpeg or png (lossless, several times the bytes).
    quality: the quality of JPEG, 1..100.

  Raises:
    DataError: a value out of range, or more than one of the three sizes.
  """

  size: tuple[int, int] | None = None
  max_side: int | None = None
  min_side: int | None = None
  image_format: ImageFormat | str = ImageFormat.JPEG
  quality: int = field(default=95, metadata=between(1, 100, "of JPEG"))

  def __post_init__(self) -> None:
    given = {name: value for name in ("size", "max_side", "min_side") if (value := getattr(self, name)) is not None}
    if len(given) > 1:
      raise DataError(f"{' and '.join(given)} are given together; expected one of them")
    for name, value in given.items():
      sides = value if isinstance(value, tuple) else (value,)
      if not all(1 <= side <= MAX_SIDE for side in sides):
        raise DataError(f"{name} is {'x'.join(map(str, sides))}; expected 1 to {MAX_SIDE} pixels a side")
    check(self, DataError)
    if self.image_format not in list(ImageFormat):
      raise DataError(f"the image format is '{self.image_format}'; expected jpeg or png")

  def target(self, width: int, height: int) -> tuple[int, int]:
    """The size in pixels that an image of width x height gets."""
    if self.size is not None:
      return self.size
    scale = 1.0
    if self.max_side is not None:
      scale = min(1.0, self.max_side / max(width, height))
    elif self.min_side is not None:
      scale = min(1.0, self.min_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(record: Record, options: ShrinkOptions) -> tuple[Record, bytes]:
  """A record at its new size, and the encoded image.

  The bytes of a file that has the wanted size and format already, upright and in colour or grey, are kept; it is
  decoded nevertheless, so that damage is found. Reduction averages over the pixels (bicubic, antialiased).

  Args:
    record: its image is a path or the bytes of a file.
    options: the new size and format.

  Returns:
    The record with boxes and areas in pixels of the new size (its `image` is unchanged), and the bytes.

  Raises:
    images.ImageError: the image cannot be decoded.
    DataError: the image has another size than the annotations say.
  """
  name, data = named_bytes(record)
  width, height = checked_size(record, name, data)
  target = options.target(width, height)
  if target == (width, height) and _may_stay(data, options):
    read_image(data, name=name)
    return _scaled(record, (width, height), target), data
  at_least = (target[0] * _OVERSAMPLING, target[1] * _OVERSAMPLING)
  decoded = read_reduced(dataclasses.replace(record, image=data), at_least)
  picture = Image.fromarray(decoded.image)
  if picture.size != target:
    picture = picture.resize(target, Image.Resampling.BICUBIC)
  return _scaled(record, (width, height), target), _encode(picture, options)


def named_bytes(record: Record) -> tuple[str, bytes]:
  """What messages call the image of a record, and the bytes of its file.

  Raises:
    images.ImageError: the file is missing or unreadable.
  """
  if isinstance(record.image, bytes):
    return image_name(record), record.image
  try:
    return image_name(record), record.image.read_bytes()
  except OSError:
    read_image(record.image)  # words the message
    raise


def checked_size(record: Record, name: str, data: bytes) -> tuple[int, int]:
  """Width and height of the image in pixels, upright.

  Raises:
    images.ImageError: it is no image.
    DataError: the annotations say another size.
  """
  try:
    size = image_size(data)
  except DataError:
    read_image(data, name=name)  # words the message
    raise
  check_stated_size(record, name, size)
  return size


def image_problem(error: PrnError, record: Record | None, spec: str) -> Problem:
  """What is wrong with an image as an entry of the log.

  Args:
    error: what came of reading or decoding it.
    record: None where the record itself could not be read.
    spec: the SPEC of the data, or what names the image in it, for images that are no files.
  """
  path = record.image if record is not None and not isinstance(record.image, bytes) else Path(spec)
  check = Check.IMAGE_OTHER_SIZE if isinstance(error, StatedSizeError) else Check.RECORD_UNREADABLE
  check = Check.IMAGE_UNREADABLE if isinstance(error, ImageError) else check
  return Problem(path, None, str(error).removesuffix("."), check)


def _may_stay(data: bytes, options: ShrinkOptions) -> bool:
  with Image.open(io.BytesIO(data)) as image:
    wanted = "JPEG" if options.image_format == ImageFormat.JPEG else "PNG"
    if image.format != wanted or image.mode not in ("RGB", "L") or "transparency" in image.info:
      return False
    return orientation(image) == 1


def _encode(picture: Image.Image, options: ShrinkOptions) -> bytes:
  buffer = io.BytesIO()
  if options.image_format == ImageFormat.JPEG:
    picture.save(buffer, "JPEG", quality=options.quality)
  else:
    picture.save(buffer, "PNG")
  return buffer.getvalue()


def _scaled(record: Record, old: tuple[int, int], new: tuple[int, int]) -> Record:
  if old == new:
    return dataclasses.replace(record, width=new[0], height=new[1])
  scale = np.array([new[0] / old[0], new[1] / old[1]] * 2)
  area, xywh, polygons = record.area_px, record.boxes_xywh_px, record.polygons_px
  return dataclasses.replace(
    record,
    width=new[0],
    height=new[1],
    boxes_xyxy_px=(record.boxes_xyxy_px * scale).astype(np.float32),
    area_px=None if area is None else area * (scale[0] * scale[1]),
    boxes_xywh_px=None if xywh is None else xywh * scale,
    ignored_xyxy_px=(record.ignored_xyxy_px * scale).astype(np.float32),
    polygons_px=None if polygons is None else tuple(tuple(ring * scale[:2] for ring in rings) for rings in polygons),
  )
