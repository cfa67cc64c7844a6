"""What the doctor sees of image files: headers, and of the pixels a fingerprint and a small picture. Each is read once."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prn_jax.data_pipelines.images import read_image
from prn_jax.data_pipelines.images.formats import open_image
from prn_jax.data_pipelines.images.orientation import orientation_of_header
from prn_jax.data_pipelines.prepared.shrink import named_bytes
from prn_jax.data_pipelines.records import Record

THUMB_PX = 32
_GREY_TOLERANCE = 3  # of 255, between the channels of a grey photo that was stored in colour
_FLAT_TOLERANCE = 4
_HASH_SIDE = 8
_COSINES = np.cos(np.pi / THUMB_PX * (np.arange(THUMB_PX) + 0.5) * np.arange(1, _HASH_SIDE + 1)[:, None])


@dataclass(frozen=True)
class Pixels:
  """What is kept of the pixels of an image.

  Attributes:
    digest: the digest of the bytes of the file.
    thumb: (32, 32) uint8 grey, the whole image averaged.
    hashes: (2,) uint64: the signs of differences between neighbours (dHash), and of low frequencies (pHash).
    is_grey: whether it has no colour.
    is_flat: whether it shows one colour alone.
  """

  digest: bytes
  thumb: NDArray[np.uint8]
  hashes: NDArray[np.uint64]
  is_grey: bool
  is_flat: bool


@dataclass(frozen=True)
class Photo:
  """What was seen of an image file.

  Attributes:
    format: Pillow's name of it.
    mode: Pillow's name of its colours.
    stored_wh: size in pixels as stored.
    orientation: EXIF's number; 1 is upright.
    is_16_bit: more than 8 bits a channel.
    num_frames: frames or pages.
    pixels: None where only the header was read.
  """

  format: str
  mode: str
  stored_wh: tuple[int, int]
  orientation: int
  is_16_bit: bool
  num_frames: int
  pixels: Pixels | None = None

  @property
  def size_wh(self) -> tuple[int, int]:
    """Size in pixels, upright."""
    width, height = self.stored_wh
    return (height, width) if self.orientation >= 5 else (width, height)


def photo_of(record: Record, decode: bool) -> Photo:
  """What is seen of the image of a record; without `decode` only its header is read.

  Raises:
    ImageError: it cannot be used.
  """
  if not decode and isinstance(record.image, Path):
    try:
      with record.image.open("rb") as file:
        return _header(record.image, file, str(record.image))
    except OSError:
      read_image(record.image)  # words the message
      raise
  name, data = named_bytes(record)
  pixels = _pixels(data, name) if decode else None
  return replace(_header(data, io.BytesIO(data), name), pixels=pixels)


def _header(source: Path | bytes, file: Any, name: str) -> Photo:
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only the header is read
      with open_image(file) as image:
        frames = 1 if image.format in ("MPO", "JPEG") else int(getattr(image, "n_frames", 1))
        turn = orientation_of_header(image)
        return Photo(image.format or "", image.mode, image.size, turn, _is_16_bit(image, file), frames)
  except Exception:  # what Pillow raises on damaged headers is not a closed list
    read_image(source, name=name)  # words the message
    raise


def _is_16_bit(image: Image.Image, file: Any) -> bool:
  if image.mode.startswith("I"):
    return True
  if image.format == "PNG":  # Pillow makes 8 bits of 16 in colour, and does not say so
    file.seek(0)
    start = file.read(25)
    return start[12:16] == b"IHDR" and start[24] == 16
  tags = getattr(image, "tag_v2", None)
  return tags is not None and max(tags.get(258, (8,))) > 8


def _pixels(data: bytes, name: str) -> Pixels:
  photo = Image.fromarray(read_image(data, name=name))
  small = np.asarray(photo.resize((2 * THUMB_PX, 2 * THUMB_PX), Image.Resampling.BOX), np.int16)
  spread = small.max(2) - small.min(2)
  grey = photo.convert("L")
  thumb = np.asarray(grey.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX))
  rows = np.asarray(grey.resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX), np.int16)
  digest = hashlib.blake2b(data, digest_size=16).digest()
  is_flat = bool(np.ptp(np.asarray(photo), axis=(0, 1)).max() <= _FLAT_TOLERANCE)
  return Pixels(digest, thumb, hashes_of(thumb, rows), bool(spread.max() <= _GREY_TOLERANCE), is_flat)


def hashes_of(thumb: NDArray[np.uint8], rows: NDArray[np.int16]) -> NDArray[np.uint64]:
  """dHash of (8, 9) values, and pHash of a (32, 32) thumb: 64 signs each, as (2,) uint64."""
  steps = rows[:, 1:] > rows[:, :-1]
  waves = _COSINES @ thumb.astype(np.float64) @ _COSINES.T
  bits = np.stack([steps.ravel(), (waves > np.median(waves)).ravel()])
  return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def stacked(photos: Sequence[Photo | None]) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]:
  """Positions of the images whose pixels were seen, their (k, 2) hashes and (k, 32, 32) thumbs."""
  seen = [(i, photo.pixels) for i, photo in enumerate(photos) if photo is not None and photo.pixels is not None]
  hashes = np.array([pixels.hashes for _, pixels in seen], np.uint64).reshape(-1, 2)
  thumbs = np.array([pixels.thumb for _, pixels in seen], np.uint8).reshape(-1, THUMB_PX, THUMB_PX)
  return np.array([i for i, _ in seen], np.int64), hashes, thumbs
