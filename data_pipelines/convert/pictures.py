"""Images of a converted set: what their headers say, what their files are called, and how they come there."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PIL import Image

from prn_jax.data_pipelines.image_sizes import image_size
from prn_jax.data_pipelines.images import ImageError, read_image
from prn_jax.data_pipelines.images.formats import is_image_name, open_image
from prn_jax.data_pipelines.images.orientation import orientation_of_header
from prn_jax.data_pipelines.records import Record, image_name
from prn_jax.errors import PrnError
from prn_jax.files.places import is_remote

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Formats that stay as they are where an image is no file yet; all others become PNG."""
_QUALITY = 95
_MOST_BYTES = 180  # of a name without its ending; file systems take 255 with it


class Images(StrEnum):
  """How images come into the converted set."""

  COPY = "copy"  # the set stands on its own
  LINK = "link"  # symbolic links to the files of the source


class Placed(StrEnum):
  """What became of one image."""

  COPIED = "copied"
  LINKED = "linked"
  WRITTEN = "written"  # was in memory or in an archive
  TURNED = "turned"  # written upright


@dataclass(frozen=True)
class Header:
  """What the head of an image file says.

  Attributes:
    size: (width, height) in pixels, upright.
    is_turned: whether EXIF turns or mirrors the picture.
    format: Pillow's name of the format.
    num_channels: 1 of grey, 3 of colour, 4 with transparency or of CMYK.
  """

  size: tuple[int, int]
  is_turned: bool
  format: str
  num_channels: int


def read_header(record: Record) -> Header:
  """The header of a record's image; no pixel is decoded.

  Raises:
    DataError: it is missing, empty, or no image.
  """
  source: Path | bytes = record.image
  if not isinstance(source, bytes) and is_remote(source):
    source = source.read_bytes()
  size = image_size(source)  # words the messages
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with open_image(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
      is_turned = orientation_of_header(image) > 1
      return Header(size, is_turned, image.format or "", len(image.getbands()))


def suffix_of(record: Record, header: Header) -> str:
  """The ending that the image has in the converted set."""
  if header.is_turned:
    return ".jpg" if header.format in ("JPEG", "MPO") else ".png"
  if not isinstance(record.image, bytes) and is_image_name(record.image):
    return record.image.suffix
  return _SUFFIXES.get(header.format, ".png")


def stems(record: Record, split: str) -> Iterator[str]:
  """Names for a record's image, without ending: that of its file (or its id), then ever longer ones."""
  if isinstance(record.image, bytes):
    parts = [part for part in re.split(r"[/\\]", str(record.image_id)) if part]
    if parts and is_image_name(parts[-1]):
      parts[-1] = Path(parts[-1]).stem
  else:
    parts = [*record.image.parts[:-1], record.image.stem if is_image_name(record.image) else record.image.name]
  first = _safe(parts[-1]) if parts else "image"
  yield first
  if len(parts) > 1:
    yield _safe("_".join(parts[-2:]))
  longest = _safe("_".join((split, *parts[-1:])))
  yield longest
  number = 2
  while True:
    yield f"{longest}-{number}"
    number += 1


def key_of(stem: str) -> str:
  """Equal for names that some file system or label reader takes for one: case and composed accents do not count."""
  return unicodedata.normalize("NFC", stem).casefold()


def _safe(stem: str) -> str:
  """The name as a list of names, an XML and every file system can hold it."""
  text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff/\\]", "_", stem)
  text = re.sub(r"^[\s.]+|\s+$", lambda found: "_" * len(found[0]), text) or "_"
  if len(text.encode()) <= _MOST_BYTES:
    return text
  digest = hashlib.sha256(text.encode()).hexdigest()[:8]
  return text.encode()[: _MOST_BYTES - 9].decode(errors="ignore") + f"_{digest}"


def place(record: Record, header: Header, target: Path, images: Images) -> Placed:
  """Puts the image of a record to where the converted set has it.

  Raises:
    ImageError: it cannot be decoded, which only images are that EXIF turns, or that are in a format of no file.
    PrnError: the target cannot be written.
  """
  source = record.image
  if header.is_turned or (isinstance(source, bytes) and header.format not in _SUFFIXES):
    picture = Image.fromarray(read_image(source, name=image_name(record)))
    with target.open("wb") as file:
      if target.suffix == ".jpg":
        picture.save(file, "JPEG", quality=_QUALITY)
      else:
        picture.save(file, "PNG")
    return Placed.TURNED if header.is_turned else Placed.WRITTEN
  if isinstance(source, bytes):
    target.write_bytes(source)
    return Placed.WRITTEN
  if images is Images.LINK:
    if is_remote(source):
      raise PrnError(f"no link can lead to '{source}', which is in a bucket; copy the images (--copy)")
    target.symlink_to(source.absolute())
    return Placed.LINKED
  if is_remote(source):
    target.write_bytes(source.read_bytes())
    return Placed.COPIED
  try:
    shutil.copyfile(source, target)
  except FileNotFoundError:
    raise ImageError(f"image '{source}' does not exist.") from None
  return Placed.COPIED
