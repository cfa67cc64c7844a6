"""Converting data sets: what is written, there and back for every pair of formats, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from prn_jax.data_pipelines import spec as specs
from prn_jax.data_pipelines.convert import job
from prn_jax.data_pipelines.convert.convert import convert
from prn_jax.data_pipelines.convert.digits import pixel_texts, relative_texts
from prn_jax.data_pipelines.convert.layout import keep_objects
from prn_jax.data_pipelines.convert.layouts import LAYOUTS
from prn_jax.data_pipelines.convert.proof import prove
from prn_jax.data_pipelines.convert.result import Converted
from prn_jax.data_pipelines.images import read_image
from prn_jax.data_pipelines.records import DataError, Object, Record, RecordList, Task, make_record
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import PrnError
from tests.data_pipelines.pictures import write_image

PAIRS = list(itertools.permutations(LAYOUTS, 2))


@contextlib.contextmanager
def in_memory(dataset: RecordList) -> Iterator[str]:
  """A SPEC that opens the data set."""
  specs.register_source("memory:NAME:SPLIT", "a set of this test")(lambda parts, log: dataset)
  try:
    yield "memory:it:train"
  finally:
    del specs._SOURCES["memory"]


def data(records: Sequence[Record], names: Sequence[str] = ("cat", "dog"), **more: Any) -> RecordList:
  return RecordList(tuple(names), tuple(range(len(names))), tuple(records), **more)


def converted(dataset: RecordList, out: Path, to: str, **options: Any) -> Converted:
  with in_memory(dataset) as spec:
    return convert(spec, out, to, **options)


def records_of(spec: str) -> dict[str, Record]:
  """By the stem of the image."""
  dataset = open_spec(spec)
  found = {Path(dataset[i].image).stem: dataset[i] for i in range(len(dataset))}  # type: ignore[arg-type]
  assert len(found) == len(dataset)
  return found


def assert_same(found: dict[str, Record], expected: dict[str, Record]) -> None:
  """Images, classes and boxes to the last bit of float32."""
  assert found.keys() == expected.keys()
  for name, record in found.items():
    np.testing.assert_array_equal(record.boxes_xyxy_px, expected[name].boxes_xyxy_px)
    np.testing.assert_array_equal(record.classes, expected[name].classes)


def tree(folder: Path) -> dict[str, str]:
  """Path -> digest of every file, and target of every link."""
  return {
    path.relative_to(folder).as_posix(): str(path.readlink())
    if path.is_symlink()
    else hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if not path.is_dir()
  }


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> RecordList:
  """An image of 200x100 with a car, a crowd and a difficult one, and one without objects."""
  one, two = write_image(tmp_path / "in" / "a b.png", 200, 100), write_image(tmp_path / "in" / "ü.png", 50, 50)
  objects = [
    Object((10, 20, 60.5, 45), 1, area_px=700.0, box_xywh_px=(10, 20, 50.5, 25)),
    Object((0, 0, 100, 100), 0, is_crowd=True, area_px=10000.0, box_xywh_px=(0, 0, 100, 100)),
    Object((199, 99, 200, 100), 0, is_difficult=True, area_px=1.0, box_xywh_px=(199, 99, 1, 1)),
  ]
  return data([make_record(one, 7, (200, 100), objects), make_record(two, 9, (50, 50))], ["a/b: c", "d"])


def test_coco_to_the_letter(tmp_path: Path, small: RecordList) -> None:
  done = converted(small, tmp_path / "out", "coco")
  content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
  assert content["categories"] == [
    {"id": 1, "name": "a/b: c", "supercategory": ""},
    {"id": 2, "name": "d", "supercategory": ""},
  ]
  assert content["images"] == [
    {"id": 7, "file_name": "a b.png", "width": 200, "height": 100},
    {"id": 9, "file_name": "ü.png", "width": 50, "height": 50},
  ]
  rest = {"image_id": 7, "segmentation": []}
  assert content["annotations"] == [
    {"id": 1, "category_id": 2, "bbox": [10, 20, 50.5, 25], "area": 700, "iscrowd": 0} | rest,
    {"id": 2, "category_id": 1, "bbox": [0, 0, 100, 100], "area": 10000, "iscrowd": 1} | rest,
    {"id": 3, "category_id": 1, "bbox": [199, 99, 1, 1], "area": 1, "iscrowd": 0, "ignore": 1} | rest,
  ]
  assert (done.num_images, done.num_objects, done.lost, done.images) == (2, 3, {}, {"copied": 2})
  assert done.max_difference_px == 0


def test_voc_to_the_letter(tmp_path: Path, small: RecordList) -> None:
  done = converted(small, tmp_path / "out", "voc")
  root = ElementTree.parse(tmp_path / "out" / "Annotations" / "a b.xml").getroot()
  assert root.findtext("filename") == "a b.png"
  assert [root.findtext(f"size/{key}") for key in ("width", "height", "depth")] == ["200", "100", "3"]
  found = [
    (item.findtext("name"), item.findtext("difficult"), [child.text for child in item.iterfind("bndbox/*")])
    for item in root.iter("object")
  ]
  assert found == [("d", "0", ["11", "21", "60.5", "45"])]
  assert (tmp_path / "out" / "ImageSets" / "Main" / "train.txt").read_text() == "a b\nü\n"
  assert (tmp_path / "out" / "classes.txt").read_text() == "a/b: c\nd\n"
  assert done.lost == {"crowd": 1, "area": 1, "too_small": 1, "image_id": 2}
  assert open_spec(done.spec).names == ("a/b: c", "d")


def test_yolo_and_darknet_to_the_letter(tmp_path: Path, small: RecordList) -> None:
  # 10 to 60.5 of 200 pixels, 20 to 45 of 100.
  line = "1 0.176250 0.325000 0.252500 0.250000\n"
  yolo = converted(small, tmp_path / "yolo", "yolo")
  assert (tmp_path / "yolo" / "labels" / "train" / "a b.txt").read_text() == line
  assert (tmp_path / "yolo" / "labels" / "train" / "ü.txt").read_text() == ""
  assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text()) == {
    "train": "images/train",
    "nc": 2,
    "names": {0: "a/b: c", 1: "d"},
  }
  darknet = converted(small, tmp_path / "darknet", "darknet")
  assert (tmp_path / "darknet" / "train" / "a b.txt").read_text() == line
  assert (tmp_path / "darknet" / "train.txt").read_text() == "train/a b.png\ntrain/ü.png\n"
  assert (tmp_path / "darknet" / "obj.names").read_text() == "a/b: c\nd\n"
  assert (tmp_path / "darknet" / "obj.data").read_text() == (
    "classes = 2\ntrain = train.txt\nnames = obj.names\nbackup = backup\n"
  )
  assert yolo.lost == darknet.lost == {"crowd": 1, "difficult": 1, "area": 1, "image_id": 2}


def test_what_is_said(tmp_path: Path, small: RecordList) -> None:
  done = converted(small, tmp_path / "out", "yolo")
  assert done.text().splitlines() == [
    "split train: images 2 (2 copied), objects 1",
    "not held by yolo, or changed:",
    "  crowd regions, which yolo does not know (left out): 1",
    "  difficult objects, a mark that yolo does not know (left out, as Darknet's own scripts do): 1",
    "  areas of segmentations (yolo has the boxes alone): 1",
    "  image ids that are others in yolo (file names tell the images apart): 2",
    "read again and compared: corners differ by at most 0 px",
    f"use it as yolo:{tmp_path / 'out' / 'data.yaml'}:train",
  ]


def test_outlines_and_ignored_regions(tmp_path: Path) -> None:
  """COCO and VOC keep them; in label files they are left out, and counted."""
  rings = (np.array([[1.5, 2], [9.25, 2], [9.25, 8.125]]), np.array([[3.0, 3], [5, 3], [5, 7], [3, 6.1]]))
  objects = [Object((1.5, 2, 9.25, 8.125), 1, polygon_px=rings), Object((3, 3, 20, 20), 0)]
  path = write_image(tmp_path / "1.png", 40, 30)
  record = make_record(path, "1", (40, 30), objects, ignored_xyxy_px=[(0, 0, 12.5, 30), (20, 10, 40, 30)])
  for to in LAYOUTS:
    done = converted(data([record]), tmp_path / to, to)
    found = open_spec(done.spec, keep_polygons=True)[0]
    if to in ("yolo", "darknet"):
      assert done.lost.items() >= {"polygon": 1, "ignored_region": 2}.items()
      assert len(found.ignored_xyxy_px) == 0
      continue
    assert not {"polygon", "ignored_region"} & done.lost.keys()
    np.testing.assert_array_equal(found.ignored_xyxy_px, record.ignored_xyxy_px)
    assert found.polygons_px is not None
    assert [[ring.tolist() for ring in rings] for rings in found.polygons_px] == [[r.tolist() for r in rings], []]
  image = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())["images"][0]
  assert image["ignored_regions"] == [[0, 0, 12.5, 30], [20, 10, 20, 20]]
  root = ElementTree.parse(tmp_path / "voc" / "Annotations" / "1.xml").getroot()
  assert [[child.text for child in item] for item in root.iterfind("ignored/bndbox")] == [
    ["1", "1", "12.5", "30"],
    ["21", "11", "40", "30"],
  ]
  moved = dataclasses.replace(objects[0], polygon_px=(rings[0] + 0.5,))
  other = make_record(path, "1", (40, 30), [moved, objects[1]], ignored_xyxy_px=[(0, 0, 12.5, 30), (20, 10, 40, 30)])
  with pytest.raises(DataError, match="with other annotations"):
    converted(data([other]), tmp_path / "coco", "coco")


# -- there and back ----------------------------------------------------------------------------------------------------

SETS = {
  "voc_sample": "voc:{}/voc_sample:all",
  "bccd": "voc:{}/bccd/BCCD:val",
  "vehicles": "yolo:{}/vehicles_openimages/data.yaml:test",
  "coco_subset": "coco:{0}/coco_subset/annotations/instances_train2017.json:{0}/coco_subset/train2017",
}


def held(record: Record, to: str) -> Record:
  """What a format can hold of an image."""
  gone = {"coco": record.is_crowd & False, "voc": record.is_crowd}.get(to, record.is_crowd | record.is_difficult)
  return keep_objects(record, ~gone)


@pytest.mark.parametrize("name", SETS)
def test_real_sets_through_every_pair(shared: Path, tmp_path: Path, name: str) -> None:
  """From the source to each format, and from each of these to each other one."""
  spec = SETS[name].format(shared / "data")
  options: Any = {"images": "link", "on_bad_data": "skip", "split": "valid"}
  start = open_spec(spec, "skip")
  original = {Path(start[i].image).stem: start[i] for i in range(len(start))}  # type: ignore[arg-type]
  first = {}
  for to in LAYOUTS:
    done = convert(spec, tmp_path / to, to, **options)
    first[to] = done.spec
    expected = {stem: held(record, to) for stem, record in original.items()}
    assert_same(records_of(done.spec), expected)
    assert (open_spec(done.spec).names, done.max_difference_px) == (start.names, 0)
    assert done.num_objects == sum(len(record.classes) for record in expected.values())
  for one, other in PAIRS:
    done = convert(first[one], tmp_path / f"{one}_{other}", other, **options)
    assert_same(records_of(done.spec), {stem: held(held(record, one), other) for stem, record in original.items()})
    assert (open_spec(done.spec).names, done.max_difference_px) == (start.names, 0)


def test_coco_to_coco_keeps_every_digit(shared: Path, tmp_path: Path) -> None:
  spec = SETS["coco_subset"].format(shared / "data")
  done = convert(spec, tmp_path / "out", "coco", images="link")
  before, after = open_spec(spec), open_spec(done.spec)
  assert (before.names, before.category_ids, done.lost) == (after.names, after.category_ids, {})
  for i in range(len(before)):
    one, other = before[i], after[i]
    for field in dataclasses.fields(Record):
      if field.name != "image":
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_pycocotools_reads_the_same(shared: Path, tmp_path: Path) -> None:
  source = shared / "data" / "coco_subset" / "annotations" / "instances_train2017.json"
  done = convert(f"coco:{source}:{source.parent.parent / 'train2017'}", tmp_path / "out", "coco", images="link")
  with contextlib.redirect_stdout(io.StringIO()):
    one, other = COCO(str(source)), COCO(done.spec.split(":")[1])
  assert one.getImgIds() == other.getImgIds()
  for image_id in one.getImgIds():
    boxes = [
      [(a["category_id"], a["bbox"], a["area"], a["iscrowd"]) for a in c.loadAnns(c.getAnnIds(imgIds=image_id))]
      for c in (one, other)
    ]
    assert sorted(boxes[0], key=repr) == sorted(boxes[1], key=repr)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[str, ...], list[tuple[int, int, list[Object]]]]:
  """Class names, and for each image its size and objects, with corners on and between pixels and over the edge."""
  alphabet = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\ufffe\uffff\u2028\u2029"
  )
  words = st.text(alphabet, min_size=1, max_size=12).filter(lambda text: text == text.strip())
  names = draw(st.lists(words, min_size=1, max_size=4, unique=True))
  images = []
  for _ in range(draw(st.integers(1, 3))):
    width, height = draw(st.integers(2, 5000)), draw(st.integers(2, 5000))

    def ends(side: int) -> tuple[float, float]:
      kinds = st.integers(-1, side + 1) | st.floats(-1, side + 1, width=32).map(lambda v: v if abs(v) > 1e-4 else 0.0)
      low, high = sorted((float(np.float32(draw(kinds))), float(np.float32(draw(kinds)))))
      return (low, high) if high - low > 1.001 else (0.0, float(side))

    objects = []
    for _ in range(draw(st.integers(0, 4))):
      (x1, x2), (y1, y2) = ends(width), ends(height)
      objects.append(Object((x1, y1, x2, y2), draw(st.integers(0, len(names) - 1))))
    images.append((width, height, objects))
  return tuple(names), images


@given(scenes())
@settings(max_examples=6, deadline=None)
def test_any_boxes_through_every_pair(scene: tuple[tuple[str, ...], list[tuple[int, int, list[Object]]]]) -> None:
  names, images = scene
  with tempfile.TemporaryDirectory() as text:
    folder = Path(text)
    records = [
      make_record(write_image(folder / "in" / f"{number}.png", w, h), f"{number}", (w, h), objects)
      for number, (w, h, objects) in enumerate(images)
    ]
    expected = {str(record.image_id): record for record in records}
    specs_of = {}
    for to in LAYOUTS:
      specs_of[to] = converted(data(records, names), folder / to, to, images="link").spec
    for one, other in PAIRS:
      done = convert(specs_of[one], folder / f"{one}_{other}", other, images="link")
      assert (open_spec(done.spec).names, done.max_difference_px) == (names, 0)
      assert_same(records_of(done.spec), expected)


@given(
  st.integers(1, 20_000).flatmap(
    lambda side: st.tuples(
      st.just(side), *[st.floats(-1, side + 1, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)] * 2
    )
  )
)
@settings(max_examples=300)
def test_numbers_come_back(ends: tuple[int, float, float]) -> None:
  """As `label_txt` and `voc_xml` read them."""
  side, *pair = ends
  low, high = sorted(pair)
  if high - low < 1e-3 or any(0 < abs(value) < 1e-7 * side for value in pair):
    return  # no size, or closer to zero than the difference of two numbers of 53 bits can be
  box = np.array([[low, 0, high, side]], np.float32)
  ((x, _, w, _),), num_inexact = relative_texts(box, (side, side))
  assert num_inexact == 0
  found = [(float(x) - float(w) / 2) * side, (float(x) + float(w) / 2) * side]
  assert [float(np.float32(value)) for value in found] == [low, high]
  ((x1, _, x2, _),), num_inexact = pixel_texts(box, (1, 1, 0, 0))
  assert num_inexact == 0
  assert [float(np.float32(value)) for value in (float(x1) - 1, float(x2))] == [low, high]


def test_few_digits_where_they_are_enough() -> None:
  boxes = np.array([[0, 104, 416, 208], [0, 0, 1, 5.125]], np.float32)
  assert relative_texts(boxes[:1], (416, 416)) == ([["0.500000", "0.375000", "1.000000", "0.250000"]], 0)
  texts, _ = relative_texts(boxes[1:], (640, 64))
  assert texts == [["0.000781250", "0.040039062500", "0.001562500", "0.080078125000"]]
  assert pixel_texts(boxes, (1, 1, 0, 0)) == ([["1", "105", "416", "208"], ["1", "1", "1", "5.125"]], 0)
  assert pixel_texts(np.array([[12.34, 0.1, 99.99, 3]], np.float32), (1, 1, 0, 0))[0] == [
    ["13.34", "1.1", "99.99", "3"]
  ]


def test_what_no_digits_give_back_is_counted() -> None:
  box = np.array([[1e-20, 0, 5, 5]], np.float32)
  assert relative_texts(box, (640, 640))[1] == 1
  assert pixel_texts(box, (1, 1, 0, 0))[1] == 1


# -- names and images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", LAYOUTS)
def test_equal_names_in_different_folders(tmp_path: Path, to: str) -> None:
  """Also those that differ by case alone, or that lists and label readers would not find again."""
  given_names = [
    "a/1.png",
    "b/1.png",
    "c/1.PNG",
    "c/x.jpeg.png",
    "a/é.png",
    "b/é.png",
    "a/ lead.png",
    "a/.hid.png",
    "a/1 0.png",
  ]
  records = []
  for number, name in enumerate(given_names):
    path = write_image(tmp_path / "in" / name, 20 + number, 30)
    records.append(make_record(path, name, (20 + number, 30), [Object((1, 2, 10 + number, 20), number % 2)]))
  done = converted(data(records), tmp_path / "out", to)
  back = records_of(done.spec)
  assert {record.width: record.boxes_xyxy_px.tolist() for record in back.values()} == {
    record.width: record.boxes_xyxy_px.tolist() for record in records
  }
  assert done.lost["renamed"] == 5
  assert list(back) >= sorted(back) or to != "yolo"
  assert {"1", "b_1", "c_1", "x.jpeg", "é", "b_é", "_lead", "_hid", "1 0"} == set(back)


@pytest.mark.parametrize("to", LAYOUTS)
def test_images_in_memory_become_files(tmp_path: Path, to: str) -> None:
  done = convert("synthetic:traffic:3@valid", tmp_path / "out", to)
  assert done.images == {"written": 3}
  before = open_spec("synthetic:traffic:3@valid")
  after = records_of(done.spec)
  for i in range(3):
    image = after[str(before[i].image_id)].image
    np.testing.assert_array_equal(read_image(image), read_image(before[i].image))


@pytest.mark.parametrize("images", ["copy", "link"])
def test_photos_that_exif_turns_are_written_upright(tmp_path: Path, images: str) -> None:
  """Others that read pixels as they are stored see the box where it belongs."""
  picture = Image.new("RGB", (80, 40), "blue")
  picture.paste("red", (8, 8, 32, 24))
  path = tmp_path / "in" / "1.jpg"
  path.parent.mkdir()
  picture.transpose(Image.Transpose.ROTATE_90).save(
    path, quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
  )
  record = make_record(path, "1", (80, 40), [Object((8, 8, 32, 24), 0)])
  done = converted(data([record]), tmp_path / "out", "voc", images=images)
  assert (done.images, done.lost) == ({"turned": 1}, {"turned": 1})
  with Image.open(tmp_path / "out" / "JPEGImages" / "1.jpg") as stored:
    assert (stored.size, stored.getexif().get(0x112)) == ((80, 40), None)
    pixels = np.asarray(stored).astype(int)
  rows, columns = np.nonzero(pixels[..., 0] > pixels[..., 2])
  np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [8, 8, 32, 24], atol=1)
  assert "images that EXIF turns (written upright and encoded anew" in done.text()


def test_links_and_copies(tmp_path: Path, small: RecordList) -> None:
  linked = converted(small, tmp_path / "linked", "yolo", images="link")
  path = tmp_path / "linked" / "images" / "train" / "a b.png"
  assert path.readlink() == small[0].image
  assert linked.images == {"linked": 2}
  converted(small, tmp_path / "copied", "yolo")
  copy = tmp_path / "copied" / "images" / "train" / "a b.png"
  assert not copy.is_symlink()
  assert copy.read_bytes() == small[0].image.read_bytes()  # type: ignore[union-attr]


def test_sizes_that_the_source_did_not_know(tmp_path: Path) -> None:
  path = write_image(tmp_path / "1.png", 40, 30)
  objects = [Object((1, 1, 20, 20), 0), Object((30, 5, 60, 20), 1), Object((50, 5, 60, 20), 1)]
  dataset = data([make_record(path, "1", None, objects)])
  with pytest.raises(DataError, match=r"1\.png: box \[30, 5, 60, 20\] .* reaches 20 px outside its 40x30 image"):
    converted(dataset, tmp_path / "out", "yolo")
  assert not (tmp_path / "out").exists()
  done = converted(dataset, tmp_path / "out", "yolo", on_bad_data="skip")
  assert (done.left_out, done.num_objects) == ({"outside the image": 2}, 2)
  assert records_of(done.spec)["1"].boxes_xyxy_px.tolist() == [[1, 1, 20, 20], [30, 5, 40, 20]]


def test_an_image_of_another_size_than_its_boxes(tmp_path: Path) -> None:
  good, bad = write_image(tmp_path / "1.png", 40, 30), write_image(tmp_path / "2.png", 40, 30)
  dataset = data([make_record(good, "1", (40, 30)), make_record(bad, "2", (80, 60), [Object((0, 0, 70, 50), 0)])])
  with pytest.raises(DataError, match=r"2\.png' is 40x30, but the annotations say 80x60"):
    converted(dataset, tmp_path / "out", "coco")
  assert converted(dataset, tmp_path / "out", "coco", on_bad_data="skip").num_images == 1


# -- folders, splits, again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", LAYOUTS)
def test_two_splits_share_classes_and_a_folder(tmp_path: Path, to: str) -> None:
  """An image of both keeps its name; another of that name gets one of its own."""
  both, one = write_image(tmp_path / "a" / "1.png", 40, 30), write_image(tmp_path / "a" / "2.png", 40, 30)
  other = write_image(tmp_path / "b" / "2.png", 50, 30)
  box = Object((1, 2, 30, 20), 1)
  train = data([make_record(both, "1", (40, 30), [box]), make_record(one, "2", (40, 30))], ["x", "dog"])
  valid = data(
    [make_record(both, "1", (40, 30), [dataclasses.replace(box, class_index=0)]), make_record(other, "2", (50, 30))],
    ["dog"],
  )
  first = converted(train, tmp_path / "out", to)
  second = converted(valid, tmp_path / "out", to, split="val")
  assert open_spec(first.spec).names == open_spec(second.spec).names == ("x", "dog")
  found = records_of(second.spec)
  assert set(found) == ({"1", "b_2"} if to == "voc" else {"1", "2"})
  assert found["1"].classes.tolist() == records_of(first.spec)["1"].classes.tolist() == [1]
  assert converted(train, tmp_path / "out", to).is_kept
  assert converted(valid, tmp_path / "out", to, split="val").is_kept


@pytest.mark.parametrize("to", LAYOUTS)
def test_the_same_bytes_again(tmp_path: Path, to: str, small: RecordList) -> None:
  done = converted(small, tmp_path / "out", to)
  first = tree(tmp_path / "out")
  again = converted(small, tmp_path / "out", to)
  assert again == dataclasses.replace(done, is_kept=True)
  converted(small, tmp_path / "other", to)
  assert tree(tmp_path / "out") == tree(tmp_path / "other") == first


@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("when", ["prove", "write_text", "place"])
def test_a_run_that_is_stopped(
  tmp_path: Path, to: str, when: str, small: RecordList, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Nothing looks whole; started again, it is as if nothing had been."""
  converted(small, tmp_path / "whole", to)

  def stop(*args: object, **options: object) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(job, when, stop)
  with pytest.raises(KeyboardInterrupt):
    converted(small, tmp_path / "out", to)
  monkeypatch.undo()
  with pytest.raises(DataError):
    open_spec(LAYOUTS[to].spec(tmp_path / "out", "train"))
  converted(small, tmp_path / "out", to)
  assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("to", LAYOUTS)
