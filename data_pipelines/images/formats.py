"""Which files are images: their endings, their readers in Pillow, and why a file cannot be opened.

One list of endings serves every command. It names what can be read with a further package too: such a file is then
refused with the package's name, never passed over in silence.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from pathlib import Path
from typing import IO

from PIL import Image, TiffImagePlugin, features

_ENDINGS = {
  "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjpg", ".pjp", ".mpo"),
  "PNG": (".png", ".apng"),
  "WEBP": (".webp",),
  "BMP": (".bmp", ".dib"),
  "GIF": (".gif",),
  "TIFF": (".tif", ".tiff"),
  "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
  "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
  "AVIF": (".avif",),
  "HEIF": (".heic", ".heif", ".hif"),
}
IMAGE_SUFFIXES = tuple(ending for endings in _ENDINGS.values() for ending in endings)
"""Lower-case endings of files that are taken for images."""

# Other plugins are never tried: some start external programs (EPS), and none of them holds photos.
_ALWAYS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
_HEIF_PACKAGES = ("pi_heif", "pillow_heif")

_EXPECTED = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000, AVIF or HEIC"
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHERS = {
  b"\xff\x0a": "JPEG XL",
  b"\0\0\0\x0cJXL ": "JPEG XL",
  b"8BPS": "Photoshop",
  b"v/1\x01": "OpenEXR",
  b"#?R": "Radiance HDR",
  b"%PDF": "PDF",
  b"\x93NUMPY": "NumPy",
}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex integer", 6: "complex float"}


def is_image_name(name: str | Path) -> bool:
  """Whether a file of this name is taken for an image."""
  return Path(name).suffix.lower() in IMAGE_SUFFIXES


def format_of_name(name: str | Path) -> str | None:
  """The format that the ending of a name stands for, by Pillow's name; None of names that are no images."""
  ending = Path(name).suffix.lower()
  return next((kind for kind, endings in _ENDINGS.items() if ending in endings), None)


def open_image(file: Path | IO[bytes]) -> Image.Image:
  """Pillow's `Image.open` for the formats above; pixels are not decoded yet.

  Raises:
    PIL.UnidentifiedImageError: none of them; `why_unreadable` tells more. What else Pillow raises on damaged headers
      is not a closed list.
  """
  return Image.open(file, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
  """Names of the formats that this installation reads."""
  more = [name for name, has in (("JPEG2000", _has_codec("jpg_2000")), ("AVIF", _has_avif())) if has]
  for package in _HEIF_PACKAGES:
    with contextlib.suppress(ImportError):
      importlib.import_module(package).register_heif_opener()
      more.append("HEIF")
      break
  return (*_ALWAYS, *more)


def _has_codec(name: str) -> bool:
  return bool(features.check_codec(name))


def _has_avif() -> bool:
  try:
    return bool(features.check_module("avif"))
  except ValueError:  # a Pillow that never heard of it
    return False


def why_unreadable(data: bytes) -> str:
  """Why `open_image` refused a file, as the end of a sentence that begins with the file: "is truncated ... ."."""
  if not data:
    return "is empty (0 bytes). Copy or download it again."
  if needed := _reader_that_lacks(data):
    return needed
  for start, kind in _OTHERS.items():
    if data.startswith(start):
      return f"is a {kind} file, which is not read. Convert it to JPEG or PNG."
  if data.startswith(_TIFF) and (held := _tiff_content(data)):
    return held
  if data.startswith(_SIGNATURES):
    return f"is truncated or damaged: its header makes no sense ({len(data):,} bytes). Copy or download it again."
  return f"is not an image: it starts with {data[:16]!r}. Expected {_EXPECTED}."


def _reader_that_lacks(data: bytes) -> str | None:
  """What to install for a file whose format Pillow can be made to read."""
  if data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")) and "JPEG2000" not in _formats():
    return "is a JPEG 2000 file, and this Pillow was built without OpenJPEG. Install Pillow's own wheel (pip install pillow), or convert the file."
  if data[4:8] != b"ftyp":
    return None
  brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 256), 4))}
  if brands & {b"avif", b"avis"}:
    return (
      None if "AVIF" in _formats() else "is an AVIF file, which needs Pillow 11.3 or newer (pip install -U pillow)."
    )
  if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
    need = (
      "is a HEIC file, which needs the package pi-heif or pillow-heif (pip install pi-heif), or convert it to JPEG."
    )
    return None if "HEIF" in _formats() else need
  return "is a video or another kind of MP4 container. Expected an image."


def _tiff_content(data: bytes) -> str | None:
  """What a whole TIFF holds that Pillow cannot show; None where the directory of its first page cannot be read."""
  try:
    file = io.BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if data[2] == 0x2B or data[3] == 0x2B else 8))
    file.seek(directory.next)
    directory.load(file)
    width, height = int(directory[256]), int(directory[257])
    bits, sample_format = int(directory.get(258, (1,))[0]), int(directory.get(339, (1,))[0])
    channels, compression = int(directory.get(277, 1)), int(directory.get(259, 1))
  except Exception:  # what Pillow raises on damaged files is not a closed list
    return None
  kind = _SAMPLE_FORMATS.get(sample_format, "unknown")
  name = TiffImagePlugin.COMPRESSION_INFO.get(compression, str(compression))
  values = f"{channels} channel{'s' if channels > 1 else ''} of {bits}-bit {kind} values"
  what = f"is a TIFF of {width}x{height} pixels with {values} (compression {name})"
  if kind == "unsigned" and bits <= 16 and channels <= 4:
    return f"{what}, a combination that is not read. Convert it to RGB of 8 or 16 bits without compression."
  if kind != "unsigned" or bits > 16:
    return f"{what}, whose range is unknown. Convert it to RGB of 8 or 16 bits."
  return f"{what}; which of them are red, green and blue is unknown. Convert it to RGB."
