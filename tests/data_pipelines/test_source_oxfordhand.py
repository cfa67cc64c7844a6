"""VGG's hands in MATLAB's files, which the tests write: the real ones are not at hand."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy.io import loadmat, savemat

from prn_jax.data_pipelines.reading.matlab import load_mat
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.files.values import Misfit
from tests.data_pipelines.pictures import write_image

Corners = list[tuple[float, float]]
HAND: Corners = [(5, 10), (5, 40), (25, 40), (25, 10)]  # row, column
TIPPED: Corners = [(-4.0, 60.5), (20, 80), (44, 60.5), (20, 41)]


def mat(*hands: Any, extra: bool = True, **options: Any) -> bytes:
  """A cell of structs with the fields a, b, c, d, and others between and behind as in some of the real files."""
  cells = np.empty((1, len(hands)), object)
  for number, corners in enumerate(hands):
    fields: dict[str, Any] = {name: np.array([corner]) for name, corner in zip("abcd", corners, strict=False)}
    if extra:
      fields = {
        "a": fields.pop("a"),
        "location": "left",
        "seen": np.array([[1.0]]),
        **fields,
        "e": np.array([[1.0, 2.0]]),
      }
    cells[0, number] = fields
  buffer = io.BytesIO()
  savemat(buffer, {"boxes": cells}, **options)
  return buffer.getvalue()


def hands(root: Path, content: bytes, split: str = "training", name: str = "a") -> str:
  folder = root / f"{split}_dataset" / f"{split}_data"
  write_image(folder / "images" / f"{name}.jpg")
  (folder / "annotations").mkdir(exist_ok=True)
  (folder / "annotations" / f"{name}.mat").write_bytes(content)
  return f"oxfordhand:{root}:{split}"


@pytest.mark.parametrize("options", [{}, {"extra": False}, {"do_compression": True}, {"format": "5"}])
def test_values(tmp_path: Path, options: dict[str, Any]) -> None:
  """Rows are y; the rectangle around a turned box is clipped to the image of 100 x 50, its outline is not."""
  dataset = open_spec(hands(tmp_path, mat(HAND, TIPPED, **options)), keep_polygons=True)
  assert dataset.names == ("hand",)
  assert dataset[0].boxes_xyxy_px.tolist() == [[10, 5, 40, 25], [41, 0, 80, 44]]
  rings = [ring.tolist() for rings in dataset[0].polygons_px or () for ring in rings]
  assert rings == [[[x, y] for y, x in corners] for corners in (HAND, TIPPED)]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_as_many_hands_as_the_file_holds(tmp_path: Path, number: int) -> None:
  content = mat(*[HAND] * number)
  assert len(loadmat(io.BytesIO(content))["boxes"][0]) == number
  assert len(open_spec(hands(tmp_path, content))[0].classes) == number


def test_splits(tmp_path: Path) -> None:
  hands(tmp_path, mat(HAND), "validation")
  hands(tmp_path, mat(HAND, HAND), "validation", "b")
  spec = hands(tmp_path, mat(HAND))
  whole = open_spec(spec.replace(":training", ":trainval"))
  ids = [whole[i].image_id for i in range(3)]
  assert ids[2] == "b"
  folders = [f"{split}_data/images/a.jpg" for split in ("training", "validation")]
  assert all(str(one).endswith(folder) for one, folder in zip(ids, folders, strict=False))
  assert len({*ids}) == 3
  with pytest.raises(
    DataError, match=r"no split 'train' \(did you mean 'trainval'\?\); it has training, validation, test"
  ):
    open_spec(f"oxfordhand:{tmp_path}:train")
  with pytest.raises(DataError, match=r"is no root of VGG's hands \(hand_dataset\): there is no folder .*test_data"):
    open_spec(f"oxfordhand:{tmp_path}:test")


@pytest.mark.parametrize(
  ("content", "message", "kind"),
  [
    (b"MATLAB", r"it is no MATLAB file of version 5 to 7", "malformed"),
    (mat(HAND)[:300], r"it is a damaged MATLAB file: it ends too early", "malformed"),
    (mat(HAND[:3], extra=False), r"it holds a hand with 3 corners; expected four of two numbers", "malformed"),
    (mat([(1, 2, 3)] * 4), r"it holds a hand with 1 corners", "malformed"),
    (b"x" * 1_100_000, r"it holds more than 1,048,576 bytes", "malformed"),
    (mat([(5, 5)] * 4), r"hand 1: box .* has size 0x0", "no size"),
    (mat([(5, np.nan)] * 4), r"hand 1: box .* is not finite", "not finite"),
    (mat([(y, x + 200) for y, x in HAND]), r"hand 1: box .* reaches 140 px outside", "outside the image"),
  ],
)
def test_bad_files_stop_or_are_left_out(tmp_path: Path, content: bytes, message: str, kind: str) -> None:
  hands(tmp_path, mat(HAND), name="b")
  spec = hands(tmp_path, content)
  with pytest.raises(DataError, match=rf"a\.mat: {message}"):
    open_spec(spec)
  assert [problem.kind for problem in open_spec(spec, "skip").problems] == [kind]


def test_files_of_something_else(tmp_path: Path) -> None:
  buffer = io.BytesIO()
  savemat(buffer, {"other": 3, "more": 4})
  with pytest.raises(DataError, match=r"a\.mat: it holds no cell 'boxes', but 'other', 'more'"):
    open_spec(hands(tmp_path, buffer.getvalue()))
  with pytest.raises(DataError, match=r"a\.mat: it is a MATLAB file of version 7\.3; save it with -v7"):
    open_spec(hands(tmp_path, b"MATLAB 7.3 MAT-file, Platform: GLNXA64"))


def test_images_without_annotations(tmp_path: Path) -> None:
  spec = hands(tmp_path, mat(HAND))
  write_image(tmp_path / "training_dataset" / "training_data" / "images" / "c.jpg")
  with pytest.raises(DataError, match=r"c\.jpg: the image has no annotation file c\.mat"):
    open_spec(spec)


# -- MATLAB's files ----------------------------------------------------------------------------------------------------
def plain(value: Any) -> Any:
  """What SciPy read, in the form of `load_mat`."""
  if value.dtype.names:
    return [{name: plain(one[name]) for name in value.dtype.names} for one in value.ravel(order="F")]
  if value.dtype == object:
    return [plain(one) for one in value.ravel(order="F")]
  if value.dtype.kind == "U":
    return value.tolist() if value.size > 1 else "".join(value.ravel())
  return value if value.dtype.kind in "fiu" else None


def cell(values: list[Any]) -> np.ndarray:
  cells = np.empty((len(values), 1), object)
  for number, value in enumerate(values):
    cells[number, 0] = value
  return cells


NUMBERS = st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]).flatmap(
  lambda kind: st_numpy.arrays(kind, st_numpy.array_shapes(min_dims=2, max_dims=3, max_side=4))
)
NAMES = st.text("abcdefgh", min_size=1, max_size=9)
CELLS = st.recursive(
  NUMBERS
  | st.text("xyzä漢", max_size=4)
  | st.lists(st.text("xyz", min_size=3, max_size=3), min_size=2, max_size=3).map(np.array),
  lambda inner: (
    st.dictionaries(NAMES, inner, min_size=1, max_size=3) | st.lists(inner, min_size=1, max_size=3).map(cell)
  ),
  max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, CELLS, min_size=1, max_size=3), st.booleans())
def test_matlab_files_are_read_as_scipy_reads_them(variables: dict[str, Any], compressed: bool) -> None:
  buffer = io.BytesIO()
  savemat(buffer, variables, do_compression=compressed)
  expected = {name: plain(value) for name, value in loadmat(buffer).items() if not name.startswith("__")}
  found = load_mat(buffer.getvalue())
  assert found.keys() == expected.keys()
  same(found, expected)


def same(found: Any, expected: Any) -> None:
  if isinstance(expected, dict):
    assert list(found) == list(expected)
    for key, value in expected.items():
      same(found[key], value)
  elif isinstance(expected, list):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
      same(one, other)
  elif expected is None or isinstance(expected, str):
    assert found == expected
  else:
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape


def test_a_matlab_file_that_unpacks_to_too_much() -> None:
  buffer = io.BytesIO()
  savemat(buffer, {"a": np.zeros((3000, 1000))}, do_compression=True)
  with pytest.raises(Misfit, match="unpacks to more than 16,777,216 bytes"):
    load_mat(buffer.getvalue())


def letters(kind: int, content: bytes, rows: int, columns: int) -> bytes:
  """A file with one matrix of text in an encoding that SciPy does not write."""

  def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

  head = [(6, struct.pack("<II", 4, 0)), (5, struct.pack("<ii", rows, columns)), (1, b"t"), (kind, content)]
  return b" " * 124 + struct.pack("<H", 0x100) + b"IM" + element(14, b"".join(element(*one) for one in head))


@pytest.mark.parametrize(
  ("kind", "encoding"), [(2, "latin-1"), (4, "utf-16-le"), (16, "utf-8"), (17, "utf-16-le"), (18, "utf-32-le")]
)
def test_encodings_of_matlab_text(kind: int, encoding: str) -> None:
  assert load_mat(letters(kind, "naïf".encode(encoding), 1, 4)) == {"t": "naïf"}
  assert load_mat(letters(kind, "acbd".encode(encoding), 2, 2)) == {"t": ["ab", "cd"]}


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (letters(9, b"12345678", 1, 1), "type 9 is none of text"),
    (letters(16, b"abc", 2, 2), "3 letters of 2x2"),
    (letters(16, b"\xff\xff", 1, 2), "is a damaged MATLAB file"),
  ],
)
def test_damaged_matlab_text(data: bytes, message: str) -> None:
  with pytest.raises(Misfit, match=message):
    load_mat(data)