def test_a_kill_between_two_files_of_the_end(
  tmp_path: Path, to: str, small: RecordList, monkeypatch: pytest.MonkeyPatch
) -> None:
  """A second split that was stopped while it was put to its place leaves the first whole, and does not look whole."""
  first = converted(small, tmp_path / "out", to)
  before = records_of(first.spec)
  calls = iter(range(100))

  def replace_once(source: Path, target: Path) -> None:
    if next(calls) == 1:
      raise KeyboardInterrupt
    Path(source).rename(target)

  more = data([dataclasses.replace(small[0], image=write_image(tmp_path / "in" / "z.png", 200, 100))], small.names)
  monkeypatch.setattr(job.os, "replace", replace_once)
  monkeypatch.setattr(job, "write_text", lambda path, text: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    converted(more, tmp_path / "out", to, split="valid")
  monkeypatch.undo()
  assert_same(records_of(first.spec), before)
  with pytest.raises(DataError):
    open_spec(LAYOUTS[to].spec(tmp_path / "out", LAYOUTS[to].split_of("valid")))
  assert converted(more, tmp_path / "out", to, split="valid").num_images == 1
  assert converted(small, tmp_path / "out", to).is_kept
  for half in (first.spec, LAYOUTS[to].spec(tmp_path / "out", LAYOUTS[to].split_of("valid"))):
    assert open_spec(half).names == small.names


def test_folders_of_others_are_left_alone(tmp_path: Path, small: RecordList) -> None:
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "mine.txt").write_text("mine")
  with pytest.raises(DataError, match=r"out' holds 'mine.txt', which no prn data convert has written"):
    converted(small, tmp_path / "out", "yolo")
  assert tree(tmp_path / "out").keys() == {"mine.txt"}
  converted(small, tmp_path / "yolo", "yolo")
  with pytest.raises(DataError, match=r"yolo' holds a set converted to yolo, not to coco"):
    converted(small, tmp_path / "yolo", "coco")
  with pytest.raises(DataError, match=r"holds split 'train' with other annotations"):
    converted(dataclasses.replace(small, records=small.records[:1]), tmp_path / "yolo", "yolo")
  with pytest.raises(DataError, match=r"holds split 'train' with images put there in another way"):
    converted(small, tmp_path / "yolo", "yolo", images="link")
  with (tmp_path / "yolo" / "data.yaml").open("a") as file:
    file.write("# mine\n")
  with pytest.raises(DataError, match=r"data\.yaml was changed since it was written, and would be overwritten"):
    converted(small, tmp_path / "yolo", "yolo", split="val")
  (tmp_path / "yolo" / "labels" / "train" / "ü.txt").write_text("0 .5 .5 .1 .1\n")
  with pytest.raises(DataError, match=r"holds split 'train', which was changed since it was written"):
    converted(small, tmp_path / "yolo", "yolo")
  with pytest.raises(PrnError, match=r"mine.txt': it is a file"):
    converted(small, tmp_path / "out" / "mine.txt", "yolo")


