"""Decoding of any picture that users have, and resizing equal to Darknet's to the bit."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prn_jax.data_pipelines.image_sizes import _plain_jpeg_size, image_size
from prn_jax.data_pipelines.images import (
  ImageError,
  Placement,
  letterbox,
  read_image,
  resize_bilinear,
  resize_min_center_crop,
  stretch,
  to_float,
)
from prn_jax.data_pipelines.images.orientation import is_turned

RNG = np.random.default_rng(0)
PHOTO = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 10, 3), np.uint8)).resize((80, 48)))


def encoded(image: np.ndarray | Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
  buffer = io.BytesIO()
  (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, fmt, **options)
  return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
  """A PNG that claims a size and holds no pixels."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_sizes_from_headers_of_jpegs_are_pillows(data: st.DataObject) -> None:
  """What is read without Pillow is what Pillow reads, whatever the bytes; what it would refuse is left to it."""
  options = data.draw(
    st.sampled_from([{}, {"progressive": True}, {"comment": b"x"}, {"exif": turned_exif()}, {"quality": 99}])
  )
  file = bytearray(encoded(data.draw(st.sampled_from([PHOTO, PHOTO[..., 0]])), "JPEG", **options))
  for place, byte in data.draw(st.lists(st.tuples(st.integers(2, 700), st.integers(0, 255)), max_size=3)):
    file[place] = byte
  del file[data.draw(st.sampled_from([len(file), 300, 20])) :]
  found = _plain_jpeg_size(bytes(file))
  if found is not None:
    with Image.open(io.BytesIO(file)) as image:
      assert (image.format, image.size) == ("JPEG", found)
      assert not is_turned(image)


def test_the_usual_jpeg_needs_no_pillow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
  monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("asked Pillow"))
  (tmp_path / "a.jpg").write_bytes(encoded(PHOTO, "JPEG"))
  assert image_size(tmp_path / "a.jpg") == image_size(encoded(PHOTO, "JPEG")) == (80, 48)


def turned_exif() -> Image.Exif:
  exif = Image.Exif()
  exif[0x0112] = 6
  return exif


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("fmt", "options"),
  [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("PPM", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {"compression": "tiff_lzw"}),
  ],
)
def test_lossless_formats_give_the_pixels_back(fmt: str, options: dict[str, Any], tmp_path: Path) -> None:
  file = tmp_path / "photo.any"  # the suffix does not matter
  file.write_bytes(encoded(PHOTO, fmt, **options))
  image = read_image(file)
  assert image.dtype == np.uint8
  assert image.flags.writeable
  np.testing.assert_array_equal(image, PHOTO)
  np.testing.assert_array_equal(read_image(str(file)), read_image(file.read_bytes()))


