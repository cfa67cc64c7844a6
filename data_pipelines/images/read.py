"""Photos to arrays of pixels: uint8 RGB, upright."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from prn_jax.data_pipelines.images.formats import open_image, why_unreadable
from prn_jax.data_pipelines.images.orientation import upright
from prn_jax.errors import BucketError, PrnError
from prn_jax.files.places import to_path

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB; where Pillow starts to suspect a decompression bomb


class ImageError(PrnError):
  """A file that is missing, damaged, or not an image that can be used; the text names it."""


def read_image(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> np.ndarray:
  """Decodes an image to RGB, upright.

  JPEG, PNG, WebP, BMP, GIF and TIFF (first frame or page), PPM, JPEG 2000, and where this installation can (Pillow 11.3;
  the package pi-heif or pillow-heif) AVIF and HEIC. EXIF rotation is applied. Grey, palette and CMYK
  become RGB. Of 16 bits the upper 8 are kept, as in Darknet's decoder. Transparent pixels are laid over white, which
  is what viewers and browsers show; dropping alpha, as Darknet and OpenCV do, would reveal whatever colour the
  encoder left under it. Opaque images are the same either way.

  Args:
    source: path, or the bytes of a file.
    name: what error messages call it; by default the path.

  Returns:
    (height, width, 3) uint8, RGB.

  Raises:
    ImageError: missing, unreadable, empty, not an image, truncated or damaged, without pixels, of more than
      `MAX_PIXELS` (a small file can decode to gigabytes), or of 32-bit values whose range is unknown.
  """
  if isinstance(source, bytes):
    where, data = f"image '{name}'" if name else f"image of {len(source):,} bytes", source
  else:
    where, data = f"image '{name or os.fspath(source)}'", b""
    data = read_file(to_path(source), where)
  image = _decode(data, where)
  return np.array(_to_rgb(image, where))


def read_file(path: Path, where: str) -> bytes:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    raise ImageError(f"{where} does not exist.") from None
  except IsADirectoryError:
    raise ImageError(f"{where} is a folder; expected an image file.") from None
  except BucketError:
    raise
  except (OSError, ValueError) as error:  # ValueError: a NUL in the path
    raise ImageError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _decode(data: bytes, where: str) -> Image.Image:
  """The first frame, decoded and upright, in the mode of the file."""
  try:
    image = open_image(io.BytesIO(data))
  except UnidentifiedImageError:
    raise ImageError(f"{where} {why_unreadable(data)}") from None
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise ImageError(
      f"{where} is too large: {error}. At most {MAX_PIXELS:,} pixels are decoded. Scale it down."
    ) from None
  except Exception as error:  # what Pillow raises on damaged headers is not a closed list
    raise ImageError(f"{where} is truncated or damaged: {error}. Copy or download it again.") from error
  width, height = image.size
  if width * height > MAX_PIXELS:
    raise ImageError(
      f"{where} has {width}x{height} = {width * height:,} pixels; at most {MAX_PIXELS:,} are decoded. Scale it down."
    )
  if min(width, height) < 1:
    raise ImageError(f"{where} is {width}x{height} pixels; expected at least 1x1.")
  try:
    image.load()
  except Exception as error:  # as above
    raise ImageError(f"{where} is truncated or damaged: {error}. Copy or download it again.") from error
  # The decoders ask for more data where a file simply stops. Where the rest is missing inside (an unfinished
  # download that ends in zeros, for example) those of JPEG and PNG fill the picture and say nothing.
  has_end = {"JPEG": jpeg_has_end, "MPO": jpeg_has_end, "PNG": _png_has_end}.get(image.format or "")
  if has_end and not has_end(data):
    raise ImageError(
      f"{where} is truncated: the end mark of the {image.format} data is missing ({len(data):,} bytes). "
      "Copy or download it again."
    )
  return upright(image)


def jpeg_has_end(data: bytes) -> bool:
  """Whether an end marker follows the start of the scan; thumbnails before it have end markers of their own."""
  at = data.find(b"\xff", 2)
  while 0 <= at < len(data) - 3:
    marker = data[at + 1]
    if marker in (0x00, 0xFF):  # fill bytes before a marker
      at = data.find(b"\xff", at + 1)
    elif marker == 0xDA:  # start of scan; entropy-coded data never holds FF D9
      return data.find(b"\xff\xd9", at) >= 0
    else:
      at = data.find(b"\xff", at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
  return False


def _png_has_end(data: bytes) -> bool:
  """Whether the chain of chunks (length, type, data, checksum) reaches IEND."""
  at = 8
  while at + 8 <= len(data):
    if data[at + 4 : at + 8] == b"IEND":
      return True
    if not data[at + 4 : at + 8].isalpha():
      return False
    at += 12 + int.from_bytes(data[at : at + 4], "big")
  return False


def _to_rgb(image: Image.Image, where: str) -> Image.Image:
  if image.mode == "RGB" and "transparency" not in image.info:
    return image
  if image.mode.startswith("I"):
    return _grey_of_16_bits(image, where).convert("RGB")
  if image.mode == "F":
    raise ImageError(f"{where} has 32-bit float values, whose range is unknown. Convert it to 8 or 16 bits.")
  try:
    if not image.has_transparency_data:
      return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
  except ValueError as error:
    raise ImageError(f"{where} has colour mode {image.mode}, which cannot become RGB ({error}).") from None


def _grey_of_16_bits(image: Image.Image, where: str) -> Image.Image:
  values = np.asarray(image)
  low, high = int(values.min()), int(values.max())
  if low < 0 or high > 65535:  # mode "I" also holds 32-bit files
    raise ImageError(f"{where} has 32-bit values from {low} to {high}, whose range is unknown. Convert it to 16 bits.")
  return Image.fromarray((values >> 8).astype(np.uint8))