def test_names_that_are_no_text(tmp_path: Path) -> None:
  path = write_image(tmp_path / "a\udcff.png", 40, 30)
  with pytest.raises(DataError, match=r"the name of image 'a.*' is no UTF-8 text; rename the file"):
    converted(data([make_record(path, path.stem, (40, 30))]), tmp_path / "out", "coco")


def test_a_disk_that_is_full(tmp_path: Path, small: RecordList, monkeypatch: pytest.MonkeyPatch) -> None:
  def full(path: Path, data: bytes) -> None:
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Path, "write_bytes", full)
  with pytest.raises(PrnError, match=r"cannot write to '.*out': No space left on device\. What is unfinished there"):
    converted(small, tmp_path / "out", "voc")
  assert not (tmp_path / "out").exists()


def test_images_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  seen: dict[str, Record] = {}
  monkeypatch.setattr(job, "prove", lambda spec, names, written: seen.update(written) or prove(spec, names, written))
  convert("synthetic:traffic:2", tmp_path / "out", "yolo")
  assert [record.image for record in seen.values()] == [b"", b""]


def test_a_damaged_index(tmp_path: Path, small: RecordList) -> None:
  converted(small, tmp_path / "out", "coco")
  path = tmp_path / "out" / "converted.json"
  text = path.read_text()
  for bad in (
    text[:50],
    text.replace('"version": 1', '"version": "x"'),
    "[]",
    text.replace('"splits": {', '"splats": {'),
  ):
    path.write_text(bad)
    with pytest.raises(DataError, match=r"converted\.json"):
      converted(small, tmp_path / "out", "coco")
  path.write_text(text.replace('"version": 1', '"version": 2'))
  with pytest.raises(DataError, match=r"has version 2; this version of prn_jax reads 1"):
    converted(small, tmp_path / "out", "coco")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("to", "name", "message"),
  [
    ("darknet", " cat", "the class name ' cat' begins or ends with a blank, so that darknet cannot hold it"),
    ("darknet", "a\nb", "holds a line end"),
    ("voc", "a\x01b", "holds what no XML can"),
    ("voc", "", "is empty"),
    ("yolo", "", "is empty"),
    ("coco", "", "is empty"),
  ],
)
def test_class_names_that_do_not_fit(tmp_path: Path, small: RecordList, to: str, name: str, message: str) -> None:
  with pytest.raises(DataError, match=message):
    converted(dataclasses.replace(small, names=("a", name)), tmp_path / "out", to)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "name", ["no", "007", "1.10", "~", "a: b", "- x", "'q'", '"', "#", "{x}", "été 😀", "a\\b", "&<>", "%", "x,y"]
)
@pytest.mark.parametrize("to", LAYOUTS)
def test_class_names_that_look_like_syntax(tmp_path: Path, small: RecordList, to: str, name: str) -> None:
  done = converted(dataclasses.replace(small, names=("b", name)), tmp_path / "out", to)
  assert open_spec(done.spec).names == ("b", name)