@pytest.mark.parametrize(("fmt", "options"), [("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("WEBP", {})])
def test_lossy_formats_come_close(fmt: str, options: dict[str, Any]) -> None:
  assert np.abs(read_image(encoded(PHOTO, fmt, **options)).astype(int) - PHOTO).mean() < 8


def test_first_frame_of_an_animation() -> None:
  frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
  for fmt in ("GIF", "WEBP", "TIFF"):
    image = read_image(encoded(frames[0], fmt, save_all=True, append_images=frames[1:], lossless=True))
    assert image.shape == (3, 4, 3)
    assert image[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(fmt: str, orientation: int) -> None:
  """The corner of the stored picture that an upright viewer shows at the top left, by the EXIF standard."""
  stored = np.zeros((16, 32, 3), np.uint8)
  corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}
  row, column = corners[orientation]
  stored[slice(0, 8) if row == 0 else slice(8, 16), slice(0, 16) if column == 0 else slice(16, 32)] = 255
  exif = Image.Exif()
  exif[0x0112] = orientation
  image = read_image(encoded(stored, fmt, exif=exif, quality=95))
  assert image.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
  assert image[2, 2].min() > 240
  assert max(image[-3, -3].max(), image[2, -3].max(), image[-3, 2].max()) < 15


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unknown_orientation_and_damaged_exif_are_ignored() -> None:
  exif = Image.Exif()
  exif[0x0112] = 99
  assert read_image(encoded(PHOTO, "JPEG", exif=exif)).shape == PHOTO.shape
  assert read_image(encoded(PHOTO, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).shape == PHOTO.shape


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
  white = {"1": 1, "L": 255, "CMYK": (0, 0, 0, 0), "LA": (255, 255), "RGBA": (255, 255, 255, 255), "I;16": 65535}
  picture = Image.new(mode, (5, 4), white.get(mode, 0))
  if mode == "P":
    picture.putpalette([255, 255, 255])
  image = read_image(encoded(picture, "TIFF" if mode == "CMYK" else "PNG"))
  assert image.shape == (4, 5, 3)
  assert (image == 255).all()


def test_16_bit_grey_keeps_the_upper_8() -> None:
  values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
  for fmt in ("PNG", "TIFF"):
    np.testing.assert_array_equal(
      read_image(encoded(values, fmt)), (values >> 8).astype(np.uint8)[..., None].repeat(3, 2)
    )


def test_transparent_pixels_lie_over_white() -> None:
  """Half-transparent black over white is (1 - 128/255) * 255 = 127."""
  rgba = np.array([[[9, 9, 9, 0], [9, 9, 9, 255], [0, 0, 0, 128]]], np.uint8)
  assert read_image(encoded(rgba))[0].tolist() == [[255] * 3, [9] * 3, [127] * 3]
  palette = Image.new("P", (2, 1))
  palette.putpalette([10, 20, 30, 200, 100, 50])
  palette.putpixel((1, 0), 1)
  assert read_image(encoded(palette, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20000, 50), (50, 20000)])
def test_extreme_sizes(width: int, height: int) -> None:
  image = read_image(encoded(np.full((height, width, 3), 200, np.uint8)))
  assert image.shape == (height, width, 3)
  for resize in (stretch, letterbox, resize_min_center_crop):
    x, placement = resize(image, 416, 416)
    assert x.shape == (416, 416, 3)
    assert (placement.image_width, placement.image_height) == (width, height)
    assert np.isfinite(placement.to_image_xyxy_px(np.full((1, 4), 0.5, np.float32))).all()


# -- bad files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", r"image 'x.jpg' is empty \(0 bytes\)"),
    (b"hello, this is text", r"image 'x.jpg' is not an image: it starts with b'hello, this is t'. Expected JPEG"),
    (b"<html><body>404</body>", r"is not an image: it starts with b'<html>"),
    (b"\xff\xd8\xff\xe0\x00\x10JF", r"'x.jpg' is truncated or damaged: Truncated File Read. Copy or download it again"),
    (png_header(0, 5), r"truncated or damaged: its header makes no sense"),
    (png_header(60000, 60000), r"is too large: .*3600000000 pixels.* At most 89,478,485 pixels are decoded"),
    (encoded(Image.new("F", (2, 2)), "TIFF"), r"32-bit float values, whose range is unknown"),
    (encoded(Image.new("I", (2, 2), 70000), "TIFF"), r"32-bit values from 70000 to 70000, whose range is unknown"),
  ],
)
def test_bad_files_are_named_with_the_cause(data: bytes, message: str, tmp_path: Path) -> None:
  with pytest.raises(ImageError, match=message):
    read_image(data, name="x.jpg")
  (tmp_path / "x.jpg").write_bytes(data)
  with pytest.raises(ImageError, match=r"x\.jpg"):
    read_image(tmp_path / "x.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_limit_of_pixels() -> None:
  with pytest.raises(ImageError, match=r"has 9460x9459 = 89,482,140 pixels; at most 89,478,485"):
    read_image(png_header(9460, 9459))


def test_missing_file_and_folder(tmp_path: Path) -> None:
  with pytest.raises(ImageError, match=r"image '.*no\.jpg' does not exist"):
    read_image(tmp_path / "no.jpg")
  with pytest.raises(ImageError, match="is a folder; expected an image file"):
    read_image(tmp_path)
  with pytest.raises(ImageError, match="cannot be read"):
    read_image("a\0b.jpg")


CODED = {
  "jpeg": encoded(PHOTO, "JPEG"),
  "progressive": encoded(PHOTO, "JPEG", progressive=True),
  "restarts": encoded(PHOTO, "JPEG", restart_marker_blocks=2),
  "png": encoded(PHOTO, "PNG"),
  "webp": encoded(PHOTO, "WEBP"),
  "bmp": encoded(PHOTO, "BMP"),
  "gif": encoded(PHOTO, "GIF"),
  "tiff": encoded(PHOTO, "TIFF"),
}


@pytest.mark.parametrize("name", CODED)
def test_a_cut_file_is_never_taken(name: str) -> None:
  data = CODED[name]
  read_image(data)
  last = len(data) - {"png": 5, "gif": 3}.get(name, 1)  # PNG's last checksum and GIF's end mark hold no picture
  for length in [*range(1, last, max(1, len(data) // 150)), last]:
    with pytest.raises(ImageError, match=r"truncated|damaged|not an image"):
      read_image(data[:length])


@pytest.mark.parametrize("name", ["jpeg", "progressive", "restarts", "png"])
def test_a_tail_of_zeros_is_noticed(name: str) -> None:
  """Decoders fill such pictures with grey or black and say nothing."""
  data = CODED[name]
  for length in range(1, len(data) - 1, max(1, len(data) // 150)):
    with pytest.raises(ImageError):
      read_image(data[:length] + bytes(len(data) - length))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["jpeg", "progressive", "png", "bmp", "gif", "webp"]), st.data())
def test_damage_gives_a_picture_or_an_image_error(name: str, data: st.DataObject) -> None:
  damaged = bytearray(CODED[name])
  for _ in range(4):
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
  try:
    image = read_image(bytes(damaged))
  except ImageError:
    return
  assert image.ndim == 3
  assert image.dtype == np.uint8


def test_end_mark_behind_junk_and_thumbnail() -> None:
  """Junk between segments is legal for decoders; the end mark of a thumbnail must not count."""
  data = CODED["jpeg"]
  assert read_image(data[:20] + b"\0\0junk" + data[20:]).shape == PHOTO.shape
  thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data
  whole = data[:2] + thumbnail + data[2:]
  assert read_image(whole).shape == PHOTO.shape
  for missing in range(2, 500, 7):
    with pytest.raises(ImageError, match="truncated"):
      read_image(whole[:-missing] + bytes(missing))


# -- resizing ----------------------------------------------------------------------------------------------------------


def test_to_float_is_the_byte_over_255() -> None:
  values = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(to_float(values), (values / 255.0).astype(np.float32))


def dog(shared: Path) -> np.ndarray:
  return np.load(shared / "golden/preprocess/dog_decoded_uint8_chw.npy").transpose(1, 2, 0)


@pytest.mark.parametrize(("name", "resize"), [("stretch", stretch), ("letterbox", letterbox)])
def test_dog_is_darknets_to_the_bit(shared: Path, name: str, resize: Any) -> None:
  expected = np.load(shared / f"golden/preprocess/dog_{name}_416.npy").transpose(1, 2, 0)
  np.testing.assert_array_equal(resize(dog(shared), 416, 416)[0], expected)
  np.testing.assert_array_equal(resize(to_float(dog(shared)), 416, 416)[0], expected)


def test_classifier_crop_is_darknets(shared: Path) -> None:
  expected = np.load(shared / "golden/preprocess/dog_resizemin_centercrop_224.npy").transpose(1, 2, 0)
  ours, placement = resize_min_center_crop(dog(shared), 224, 224)
  np.testing.assert_array_equal(ours.astype(np.float16), expected)
  assert placement == Placement(768, 576, 224, 224, 298 / 224, 1.0, -37 / 224, 0.0)


@pytest.mark.parametrize("k", range(6))
def test_synthetic_resizes_are_darknets_to_the_bit(shared: Path, k: int) -> None:
  arrays = np.load(shared / "golden/preprocess/synthetic.npz")
  expected = arrays[f"resize{k}_out"].transpose(1, 2, 0)
  image = np.ascontiguousarray(arrays[f"resize{k}_in"].transpose(1, 2, 0))
  np.testing.assert_array_equal(resize_bilinear(image, expected.shape[1], expected.shape[0]), expected)


def resize_by_loops(image: np.ndarray, w: int, h: int) -> np.ndarray:
  """Darknet's `resize_image`, value by value, in float32."""
  f = np.float32
  height, width, channels = image.shape
  if (width, height) == (w, h):
    return image.copy()
  sx, sy = f(width - 1) / f(w - 1), f(height - 1) / f(h - 1)
  part, out = np.zeros((height, w, channels), f), np.zeros((h, w, channels), f)
  for r in range(height):
    for c in range(w):
      if c == w - 1 or width == 1:
        part[r, c] = image[r, width - 1]
      else:
        x = f(c) * sx
        dx = x - f(int(x))
        part[r, c] = (f(1) - dx) * image[r, int(x)] + dx * image[r, int(x) + 1]
  for r in range(h):
    y = f(r) * sy
    dy = y - f(int(y))
    out[r] = (f(1) - dy) * part[int(y)]
    if r < h - 1 and height > 1:
      out[r] += dy * part[int(y) + 1]
  return out


@settings(max_examples=60, deadline=None)
@given(*[st.integers(low, 40) for low in (1, 1, 2, 2)], st.sampled_from([1, 3, 4]))
def test_resize_equals_loops(width: int, height: int, w: int, h: int, channels: int) -> None:
  image = np.random.default_rng(width * 41 + height).random((height, width, channels), np.float32)
  np.testing.assert_array_equal(resize_bilinear(image, w, h), resize_by_loops(image, w, h))


def test_darknets_dark_last_row() -> None:
  """(31 - 1) / (416 - 1) rounds down, so the last row falls short of row 30 and Darknet fades it to nothing."""
  image = np.ones((31, 4, 1), np.float32)
  ours = resize_bilinear(image, 4, 416)
  np.testing.assert_array_equal(ours, resize_by_loops(image, 4, 416))
  assert ours[-1].max() < 1e-5
  assert ours[:-1].min() > 0.999


def test_one_pixel_of_output() -> None:
  image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
  assert resize_bilinear(image, 1, 1).tolist() == [[[3.0]]]  # the last column of the first row


def test_letterbox_of_an_odd_margin() -> None:
  """100x51 in 20x20: 20x10 inside, rows 5 to 14; 100x75: 20x15, rows 2 to 16, and c8 takes the margin as 2.5."""
  x, placement = letterbox(np.zeros((51, 100, 3), np.uint8), 20, 20)
  assert np.flatnonzero((x == 0).all((1, 2))).tolist() == list(range(5, 15))
  assert (x[[0, 4, 15, 19]] == 0.5).all()
  x, placement = letterbox(np.zeros((75, 100, 3), np.uint8), 20, 20)
  assert np.flatnonzero((x == 0).all((1, 2))).tolist() == list(range(2, 17))
  assert placement == Placement(100, 75, 20, 20, 1.0, 0.75, 0.0, 0.125)


def test_crop_larger_than_the_image_repeats_the_border() -> None:
  image = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
  x, placement = resize_min_center_crop(image, 2, 5)  # C truncates (2 - 5) / 2 to -1
  assert x[..., 0].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3], [2, 3]]
  assert (placement.scale_y, placement.offset_y) == (2 / 5, 1 / 5)


@given(
  st.sampled_from([stretch, letterbox, resize_min_center_crop]), *[st.integers(1, 300)] * 2, *[st.integers(8, 64)] * 2
)
@settings(max_examples=60, deadline=None)
def test_placement_maps_there_and_back(resize: Any, width: int, height: int, w: int, h: int) -> None:
  placement = resize(np.zeros((height, width, 3), np.uint8), w, h)[1]
  boxes = np.array([[0.5, 0.5, 1, 1], [0.2, 0.7, 0.1, 0.3]], np.float32)
  np.testing.assert_allclose(placement.to_image_cxcywh_rel(placement.to_net_cxcywh_rel(boxes)), boxes, atol=1e-4)
  whole = placement.to_net_cxcywh_rel(boxes[:1])
  np.testing.assert_allclose(placement.to_image_xyxy_px(whole)[0], [0, 0, width, height], atol=0.1)


def test_placement_of_a_dot() -> None:
  """A white square of the picture is where the placement says it is in the network input."""
  image = np.zeros((300, 400, 3), np.uint8)
  image[90:120, 100:150] = 255
  for resize in (stretch, letterbox, resize_min_center_crop):
    x, placement = resize(image, 200, 200)
    rows, columns = np.nonzero(x[..., 0] > 0.75)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 200
    seen = np.array(
      [(seen[0] + seen[2]) / 2, (seen[1] + seen[3]) / 2, seen[2] - seen[0], seen[3] - seen[1]], np.float32
    )
    np.testing.assert_allclose(placement.to_image_xyxy_px(seen[None])[0], [100, 90, 150, 120], atol=2)


@pytest.mark.parametrize(
  ("image", "size", "message"),
  [
    (np.zeros((4, 4), np.uint8), (2, 2), r"uint8 of shape \(4, 4\); expected uint8 or float32"),
    (np.zeros((4, 4, 3)), (2, 2), "image is float64 of shape"),
    (np.zeros((0, 4, 3), np.uint8), (2, 2), r"shape \(0, 4, 3\)"),
    (np.zeros((4, 4, 3), np.uint8), (0, 2), "cannot resize to 0x2; expected at least 1x1"),
  ],
)
def test_resize_refuses(image: np.ndarray, size: tuple[int, int], message: str) -> None:
  for resize in (resize_bilinear, stretch, letterbox, resize_min_center_crop):
    with pytest.raises(ValueError, match=message):
      resize(image, *size)
