"""VisDrone's text files: what is read, counted independently on a real file, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.sources.visdrone import NAMES
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image


def visdrone(root: Path, text: str, *more_images: str) -> str:
  for name in ("a", *more_images):
    write_image(root / "images" / f"{name}.jpg")
  write(root / "annotations" / "a.txt", text)
  return f"visdrone:{root}"


def test_values(tmp_path: Path) -> None:
  """A car, a truck that does not count, an ignored region, another object, and a region that reaches out."""
  text = "10,5,20,30,1,4,0,1,\n0,0,8,9,0,6,0,0\r\n40,10,20,20,0,0,0,0\n\n70,10,5,5,1,11,0,0\n90,40,30,30,0,0,0,0,"
  dataset = open_spec(visdrone(tmp_path, text))
  assert dataset.names == NAMES
  assert dataset.category_ids == tuple(range(1, 11))
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == ("a", 100, 50)
  assert record.boxes_xyxy_px.tolist() == [[10, 5, 30, 35], [0, 0, 8, 9]]
  assert [NAMES[index] for index in record.classes] == ["car", "truck"]
  assert record.is_crowd.tolist() == [False, True]
  assert record.ignored_xyxy_px.tolist() == [[40, 10, 60, 30], [70, 10, 75, 15], [90, 40, 100, 50]]


@pytest.mark.parametrize(
  ("line", "message", "kind"),
  [
    ("1,2,3,4,1,4,0", r"'1,2,3,4,1,4,0' is not left, top, width, height", "malformed"),
    ("1,2,x,4,1,4,0,0", r"'1,2,x,4,1,4,0,0' is not left, top", "malformed"),
    ("1,2,1_0,4,1,4,0,0", r"is not left, top", "malformed"),
    ("1,2,3,4,0.93,4,-1,-1", r"has score 0.93, expected 0 or 1: is it a result, not the truth\?", "malformed"),
    ("1,2,3,4,1,12,0,0", r"category 12 is none of 0 \(ignored region\), 1 to 10 and 11 \(others\)", "unknown class"),
    ("1,2,3,4,1,nan,0,0", r"category nan is none of", "unknown class"),
    ("1,2,0,4,1,4,0,0", r"box \[1, 2, 1, 6\] .* has size 0x4", "no size"),
    ("1,2,0,4,0,0,0,0", r"box \[1, 2, 1, 6\] .* has size 0x4", "no size"),
    ("1,2,nan,4,0,0,0,0", r"box .* is not finite", "not finite"),
    ("99,2,30,4,1,4,0,0", r"reaches 29 px outside its 100x50 image", "outside the image"),
    ("200,2,30,4,0,0,0,0", r"reaches 130 px outside its 100x50 image", "outside the image"),
  ],
)
def test_bad_lines_stop_or_are_left_out(tmp_path: Path, line: str, message: str, kind: str) -> None:
  spec = visdrone(tmp_path, f"10,5,20,30,1,4,0,1\n{line}\n")
  with pytest.raises(DataError, match=rf"a\.txt:2: .*{message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset[0].classes[0] == 3


def test_images_and_annotations_belong_together(tmp_path: Path) -> None:
  spec = visdrone(tmp_path, "", "b")
  with pytest.raises(DataError, match=r"b\.jpg: the image has no annotation file b\.txt"):
    open_spec(spec)
  write(tmp_path / "annotations" / "c.txt", "")
  (tmp_path / "annotations" / "d.txt").write_bytes(b"\xff\xfe\xfd")
  write_image(tmp_path / "images" / "d.jpg")
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == ["missing label", "missing image", "malformed"]
  assert len(dataset) == 1


def test_the_folder_above(tmp_path: Path) -> None:
  visdrone(tmp_path / "VisDrone2019-DET-val", "")
  with pytest.raises(DataError, match=r"is no split of VisDrone: expected .* Did you mean .*VisDrone2019-DET-val\?"):
    open_spec(f"visdrone:{tmp_path}")
  with pytest.raises(DataError, match="The test-challenge split has no annotations"):
    open_spec(f"visdrone:{tmp_path / 'nowhere'}")


def test_a_real_file(shared: Path) -> None:
  root = shared / "data" / "formats" / "visdrone"
  [file] = (root / "annotations").glob("*.txt")
  rows = np.loadtxt(file, delimiter=",", usecols=range(8), dtype=int)
  counts = Counter((int(score), int(category)) for score, category in rows[:, 4:6])
  dataset = open_spec(f"visdrone:{root}")
  record = dataset[0]
  found = Counter((0 if crowd else 1, int(k) + 1) for crowd, k in zip(record.is_crowd, record.classes, strict=True))
  assert found == Counter({key: n for key, n in counts.items() if 1 <= key[1] <= 10})
  assert len(record.ignored_xyxy_px) == sum(n for (_, category), n in counts.items() if category in (0, 11)) == 6
  inside = rows[(rows[:, 5] > 0) & (rows[:, 5] < 11)]
  expected = np.concatenate([inside[:, :2], inside[:, :2] + inside[:, 2:4]], 1)
  np.testing.assert_array_equal(record.boxes_xyxy_px, expected)
