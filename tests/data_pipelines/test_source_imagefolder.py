"""A folder per class: what is read, and what can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from prn_jax.data_pipelines.records import DataError, notes_of
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image


def folder(tmp_path: Path) -> str:
  for name in ("dog/1.jpg", "dog/2.PNG", "cat/1.jpg"):
    write_image(tmp_path / name)
  write(tmp_path / "labels.csv", "a,b")
  write(tmp_path / "dog" / "readme.txt", "no image")
  return f"imagefolder:{tmp_path}"


def test_values(tmp_path: Path) -> None:
  dataset = open_spec(folder(tmp_path))
  assert dataset.names == ("cat", "dog")
  records = [dataset[index] for index in range(len(dataset))]
  assert [(record.image_id, record.label) for record in records] == [
    ("cat/1.jpg", 0),
    ("dog/1.jpg", 1),
    ("dog/2.PNG", 1),
  ]
  assert (records[0].width, records[0].height) == (100, 50)
  assert records[0].boxes_xyxy_px.shape == (0, 4)


def test_labels_follow_the_names_of_a_network(tmp_path: Path) -> None:
  dataset = open_spec(folder(tmp_path), names=["dog", "fox", "cat"])
  assert [dataset[index].label for index in range(len(dataset))] == [2, 0, 0]
  with pytest.raises(DataError, match="objects of class 'dog', not among the 1 given names"):
    open_spec(folder(tmp_path), names=["cat"])


def test_problems(tmp_path: Path) -> None:
  spec = folder(tmp_path)
  (tmp_path / "empty class").mkdir()
  write(tmp_path / "cat" / "empty.jpg", "")
  with pytest.raises(DataError, match=r"cat/empty\.jpg: the file is empty"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == ["unreadable image", "missing image"]
  assert "the class folder 'empty class' holds no images" in str(dataset.problems[1])
  assert dataset.names == ("cat", "dog", "empty class")


def test_wrong_folders(tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
    open_spec(f"imagefolder:{tmp_path / 'nowhere'}")
  write_image(tmp_path / "flat" / "1.jpg")
  with pytest.raises(DataError, match=r"flat has no class folders; expected .*flat/CLASS/\*\.jpg"):
    open_spec(f"imagefolder:{tmp_path / 'flat'}")


def test_real_imagenet(shared: Path) -> None:
  root = shared / "data" / "imagenet_sample"
  dataset = open_spec(f"imagefolder:{root}")
  assert len(dataset) == 750
  assert len(dataset.names) == 750
  # labels.csv gives Darknet's own number of every class; a list in that order is what a Darknet network needs.
  rows = [line.split(",") for line in (root / "labels.csv").read_text().splitlines()[1:]]
  darknet = {row[1]: int(row[3]) for row in rows}
  names = [f"class {number}" for number in range(1000)]
  for wnid, number in darknet.items():
    names[number] = wnid
  renamed = open_spec(f"imagefolder:{root}", names=names)
  assert all(renamed[index].label == darknet[str(renamed[index].image_id).split("/")[0]] for index in range(750))


def test_files_that_are_not_taken_for_images_are_counted(tmp_path: Path) -> None:
  spec = folder(tmp_path)
  for name in ("1.psd", "2.PSD", "3"):
    write(tmp_path / "cat" / name, "")
  write(tmp_path / "cat" / ".DS_Store", "")
  assert notes_of(open_spec(spec)) == (
    "files in the class folders that are not taken for images, by their ending: 2 .psd, 1 without, 1 .txt",
  )


def test_the_whole_disk_is_refused() -> None:
  with pytest.raises(DataError, match="'imagefolder:/' is the whole disk; expected a folder of class folders"):
    open_spec("imagefolder:/")
