"""The one rule of EXIF: how a photo was held, and turning it upright."""

from __future__ import annotations

from PIL import Image

_TAG = 0x0112
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
  """EXIF's number: 1 is upright, as are photos without EXIF; 0 where the metadata are damaged or say nothing known.

  Beside good pixels damaged metadata do no harm: the picture is used as it is stored.
  """
  try:
    found = image.getexif().get(_TAG, 1)
  except Exception:  # what Pillow raises on damaged metadata is not a closed list
    return 0
  return found if found == 1 or found in _UPRIGHT else 0


def orientation_of_header(image: Image.Image) -> int:
  """`orientation`, where no pixel is to be decoded: asking a PNG without EXIF for it would decode all."""
  has_metadata = any("exif" in str(key).lower() or "xmp" in str(key).lower() for key in image.info)
  return orientation(image) if has_metadata or image.format == "TIFF" else 1


def is_turned(image: Image.Image) -> bool:
  """Whether upright it is as wide as it is stored high; from the header alone."""
  return orientation_of_header(image) >= 5


def upright(image: Image.Image) -> Image.Image:
  """The picture as it was seen; the same object where nothing is to be turned."""
  how = _UPRIGHT.get(orientation(image))
  return image if how is None else image.transpose(how)