def test_other_refusals(tmp_path: Path, small: RecordList) -> None:
  with pytest.raises(
    DataError, match=r"the format is 'yollo' \(did you mean 'yolo'\?\); expected one of coco, yolo, voc, darknet"
  ):
    converted(small, tmp_path / "out", "yollo")
  with pytest.raises(DataError, match=r"has the splits train and valid, and 'test' is neither\. Name the split"):
    converted(small, tmp_path / "out", "darknet", split="test")
  with pytest.raises(DataError, match=r"'names' is a key of a data.yaml with a meaning of its own"):
    converted(small, tmp_path / "out", "yolo", split="names")
  with pytest.raises(DataError, match=r"'a/b' is no name for a split"):
    converted(small, tmp_path / "out", "coco", split="a/b")
  with pytest.raises(DataError, match=r"has classes of whole images, no boxes, which coco cannot hold"):
    converted(dataclasses.replace(small, task=Task.CLASSIFY), tmp_path / "out", "coco")
  with pytest.raises(PrnError, match=r"cannot write to 'gs://b/x': data is converted on this machine"):
    converted(small, "gs://b/x", "coco")  # type: ignore[arg-type]
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", LAYOUTS)
def test_damaged_and_missing_images(tmp_path: Path, to: str) -> None:
  good = make_record(write_image(tmp_path / "1.png", 40, 30), "1", (40, 30), [Object((1, 1, 20, 20), 0)])
  (tmp_path / "2.png").write_bytes(b"no image")
  bad = [make_record(tmp_path / name, name, (40, 30), [Object((1, 1, 20, 20), 0)]) for name in ("2.png", "3.png")]
  with pytest.raises(
    DataError, match=r"2\.png: the file is not an image[^\n]*\nWith on_bad_data='skip' .* the image is left out"
  ):
    converted(data([good, bad[0]]), tmp_path / "out", to)
  done = converted(data([good, *bad]), tmp_path / "out", to, on_bad_data="skip")
  assert (done.num_images, len(done.problems)) == (1, 2)
  with pytest.raises(DataError, match="no image is left"):
    converted(data(bad), tmp_path / "none", to, on_bad_data="skip")
  assert not (tmp_path / "none").exists()
