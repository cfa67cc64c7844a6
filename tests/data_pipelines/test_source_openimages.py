"""Open Images' CSV files: what is read, counted independently, and what is refused."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, notes_of
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = '/m/0k4j,Car\n/m/01yrx,Cat\n/m/02w3r3,"Paper, towel"\n'


def row(
  image: str = "a", label: str = "/m/0k4j", box: str = "0.1,0.3,0.2,0.6", group: object = 0, drawn: int = 0
) -> str:
  return f"{image},xclick,{label},1,{box},0,0,{group},{drawn},0"


def openimages(root: Path, *rows: str, head: str = HEAD, classes: str = CLASSES) -> str:
  write_image(root / "images" / "train_0" / "a.jpg")
  write(root / "classes.csv", classes)
  write(root / "boxes.csv", "\n".join((head, *rows)) + "\n")
  return f"openimages:{root / 'boxes.csv'}:{root / 'classes.csv'}:{root / 'images'}"


def test_values(tmp_path: Path) -> None:
  """Columns are XMin, XMax, YMin, YMax; groups are crowds, drawings are objects, and -1 says that it is not known."""
  rows = (row(), row(label="/m/02w3r3", box="0,1,0,1", group=1), row(group=-1, drawn=1))
  dataset = open_spec(openimages(tmp_path, *rows))
  assert dataset.names == ("Car", "Cat", "Paper, towel")
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == ("a", 100, 50)
  np.testing.assert_allclose(record.boxes_xyxy_px, [[10, 10, 30, 30], [0, 0, 100, 50], [10, 10, 30, 30]], rtol=1e-6)
  assert record.classes.tolist() == [0, 2, 0]
  assert record.is_crowd.tolist() == [False, True, False]


def test_columns_in_another_order_and_a_head_of_classes(tmp_path: Path) -> None:
  spec = openimages(
    tmp_path,
    "0.2,0.1,0.6,0.3,/m/01yrx,a",
    head="YMin,XMin,YMax,XMax,LabelName,ImageID",
    classes=f"LabelName,DisplayName\n{CLASSES}",
  )
  dataset = open_spec(spec)
  assert dataset.names == ("Car", "Cat", "Paper, towel")
  np.testing.assert_allclose(dataset[0].boxes_xyxy_px, [[10, 10, 30, 30]], rtol=1e-6)


def test_images_of_one_side_only_are_not_used(tmp_path: Path) -> None:
  write_image(tmp_path / "images" / "c.jpg")
  dataset = open_spec(openimages(tmp_path, row(), row("b"), row("b")))
  assert [dataset[i].image_id for i in range(len(dataset))] == ["a"]
  first, second = notes_of(dataset)
  assert first == f"2 rows of 1 images that are not in {tmp_path / 'images'} are not used"
  assert second == "1 images without a row are not used, as c: they need not be without objects"
  with pytest.raises(
    DataError, match=r"none of the 1 images in .*boxes\.csv is among the 2 in .* expected e\.g\. .*b\.jpg"
  ):
    open_spec(openimages(tmp_path, row("b")))


@pytest.mark.parametrize(
  ("bad", "message", "kind"),
  [
    (row(label="/m/0"), r"LabelName '/m/0' is not among the classes", "unknown class"),
    (row(box="x,0.3,0.2,0.6"), r"XMin is 'x'; expected a finite number", "malformed"),
    (row(box="0.1,nan,0.2,0.6"), r"XMax is 'nan'; expected a finite number", "malformed"),
    (row(box="10,30,20,60"), r"XMin 10, YMin 20, XMax 30, YMax 60 look like pixels", "malformed"),
    (row(box="0.3,0.1,0.2,0.6"), r"box .* has size -20x20", "no size"),
    (row(box="0.9,1.3,0.2,0.6"), r"box .* reaches 30 px outside", "outside the image"),
    ("a,xclick,/m/0k4j,1,0.1", r"the row has 5 fields; expected 13", "malformed"),
  ],
)
def test_bad_rows_stop_or_are_left_out(tmp_path: Path, bad: str, message: str, kind: str) -> None:
  spec = openimages(tmp_path, row(), bad)
  with pytest.raises(DataError, match=rf"boxes\.csv:3: {message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset[0].classes[0] == 0


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    ("", r"classes\.csv holds no classes; expected a label and its name"),
    ("/m/0k4j\n", r"classes\.csv:1: '/m/0k4j' is no label and name, as '/m/0k4j,Car'"),
    ("/m/0k4j,Car\n/m/0k4j,Cat\n", r"classes\.csv:2: the label '/m/0k4j' is there already"),
    ("/m/0k4j,Car\n/m/1,Car\n", r"classes\.csv:2: the labels /m/0k4j and /m/1 are both called 'Car'"),
  ],
)
def test_bad_classes(tmp_path: Path, classes: str, message: str) -> None:
  with pytest.raises(DataError, match=message):
    open_spec(openimages(tmp_path, row(), classes=classes))


def test_labels_of_one_name_count_as_one_class(tmp_path: Path) -> None:
  spec = openimages(tmp_path, row(), row(label="/m/1"), row(label="/m/2"), classes="/m/0k4j,Car\n/m/2,Cat\n/m/1,Car\n")
  dataset = open_spec(spec, "skip")
  assert dataset.names == ("Car", "Cat")
  assert dataset[0].classes.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
  ("head", "message"),
  [
    (row(), r"boxes\.csv:1 has no column ImageID; expected a head line with ImageID, LabelName"),
    (HEAD.replace("XMin", "Xmin"), r"boxes\.csv:1 has no column XMin; expected .*, found 'ImageID,Source,"),
  ],
)
def test_without_its_head_a_file_is_refused(tmp_path: Path, head: str, message: str) -> None:
  with pytest.raises(DataError, match=message):
    open_spec(openimages(tmp_path, row(), head=head))


def test_real_boxes_written_as_open_images_has_them(shared: Path, tmp_path: Path) -> None:
  """Real images and boxes (which came as COCO's JSON), counted in the CSV by another reader."""
  folder = shared / "data" / "vehicles_openimages"
  content = json.loads((folder / "derived" / "coco_test.json").read_text())
  names = {one["id"]: one["name"] for one in content["categories"]}
  images = {one["id"]: one for one in content["images"]}
  rows = []
  for number, one in enumerate(content["annotations"]):
    image, (x, y, w, h) = images[one["image_id"]], one["bbox"]
    x1, x2, y1, y2 = x / image["width"], (x + w) / image["width"], y / image["height"], (y + h) / image["height"]
    stem = Path(image["file_name"]).stem
    rows.append(row(stem, f"/m/{one['category_id']}", f"{x1:.6f},{x2:.6f},{y1:.6f},{y2:.6f}", int(number % 7 == 0)))
  classes = "".join(f"/m/{number},{name}\n" for number, name in names.items())
  spec = openimages(tmp_path, *rows, classes=classes).rpartition(":")[0] + f":{folder / 'test' / 'images'}"
  dataset = open_spec(spec)
  with (tmp_path / "boxes.csv").open() as file:
    counted = Counter((names[int(one["LabelName"][3:])], one["IsGroupOf"]) for one in csv.DictReader(file))
  found = Counter(
    (dataset.names[index], str(int(crowd)))
    for i in range(len(dataset))
    for index, crowd in zip(dataset[i].classes, dataset[i].is_crowd, strict=True)
  )
  assert found == counted
  original = {Path(images[key]["file_name"]).stem: [] for key in images}
  for one in content["annotations"]:
    x, y, w, h = one["bbox"]
    original[Path(images[one["image_id"]]["file_name"]).stem].append([x, y, x + w, y + h])
  for i in range(len(dataset)):
    np.testing.assert_allclose(dataset[i].boxes_xyxy_px, original[str(dataset[i].image_id)], atol=1e-3)
