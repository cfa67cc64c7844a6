"""The size of an image by the header of its file, beside what annotations say of it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import open_image, why_unreadable
from prn_jax.data_pipelines.images.orientation import is_turned
from prn_jax.data_pipelines.records import DataError, ProblemLog, Record
from prn_jax.files.disk import is_file
from prn_jax.files.places import is_remote

_BEGIN_BYTES = 2048  # more than the header of a JPEG without EXIF
_FRAMES, _SCAN, _QUANTISATION, _JFIF = (0xC0, 0xC1, 0xC2), 0xDA, 0xDB, 0xE0
_PASSED_OVER = (0xC4, 0xDD, 0xFE)  # Huffman tables, restarts, comments


class StatedSizeError(DataError):
  """An image of another size than its annotations say."""


def image_size(image_file: Path | bytes) -> tuple[int, int]:
  """Width and height of an image as seen (after the EXIF rotation), from the header of its file or of its bytes.

  Raises:
    DataError: the file is empty, or no image of a known format.
  """
  if not isinstance(image_file, bytes) and is_remote(image_file):
    try:
      image_file = image_file.read_bytes()
    except OSError as error:
      raise DataError(f"not a readable image ({error.strerror})") from error
  if (found := _plain_jpeg_size(_begin_of(image_file))) is not None:
    return found
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only the header is read
      with open_image(io.BytesIO(image_file) if isinstance(image_file, bytes) else image_file) as image:
        width, height = image.size
        has_swapped_sides = is_turned(image)
  except UnidentifiedImageError:
    data = image_file if isinstance(image_file, bytes) else image_file.read_bytes()
    raise DataError(f"the file {why_unreadable(data).rstrip('.')}") from None
  except Exception as error:  # what Pillow raises on damaged headers is not a closed list
    raise DataError(f"not a readable image ({error})") from error
  return (height, width) if has_swapped_sides else (width, height)


def _begin_of(image_file: Path | bytes) -> bytes:
  if isinstance(image_file, bytes):
    return image_file[:_BEGIN_BYTES]
  try:
    with image_file.open("rb", buffering=0) as file:
      return file.read(_BEGIN_BYTES)
  except (OSError, ValueError):  # told by who opens it again
    return b""


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
  """Width and height of a JPEG whose whole header is in `data` and has nothing but the usual: what most annotation formats need of most
  of their images, in a tenth of Pillow's time. None for all else (EXIF and XMP, which may turn the picture; other markers; damage)."""
  if data[:2] != b"\xff\xd8":
    return None
  position, size = 2, None
  while position + 4 <= len(data):
    mark, marker, length = data[position], data[position + 1], int.from_bytes(data[position + 2 : position + 4])
    if mark != 0xFF or length < 2:
      return None
    content = data[position + 4 : position + 2 + length]
    if marker == _SCAN:
      return size
    if len(content) != length - 2 or not _is_plain(marker, content):
      return None
    if marker in _FRAMES:
      size = int.from_bytes(content[3:5]), int.from_bytes(content[1:3])
      if not all(size):
        return None
    position += 2 + length
  return None


def _is_plain(marker: int, content: bytes) -> bool:
  """Whether the content of a segment of a JPEG is what Pillow expects of it."""
  if marker in _FRAMES:
    return len(content) > 6 and content[0] == 8 and content[5] in (1, 3, 4) and len(content) == 6 + 3 * content[5]
  if marker == _QUANTISATION:
    return bool(content) and len(content) % 65 == 0 and all(first < 16 for first in content[::65])
  if marker == _JFIF:
    return content[:5] == b"JFIF\0" and len(content) >= 14
  return marker in _PASSED_OVER


def check_stated_size(record: Record, name: str, size: tuple[int, int]) -> None:
  """Raises StatedSizeError where the annotations of an image speak of another size.

  The file was scaled, turned (its EXIF orientation was not seen when it was labelled) or is another picture; a size
  alone does not tell which, so that not even the same aspect makes the boxes right.

  Args:
    record: what the annotations say.
    name: what the message calls the image.
    size: (width, height) of its pixels, upright.
  """
  if record.width and record.height and (record.width, record.height) != size:
    raise StatedSizeError(
      f"image '{name}' is {size[0]}x{size[1]}, but the annotations say {record.width}x{record.height}, "
      "so its boxes cannot be trusted."
    )


def checked_image_size(path: Path, log: ProblemLog) -> tuple[int, int] | None:
  """`image_size`, or None where the image is missing or unreadable, which goes to the log."""
  if not is_file(path):
    log.report(path, None, "the image file does not exist", Check.IMAGE_MISSING, "the image is left out")
    return None
  try:
    return image_size(path)
  except DataError as error:
    log.report(path, None, str(error), Check.IMAGE_UNREADABLE, "the image is left out")
    return None
