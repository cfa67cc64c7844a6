"""Ignored regions and outlines: what sources give, and that nothing on the way to training or a folder loses them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines import spec as spec_module
from prn_jax.data_pipelines.doctor.report import sample_sheet, text
from prn_jax.data_pipelines.doctor.summary import summarize
from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.data_pipelines.prepared.record_bytes import decode_record, encode_record
from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions, shrink
from prn_jax.data_pipelines.records import DataError, Dataset, Object, RecordList, make_record, notes_of, with_names
from prn_jax.data_pipelines.spec import open_spec, register_source
from prn_jax.train.effective import annotations_digest
from tests.data_pipelines.pictures import write, write_image

TRIANGLE = np.array([[10.5, 5.0], [40.0, 8.0], [20.0, 30.0]])


def one_image(tmp_path: Path, ignored: bool = True) -> RecordList:
  """An image of 100 x 50 with an outlined object, one that has a box alone, and two ignored regions."""
  image = write_image(tmp_path / "a.png")
  objects = [Object((10.5, 5, 40, 30), 1, polygon_px=(TRIANGLE,)), Object((0, 0, 5, 5), 0)]
  regions = [(60, 10, 100, 50), (0.5, 40, 8, 50)] if ignored else []
  return RecordList(("cat", "dog"), (0, 1), (make_record(image, "a", (100, 50), objects, ignored_xyxy_px=regions),))


def rings(dataset: Dataset) -> list[list[list[list[float]]]]:
  """The rings of every object of the first image."""
  return [[ring.tolist() for ring in of_one] for of_one in dataset[0].polygons_px or ()]


# -- sources -----------------------------------------------------------------------------------------------------------
def test_records_without_them_have_empty_columns() -> None:
  record = make_record(b"", 1, None, [Object((0, 0, 1, 1), 0)])
  assert (record.ignored_xyxy_px.shape, record.ignored_xyxy_px.dtype, record.polygons_px) == ((0, 4), np.float32, None)


def coco(tmp_path: Path) -> str:
  write_image(tmp_path / "images" / "1.jpg")
  flat = TRIANGLE.ravel().tolist()
  box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}
  annotations = [
    {"id": 1, "segmentation": [flat, [1, 2, 3, 4, 5, 7]]},
    {"id": 2},
    {"id": 3, "iscrowd": 1, "segmentation": {"size": [50, 100], "counts": [0, 10, 4990]}},
    {"id": 4, "segmentation": [[1, 2, 3, 4]]},
    {"id": 5, "segmentation": [flat], "bbox": []},
  ]
  content = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 50}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [box | one for one in annotations],
  }
  return f"coco:{write(tmp_path / 'a.json', json.dumps(content))}:{tmp_path / 'images'}"


def test_polygons_of_coco(tmp_path: Path) -> None:
  dataset = open_spec(coco(tmp_path), keep_polygons=True)
  assert rings(dataset) == [[TRIANGLE.tolist(), [[1, 2], [3, 4], [5, 7]]], [], [], [], [TRIANGLE.tolist()]]
  assert dataset[0].boxes_xyxy_px[[0, 4]].tolist() == [[1, 2, 31, 42], [10.5, 5, 40, 30]]
  assert notes_of(dataset)[-1] == "2 segmentations are run-length codes, or no polygons; their objects have boxes alone"


def test_outlines_are_held_where_they_are_asked_for(tmp_path: Path) -> None:
  dataset = open_spec(coco(tmp_path))
  assert dataset[0].polygons_px is None
  assert len(notes_of(dataset)) == 1


def test_polygons_of_voc(tmp_path: Path) -> None:
  """With a box beside it a polygon is kept too; one that is none is left out."""
  points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in TRIANGLE)
  box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
  polygons = [
    f"<polygon>{points}</polygon>",
    f"{box}<polygon>{points}</polygon>",
    f"{box}<polygon><x1>3</x1></polygon>",
  ]
  write_image(tmp_path / "JPEGImages" / "a.jpg")
  write(tmp_path / "ImageSets" / "Main" / "val.txt", "a\n")
  items = "".join(f"<object><name>dog</name>{one}</object>" for one in polygons)
  write(tmp_path / "Annotations" / "a.xml", f"<annotation>{items}</annotation>")
  dataset = open_spec(f"voc:{tmp_path}:val", keep_polygons=True)
  assert rings(dataset) == [[TRIANGLE.tolist()], [TRIANGLE.tolist()], []]
  assert open_spec(f"voc:{tmp_path}:val")[0].polygons_px is None


def test_polygons_of_yolo(tmp_path: Path) -> None:
  write_image(tmp_path / "images" / "val" / "a.jpg")
  write(tmp_path / "labels" / "val" / "a.txt", "1 .105 .1 .4 .16 .2 .6\n0 .5 .5 .2 .4\n")
  path = write(tmp_path / "data.yaml", "names: [cat, dog]\nval: images/val\n")
  [first, second] = open_spec(f"yolo:{path}:val", keep_polygons=True)[0].polygons_px or ()
  np.testing.assert_allclose(first, [TRIANGLE], rtol=1e-12)
  assert second == ()
  assert open_spec(f"yolo:{path}:val")[0].polygons_px is None


def test_turned_boxes_of_yolo(tmp_path: Path) -> None:
  """YOLO-OBB: four corners in nine values; a line of five is a box, and one of eight is neither."""
  write_image(tmp_path / "images" / "val" / "a.jpg")
  write(tmp_path / "labels" / "val" / "a.txt", "1 0.5 0.1 0.7 0.5 0.5 0.9 0.3 0.5\n0 .5 .5 .2 .4\n")
  path = write(tmp_path / "data.yaml", "names: [cat, dog]\nval: images/val\n")
  record = open_spec(f"yolo:{path}:val", keep_polygons=True)[0]
  np.testing.assert_allclose(record.boxes_xyxy_px, [[30, 5, 70, 45], [40, 15, 60, 35]], atol=1e-5)
  [[ring], none] = record.polygons_px or ()
  np.testing.assert_allclose(ring, [[50, 5], [70, 25], [50, 45], [30, 25]])
  assert none == ()
  write(tmp_path / "labels" / "val" / "a.txt", "1 0.5 0.1 0.7 0.5 0.5 0.9 0.3\n")
  with pytest.raises(DataError, match=r"has 8 values; expected 'class x y w h', or a polygon"):
    open_spec(f"yolo:{path}:val")


def test_polygons_of_real_coco(shared: Path) -> None:
  """As many rings and points as the file holds."""
  folder = shared / "data" / "coco_subset"
  path = folder / "annotations" / "instances_val2017.json"
  entries = json.loads(path.read_text())["annotations"]
  polygons = [ring for one in entries if isinstance(one["segmentation"], list) for ring in one["segmentation"]]
  dataset = open_spec(f"coco:{path}:{folder / 'val2017'}", keep_polygons=True)
  every = [rings for i in range(len(dataset)) for rings in dataset[i].polygons_px or ()]
  found = [ring for rings in every for ring in rings]
  assert len(found) == len(polygons) > 0
  assert sum(map(len, found)) == sum(map(len, polygons)) // 2


# -- on the way --------------------------------------------------------------------------------------------------------
def test_they_stay_when_classes_are_renumbered(tmp_path: Path) -> None:
  before = one_image(tmp_path)
  after = with_names(before, ["dog", "cat"])[0]
  assert after.classes.tolist() == [0, 1]
  assert after.ignored_xyxy_px is before[0].ignored_xyxy_px
  assert after.polygons_px is before[0].polygons_px


def test_they_follow_their_pixels(tmp_path: Path) -> None:
  smaller, _ = shrink(one_image(tmp_path)[0], ShrinkOptions(size=(50, 100)))
  assert smaller.ignored_xyxy_px.tolist() == [[30, 20, 50, 100], [0.25, 80, 4, 100]]
  assert smaller.ignored_xyxy_px.dtype == np.float32
  assert smaller.polygons_px is not None
  assert smaller.polygons_px[0][0].tolist() == (TRIANGLE * [0.5, 2]).tolist()
  assert smaller.polygons_px[1] == ()


def test_bytes_of_a_record_with_ignored_regions(tmp_path: Path) -> None:
  """Older programs refuse it: they would take the regions for the image."""
  record = make_record(b"", 7, (10, 8), ignored_xyxy_px=[(1, 2, 3, 4)])
  header = b'{"image_id":7,"width":10,"height":8,"label":null,"objects":0,"area":false,"xywh":false,"ignored":1}'
  data = encode_record(record, b"image")
  assert data == (b"PRN2" + len(header).to_bytes(4, "little") + header + b"\0\0\x80?\0\0\0@\0\0@@\0\0\x80@" + b"image")
  again = decode_record(data)
  assert (again.ignored_xyxy_px.tolist(), again.image) == ([[1, 2, 3, 4]], b"image")
  with pytest.raises(DataError, match="the header of the record: ignored is 0; expected a whole number from 1"):
    decode_record(data.replace(b'"ignored":1', b'"ignored":0'))


def test_records_without_ignored_regions_are_written_as_ever(tmp_path: Path) -> None:
  record = one_image(tmp_path, ignored=False)[0]
  assert encode_record(record, b"").startswith(b"PRN1")
  assert decode_record(encode_record(record, b"")).ignored_xyxy_px.shape == (0, 4)


def test_prepared_data_holds_the_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  data = one_image(tmp_path)
  monkeypatch.setattr(spec_module, "_SOURCES", dict(spec_module._SOURCES))
  register_source("regions:NAME", "a set of this test")(lambda parts, log: data)
  prepare("regions:x", tmp_path / "out", options=ShrinkOptions(size=(50, 25)))
  record = open_spec(f"arrayrecord:{tmp_path / 'out'}:train")[0]
  assert record.ignored_xyxy_px.tolist() == [[30, 5, 50, 25], [0.25, 20, 4, 25]]
  assert record.polygons_px is None


def test_other_regions_are_other_annotations(tmp_path: Path) -> None:
  assert annotations_digest(one_image(tmp_path)) != annotations_digest(one_image(tmp_path, ignored=False))


# -- what people see ---------------------------------------------------------------------------------------------------
def test_regions_are_counted(tmp_path: Path) -> None:
  data = one_image(tmp_path)
  both = dataclasses.replace(data, records=(*data.records, *one_image(tmp_path, ignored=False).records))
  summary = summarize(both, "x")
  values = summary.to_json()
  assert (values["ignored_regions"], values["images_with_ignored_regions"], values["objects"]) == (2, 1, 4)
  assert "\n  ignored regions 2 in 1 images\n" in text(summary)
  assert "ignored" not in text(summarize(one_image(tmp_path, ignored=False), "x"))


def test_regions_are_hatched_on_the_sheet(tmp_path: Path) -> None:
  """The picture of 100 x 50 is enlarged four times and lies at (8, 58)."""
  data = one_image(tmp_path)
  black = tmp_path / "a.png"
  Image.new("RGB", (100, 50)).save(black)
  sheet = np.asarray(sample_sheet(data, [0], lambda pixels, *_: Image.fromarray(pixels))).astype(int)
  picture = sheet[58:258, 8:408, 0]
  assert set(np.unique(picture[40:, 240:])) == {64, 230}
  assert (picture[40:, 240:] == 230).mean() == pytest.approx(1 / 8, abs=0.01)
  assert not picture[:40].any()
  assert not picture[40:160, :240].any()
