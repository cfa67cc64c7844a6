"""Which files are images, and what is said of those that cannot be read."""

from __future__ import annotations

import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from prn_jax.data_pipelines.image_sizes import image_size
from prn_jax.data_pipelines.images import ImageError, inputs, read_image
from prn_jax.data_pipelines.images import formats as image_formats
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

CONTAINER = b"\0\0\0\x18ftyp%s\0\0\0\0%s%s"


@pytest.fixture
def old_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
  """Pillow without any optional reader."""
  monkeypatch.setattr(image_formats, "_formats", lambda: image_formats._ALWAYS)


def tiff(channels: int, bits: int, kind: int, order: str = "<", pixels: bytes | None = None) -> bytes:
  """A TIFF of 4x2 pixels, uncompressed; `kind` is the SampleFormat: 1 unsigned, 2 signed, 3 float."""
  data = bytes(4 * 2 * channels * bits // 8) if pixels is None else pixels
  head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data) + 4 * channels)
  lists = struct.pack(f"{order}{2 * channels}H", *[bits] * channels, *[kind] * channels)
  at = 8 + len(data)

  def entry(tag: int, type_: int, count: int, value: int) -> bytes:
    packed = struct.pack(f"{order}HH", value, 0) if type_ == 3 and count == 1 else struct.pack(f"{order}I", value)
    return struct.pack(f"{order}HHI", tag, type_, count) + packed

  many = channels > 2  # longer lists lie outside of the entry
  entries = [
    entry(256, 3, 1, 4), entry(257, 3, 1, 2), entry(258, 3, channels, at if many else bits), entry(259, 3, 1, 1),
    entry(262, 3, 1, 2 if channels == 3 else 1), entry(273, 4, 1, 8), entry(277, 3, 1, channels),
    entry(278, 3, 1, 2), entry(279, 4, 1, len(data)), entry(339, 3, channels, at + 2 * channels if many else kind),
  ]  # fmt: skip
  return head + data + lists + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
  ("channels", "bits", "kind", "said"),
  [
    (3, 32, 3, "with 3 channels of 32-bit float values"),
    (3, 64, 3, "with 3 channels of 64-bit float values"),
    (3, 32, 1, "with 3 channels of 32-bit unsigned values"),
    (3, 32, 2, "with 3 channels of 32-bit signed values"),
    (4, 32, 3, "with 4 channels of 32-bit float values"),
  ],
)
def test_tiffs_of_unknown_range_are_called_so(channels: int, bits: int, kind: int, said: str, order: str) -> None:
  with pytest.raises(ImageError) as caught:
    read_image(tiff(channels, bits, kind, order), name="x.tif")
  assert f"image 'x.tif' is a TIFF of 4x2 pixels {said} (compression raw), whose range is unknown." in str(caught.value)
  assert "Convert it to RGB of 8 or 16 bits." in str(caught.value)
  assert "damaged" not in str(caught.value)


def test_a_tiff_whose_tags_have_other_types_is_damaged() -> None:
  """Bits a sample as bytes of unknown meaning (type 7), where numbers of 16 bits belong (type 3)."""
  data = tiff(3, 8, 1)
  position = data.index(b"\x02\x01\x03\x00")
  with pytest.raises(ImageError, match=r"is truncated or damaged: its header makes no sense"):
    read_image(data[: position + 2] + b"\x07" + data[position + 3 :])


def test_tiffs_of_many_channels_are_called_so() -> None:
  with pytest.raises(ImageError, match=r"with 7 channels of 8-bit unsigned values .* which of them are red, green"):
    read_image(tiff(7, 8, 1))


def test_one_float_channel_and_a_damaged_directory() -> None:
  with pytest.raises(ImageError, match="has 32-bit float values, whose range is unknown"):
    read_image(tiff(1, 32, 3))
  with pytest.raises(ImageError, match="is truncated or damaged"):
    read_image(tiff(3, 32, 3)[:-60])


def test_ordinary_tiffs_are_read() -> None:
  pixels = np.arange(24, dtype=np.uint8)
  np.testing.assert_array_equal(read_image(tiff(3, 8, 1, pixels=pixels.tobytes())), pixels.reshape(2, 4, 3))
  wide = (pixels.astype(np.uint16) * 256 + 7).astype(">u2")
  np.testing.assert_array_equal(read_image(tiff(3, 16, 1, ">", wide.tobytes())), pixels.reshape(2, 4, 3))


