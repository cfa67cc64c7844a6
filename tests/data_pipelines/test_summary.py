"""Figures of a data set by hand, what is worth a look, and the pictures of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.doctor.report import charts, choose_samples, sample_sheet, text, write_pictures
from prn_jax.data_pipelines.doctor.summary import Summary, summarize
from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image


def coco(tmp_path: Path, boxes: dict[int, list[dict[str, Any]]], copies: int = 0) -> str:
  """Images of 200 x 100, each another grey, but the last `copies` like the first."""
  images, annotations = [], []
  for number, objects in boxes.items():
    shade = 0 if number > len(boxes) - copies else number
    path = tmp_path / "images" / f"{number}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (200, 100), (shade, shade, shade) if shade else (1, 1, 1)).save(path)
    images.append({"id": number, "file_name": f"{number}.png", "width": 200, "height": 100})
    for item in objects:
      entry = {"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 40, 20]}
      annotations.append(entry | item)
  categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "cow"}]
  content = {"images": images, "annotations": annotations, "categories": categories}
  return f"coco:{write(tmp_path / 'a.json', json.dumps(content))}:{tmp_path / 'images'}"


def look(spec: str, **options: Any) -> Summary:
  return summarize(open_spec(spec, "skip"), spec, **options)


BOXES: dict[int, list[dict[str, Any]]] = {
  1: [{"area": 1000}, {"bbox": [0, 0, 200, 100], "category_id": 2, "area": 10000}, {"iscrowd": 1, "area": 1024}],
  2: [{}] * 12,
  3: [],
  4: [{"bbox": [5, 5, 3, 30]}],
}


def test_figures_by_hand(tmp_path: Path) -> None:
  summary = look(coco(tmp_path, BOXES, copies=0))
  assert not summary.is_classification
  assert summary.objects_per_class.tolist() == [15, 1, 0]
  assert summary.images_per_class.tolist() == [3, 1, 0]
  assert summary.objects_per_image.tolist() == [3, 12, 0, 1]
  # Areas 1000, 800 (12 times) and 90 are small, 1024 = 32^2 is medium, 10000 is large (96^2 = 9216).
  assert summary.coco_sizes == {"small": 14, "medium": 1, "large": 1}
  assert summary.sides_rel[1] == 1
  assert summary.sides_rel[0] == pytest.approx((40 * 20 / 200 / 100) ** 0.5)
  assert summary.aspects[[0, 15]].tolist() == [2, 0.1]
  values = summary.to_json()
  assert (values["images"], values["objects"], values["crowd"], values["images_without_objects"]) == (4, 16, 1, 1)
  assert values["classes"][1] == {"name": "cat", "category_id": 2, "objects": 1, "images": 1}
  assert values["image_sizes"] == [[200, 100, 4]]
  assert values["objects_per_image"]["mean"] == 4
  assert json.loads(json.dumps(values))["box_sizes"]["small"] == 14


def test_what_is_worth_a_look(tmp_path: Path) -> None:
  notes = look(coco(tmp_path, BOXES | {5: [], 6: []}, copies=1)).notes
  # Image 6 is a copy of image 1.
  assert tuple(map(str, notes)) == (
    "1 class without objects: cow",
    "1 class with fewer than 10 objects: cat (1)",
    "1 image file is a copy of another: 1 = 6",
    "3 images without objects: 3, 5, 6",
    "12 boxes repeat another of their image exactly: 1, 2",
    "1 box with a side below 4 px, in 4",
  )


def test_text_names_everything(tmp_path: Path) -> None:
  spec = coco(tmp_path, BOXES)
  (tmp_path / "images" / "4.png").write_bytes((tmp_path / "images" / "4.png").read_bytes()[:-20])
  shown = text(look(spec))
  for wanted in (
    "  images          3\n",
    "  objects         15 (1 crowd regions)\n",
    "  per image       mean 5.0, median 3, most 12; 1 without any\n",
    "  image sizes     200x100 (3)\n",
    "  dog          14          2   93.3% ████████████████████████\n",
    "small 13 (87%), medium 1 (7%), large 1 (7%)",
    "Worth a look\n  1 class without objects: cow",
    "1 problems, left out here: 1 unreadable image\n  ",
    "4.png: image '",
    "is truncated",
  ):
    assert wanted in shown, wanted
  quick = text(look(spec, decode=False))
  assert "  images          4\n" in quick
  assert "No problems found (pixels were not looked at)" in quick


def test_policy_stop(tmp_path: Path) -> None:
  spec = coco(tmp_path, BOXES)
  (tmp_path / "images" / "2.png").write_bytes(b"no image")
  with pytest.raises(DataError, match=r"2\.png: image '.*2\.png' is not an image.*\n.*the image is left out"):
    look(spec, on_bad_data="stop")
  assert len(look(spec).problems) == 1
  for path in (tmp_path / "images").iterdir():
    path.write_bytes(b"")
  with pytest.raises(DataError, match=r"none of 4 images can be used; the first because of .*1\.png"):
    look(spec)


def folder(tmp_path: Path, classes: int = 3, images: int = 4) -> str:
  for label in range(classes):
    for number in range(images + label):
      write_image(tmp_path / "photos" / f"class{label:03d}" / f"{number}.png", 20 + number, 30)
  return f"imagefolder:{tmp_path / 'photos'}"


def test_classification(tmp_path: Path) -> None:
  summary = look(folder(tmp_path))
  assert summary.is_classification
  assert summary.images_per_class.tolist() == [4, 5, 6]
  assert str(summary.notes[0]) == "3 classes with fewer than 10 images: class000 (4), class001 (5), class002 (6)"
  assert "copies of another: class000/0.png = class001/0.png = class002/0.png" in str(summary.notes[1])
  assert "objects" not in summary.to_json()
  assert "  class002         6   40.0% ████████████████████████\n" in text(summary)


def test_many_classes_are_cut(tmp_path: Path) -> None:
  summary = look(folder(tmp_path, classes=40, images=1), decode=False)
  shown = text(summary)
  assert "40 classes (the 25 most and 5 least frequent)" in shown
  assert shown.index("class039") < shown.index("class015") < shown.index("...") < shown.index("class000")
  assert "class014" not in shown.split("Worth a look")[0]


def test_damaged_shards_are_found(tmp_path: Path) -> None:
  done = prepare(coco(tmp_path, BOXES), tmp_path / "out")
  path = next((tmp_path / "out").glob("*.array_record"))
  data = bytearray(path.read_bytes())
  data[-1] ^= 1  # in the padding, where no record is damaged
  path.write_bytes(data)
  problems = [str(problem) for problem in look(done.spec).problems]
  assert len(problems) == 1
  assert "the shard is damaged: its sha256 differs from the one in dataset.json. To repair it, run the" in problems[0]
  assert look(done.spec, decode=False).problems == ()


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw(image: np.ndarray, boxes: Any, labels: Any, classes: Any) -> Image.Image:
  """Fills the boxes, so that the test finds them."""
  picture = np.array(image)
  for x1, y1, x2, y2 in np.asarray(boxes).round().astype(int):
    picture[y1:y2, x1:x2] = (255, 0, 0)
  return Image.fromarray(picture)


def test_rare_classes_are_among_the_samples(tmp_path: Path) -> None:
  boxes = {number: [{"category_id": 2 if number == 37 else 1}] for number in range(1, 61)}
  summary = look(coco(tmp_path, boxes), decode=False)
  chosen = choose_samples(summary, 16)
  assert len(chosen) == len(set(chosen)) == 16
  assert chosen == sorted(chosen)
  assert 36 in chosen  # position of image 37, the only cat
  assert choose_samples(summary, 100) == list(range(60))


def test_boxes_are_where_they_belong_on_the_sheet(tmp_path: Path) -> None:
  dataset = open_spec(coco(tmp_path, {1: [{"bbox": [50, 25, 100, 50]}], 2: []}))
  sheet = np.asarray(sample_sheet(dataset, [0, 1], draw))
  red = (sheet == (255, 0, 0)).all(-1)
  rows, columns = np.nonzero(red)
  # 200 x 100 becomes 400 x 200 in a cell of 400 x 300 at (8, 8): the box of 100 x 50 at (50, 25) is doubled.
  assert (columns.min(), columns.max() + 1) == (8 + 100, 8 + 300)
  assert (rows.min(), rows.max() + 1) == (8 + 50 + 50, 8 + 50 + 150)
  assert sheet.shape == (8 + 300 + 26 + 8, 2 * 408 + 8, 3)


@pytest.mark.parametrize("kind", ["detect", "classify", "empty"])
def test_charts_are_drawn(tmp_path: Path, kind: str) -> None:
  spec = folder(tmp_path) if kind == "classify" else coco(tmp_path, BOXES if kind == "detect" else {1: [], 2: []})
  summary = look(spec)
  picture = Image.open(io.BytesIO(charts(summary)))
  assert picture.size == ((1500, 900) if kind == "detect" else (1500, 500))
  assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 50
  dataset = open_spec(spec)
  (tmp_path / "out").mkdir()
  files = write_pictures(summary, dataset, tmp_path / "out", draw)
  assert [path.name for path in files] == ["samples.png", "charts.png"]
  assert all(Image.open(path).format == "PNG" for path in files)