@pytest.mark.parametrize("ending", ["avif", "jp2", "j2k", "webp", "jfif", "jpe", "apng", "pnm", "dib", "JPG"])
def test_files_with_any_known_ending_are_found_and_read(tmp_path: Path, ending: str) -> None:
  needed = {"avif": "AVIF", "jp2": "JPEG2000", "j2k": "JPEG2000"}.get(ending)
  if needed and needed not in image_formats._formats():
    pytest.skip(f"this Pillow has no {needed}")
  saved = {"jfif": "JPEG", "jpe": "JPEG", "apng": "PNG", "pnm": "PPM", "dib": "DIB"}.get(ending)
  write_image(tmp_path / "images" / f"a.{ending}", **({"format": saved} if saved else {}))
  write(tmp_path / "labels" / "a.txt", "0 .5 .5 .2 .4\n")
  yaml = write(tmp_path / "data.yaml", "names: [cat]\ntrain: images\n")
  dataset = open_spec(f"yolo:{yaml}:train")
  assert (dataset[0].width, dataset[0].height, len(dataset[0].classes)) == (100, 50, 1)
  (found,) = inputs.expand([tmp_path / "images"])
  assert read_image(found).shape == (50, 100, 3)
  assert len(open_spec(f"imagefolder:{tmp_path}", "skip")) == 1


@pytest.mark.usefixtures("old_pillow")
@pytest.mark.parametrize(
  ("data", "message"),
  [
    (CONTAINER % (b"avif", b"mif1", b"miaf"), r"is an AVIF file, which needs Pillow 11\.3 or newer"),
    (CONTAINER % (b"mif1", b"avif", b"miaf"), r"is an AVIF file"),
    (CONTAINER % (b"heic", b"mif1", b"heic"), r"is a HEIC file, which needs the package pi-heif or pillow-heif"),
    (CONTAINER % (b"mif1", b"mif1", b"heic"), r"is a HEIC file"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", r"is a JPEG 2000 file, and this Pillow was built without OpenJPEG"),
    (b"\xff\x4f\xff\x51\0", r"is a JPEG 2000 file"),
    (CONTAINER % (b"isom", b"isom", b"mp42"), r"is a video or another kind of MP4 container"),
    (b"\xff\x0a\xfa", r"is a JPEG XL file, which is not read\. Convert it to JPEG or PNG\."),
    (b"8BPS\0\1", r"is a Photoshop file"),
    (b"\x93NUMPY\1\0", r"is a NumPy file"),
    (b"GIF89", r"is truncated or damaged: its header makes no sense"),
    (b"hello", r"is not an image: it starts with b'hello'\. Expected JPEG, PNG"),
    (b"", r"is empty \(0 bytes\)"),
  ],
)
def test_what_is_missing_is_named(data: bytes, message: str, tmp_path: Path) -> None:
  with pytest.raises(ImageError, match=rf"image 'x' {message}"):
    read_image(data, name="x")
  (tmp_path / "x").write_bytes(data)
  for source in (data, tmp_path / "x"):
    with pytest.raises(DataError, match=rf"the file {message.removesuffix(chr(92) + '.')}"):
      image_size(source)


def test_heic_is_read_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
  class Heif(ImageFile.ImageFile):
    format = "HEIF"

    def _open(self) -> None:
      self._size, self._mode = (4, 2), "L"
      self.tile = [ImageFile._Tile("raw", (0, 0, 4, 2), 24, ("L", 0, 1))]

  plugin = types.ModuleType("pi_heif")
  plugin.register_heif_opener = lambda: Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")  # type: ignore[attr-defined]
  monkeypatch.setitem(sys.modules, "pi_heif", plugin)
  monkeypatch.setattr(Image, "OPEN", Image.OPEN.copy())
  monkeypatch.setattr(Image, "ID", Image.ID.copy())
  image_formats._formats.cache_clear()
  try:
    pixels = read_image(CONTAINER % (b"heic", b"mif1", b"heic") + bytes(range(8)))
  finally:
    image_formats._formats.cache_clear()
  np.testing.assert_array_equal(pixels[..., 0], np.arange(8).reshape(2, 4))


def test_an_avif_photo_is_turned_upright(tmp_path: Path) -> None:
  if "AVIF" not in image_formats._formats():
    pytest.skip("this Pillow has no AVIF")
  exif = Image.Exif()
  exif[0x0112] = 6
  path = write_image(tmp_path / "a.avif", exif=exif)
  assert read_image(path).shape == (100, 50, 3)
  assert image_size(path) == (50, 100)
