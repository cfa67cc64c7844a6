"""COCO's JSON: what is read, and every way in which it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.data_pipelines.reading.segmentations import box_around
from prn_jax.data_pipelines.records import DataError, RecordList, notes_of
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image


def annotation(number: int, **changes: Any) -> dict[str, Any]:
  entry = {"id": number, "image_id": 1, "category_id": 18, "bbox": [10, 5, 20, 30], "area": 321.5, "iscrowd": 0}
  return {key: value for key, value in (entry | changes).items() if value is not ...}


def coco(tmp_path: Path, *annotations: Any, **changes: Any) -> str:
  write_image(tmp_path / "images" / "1.jpg")
  content = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 50}],
    "categories": [{"id": 90, "name": "cow"}, {"id": 18, "name": "dog"}],
    "annotations": list(annotations),
  }
  path = write(tmp_path / "a.json", json.dumps(content | changes))
  return f"coco:{path}:{tmp_path / 'images'}"


def opened(spec: str) -> RecordList:
  dataset = open_spec(spec, "skip")
  assert isinstance(dataset, RecordList)
  return dataset


def test_values(tmp_path: Path) -> None:
  entries = (annotation(5), annotation(6, category_id=90, iscrowd=1), annotation(7, area=...))
  dataset = open_spec(coco(tmp_path, *entries))
  assert dataset.names == ("dog", "cow")  # by ascending id
  assert dataset.category_ids == (18, 90)
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == (1, 100, 50)
  assert record.image == tmp_path / "images" / "1.jpg"
  np.testing.assert_array_equal(record.boxes_xyxy_px, np.tile(np.float32([10, 5, 30, 35]), (3, 1)))
  assert record.classes.tolist() == [0, 1, 0]
  assert record.is_crowd.tolist() == [False, True, False]
  assert not record.is_difficult.any()
  assert record.area_px is not None
  assert record.area_px.tolist() == [321.5, 321.5, 600.0]


BAD = [
  (annotation(5, image_id=2), r"annotation 5: image_id 2 is not among the 1 images", "unknown image"),
  (annotation(5, image_id=[1]), r"annotation 5: image_id \[1\] is not among", "unknown image"),
  (annotation(5, category_id=3), r"annotation 5: category_id 3 is not among the 2 categories", "unknown class"),
  (annotation(5, bbox=[1, 2, 3]), r"annotation 5: bbox is \[1, 2, 3\]; expected four numbers", "malformed"),
  (annotation(5, bbox=...), r"annotation 5: bbox is None; expected four numbers", "malformed"),
  (annotation(5, bbox=[1, 2, "3", 4]), r"annotation 5: bbox is .* expected four numbers", "malformed"),
  (annotation(5, bbox=[1, 2, float("nan"), 4]), r"annotation 5: box .* is not finite", "not finite"),
  (annotation(5, bbox=[1, 2, 0, 4]), r"annotation 5: box .* has size 0x4", "no size"),
  (annotation(5, bbox=[9, 2, -3, 4]), r"annotation 5: box .* has size -3x4", "no size"),
  (
    annotation(5, bbox=[150, 2, 9, 9]),
    r"annotation 5: box .* reaches 59 px outside its 100x50 image",
    "outside the image",
  ),
  ("text", r"annotation number 1 is 'text'; expected keys with values", "malformed"),
  (annotation(4), r"two annotations of image 1 have id 4", "duplicate"),
  (
    annotation(5, bbox=[0, 0, 0, 0], segmentation={"size": [5, 5], "counts": "04"}),
    r"annotation 5: it has no bbox, and its segmentation has runs of 4 pixels in all, but its size is 5x5",
    "malformed",
  ),
]


@pytest.mark.parametrize(("bad", "message", "kind"), BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_bad_annotations_stop_or_are_left_out(tmp_path: Path, bad: Any, message: str, kind: str) -> None:
  spec = coco(tmp_path, annotation(4), bad)
  with pytest.raises(DataError, match=rf"a\.json: {message}"):
    open_spec(spec)
  dataset = opened(spec)
  assert len(dataset[0].classes) == 1
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset.problems[0].path == tmp_path / "a.json"


def test_a_box_partly_outside_is_clipped_under_skip(tmp_path: Path) -> None:
  dataset = opened(coco(tmp_path, annotation(4, bbox=[90, 40, 30, 5], area=...)))
  np.testing.assert_array_equal(dataset[0].boxes_xyxy_px, np.float32([[90, 40, 100, 45]]))
  assert dataset[0].area_px is not None
  assert dataset[0].area_px.tolist() == [50.0]
  assert str(dataset.problems[0]).endswith("the box is clipped to the image")


def test_missing_image(tmp_path: Path) -> None:
  images = [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 50} for number in (1, 2)]
  spec = coco(tmp_path, annotation(4), annotation(5, image_id=2), images=images)
  with pytest.raises(DataError, match=r"2\.jpg: the image of id 2 in .*a\.json does not exist"):
    open_spec(spec)
  dataset = opened(spec)
  assert [record.image_id for record in dataset.records] == [1]
  assert [problem.kind for problem in dataset.problems] == ["missing image"]


def test_duplicate_ids(tmp_path: Path) -> None:
  image = {"id": 1, "file_name": "1.jpg", "width": 100, "height": 50}
  with pytest.raises(DataError, match=r"a\.json: two entries of kind image have id 1"):
    open_spec(coco(tmp_path, annotation(4), images=[image] * 2))
  with pytest.raises(DataError, match=r"a\.json: two entries of kind category have id 18"):
    open_spec(coco(tmp_path, annotation(4), categories=[{"id": 18, "name": "dog"}] * 2))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"images": [\n1,]}', r"a\.json:2 is no valid JSON: .* at column [23]"),
    ("[]", r"a\.json has no list 'images'; expected COCO's object detection format"),
    ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
    ('{"images": [], "annotations": [], "categories": []}', r"a\.json holds no images"),
  ],
)
def test_files_that_are_no_coco(tmp_path: Path, text: str, message: str) -> None:
  path = write(tmp_path / "a.json", text)
  with pytest.raises(DataError, match=message):
    open_spec(f"coco:{path}:{tmp_path}")


def test_missing_files(tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"none\.json cannot be read: No such file"):
    open_spec(f"coco:{tmp_path / 'none.json'}:{tmp_path}")
  path = write(tmp_path / "a.json", '{"images": [], "annotations": [], "categories": []}')
  with pytest.raises(DataError, match=r"there is no folder .*nowhere; expected the images there"):
    open_spec(f"coco:{path}:{tmp_path / 'nowhere'}")


def test_real_coco(shared: Path) -> None:
  root = shared / "data" / "coco_subset"
  dataset = open_spec(f"coco:{root / 'annotations' / 'instances_val2017.json'}:{root / 'val2017'}")
  records = [dataset[index] for index in range(len(dataset))]
  # The figures of the NOTICE beside the data.
  assert len(records) == 141
  assert sum(len(record.classes) for record in records) == 1301
  assert sum(int(record.is_crowd.sum()) for record in records) == 16
  assert len({int(index) for record in records for index in record.classes}) == 79
  assert len(dataset.names) == 80
  assert dataset.category_ids[-1] == 90


@pytest.mark.parametrize(
  ("written", "is_crowd"),
  [("0", False), ("1", True), (0.0, False), (True, True), ("false", False), ("True", True), (None, False), ("", False)],
)
def test_crowds_as_tools_write_them(tmp_path: Path, written: Any, is_crowd: bool) -> None:
  dataset = open_spec(coco(tmp_path, annotation(4, iscrowd=written)))
  assert dataset[0].is_crowd.tolist() == [is_crowd]


@pytest.mark.parametrize("written", ["crowd", 2, [0], "-1"])
def test_what_is_no_crowd_is_named(tmp_path: Path, written: Any) -> None:
  spec = coco(tmp_path, annotation(4, iscrowd=written), annotation(5))
  with pytest.raises(DataError, match=r"a\.json: annotation 4: iscrowd is .*; expected true or false \(also 1 or 0"):
    open_spec(spec)
  assert len(opened(spec)[0].classes) == 1


@pytest.mark.parametrize("as_written", [str, float, lambda number: f"{number}.0"])
def test_ids_and_sizes_as_text_and_as_floats(tmp_path: Path, as_written: Any) -> None:
  spec = coco(
    tmp_path,
    annotation(as_written(4), image_id=as_written(1), category_id=as_written(18)),
    images=[{"id": as_written(1), "file_name": "1.jpg", "width": as_written(100), "height": as_written(50)}],
    categories=[{"id": as_written(90), "name": "cow"}, {"id": as_written(18), "name": "dog"}],
  )
  dataset = open_spec(spec)
  assert dataset.category_ids == (18, 90)
  assert dataset.names == ("dog", "cow")
  assert (dataset[0].image_id, dataset[0].width, dataset[0].height, dataset[0].classes.tolist()) == (1, 100, 50, [0])


def test_no_category_that_has_a_number(tmp_path: Path) -> None:
  spec = coco(tmp_path, annotation(4), categories=[{"id": "dog", "name": "dog"}])
  with pytest.raises(DataError, match=r"category number 0 has id 'dog'; expected a whole number"):
    open_spec(spec)
  with pytest.raises(DataError, match=r"a\.json has no categories: all were left out, the first because of .*'dog'"):
    open_spec(spec, "skip")


HOSTILE = ["\ud800", "a\0b", "x" * 5000, 10**1000, 10**4200, 1e308, -1, [], {}, [[]], True, None, float("inf")]


@pytest.mark.parametrize("value", HOSTILE, ids=[f"{number}" for number in range(len(HOSTILE))])
def test_hostile_values_are_named_wherever_they_stand(tmp_path: Path, value: Any) -> None:
  for key in annotation(1):
    opened(coco(tmp_path, annotation(4, **{key: value}), annotation(5)))
  good = {"id": 1, "file_name": "1.jpg", "width": 100, "height": 50}
  for key in good:
    opened(coco(tmp_path, images=[good | {"id": 2}, good | {key: value}]))
  for key in ("id", "name"):
    dataset = opened(coco(tmp_path, categories=[{"id": 7, "name": "cat"}, {"id": 8, "name": "dog", key: value}]))
    assert all(name.encode() for name in dataset.names)


# -- files of other tools ----------------------------------------------------------------------------------------------


def named(tmp_path: Path, *file_names: str) -> str:
  images = [{"id": k, "file_name": name, "width": 100, "height": 50} for k, name in enumerate(file_names)]
  return coco(tmp_path, annotation(1, image_id=0), images=images)


@pytest.mark.parametrize(
  "file_name",
  [
    "images\\1.jpg",
    "C:\\work\\images\\1.jpg",
    "/data/upload/3/1.jpg",
    "/data/local-files/?d=images/1.jpg",
    "/data/local-files/?d=images%5C1.jpg",
    "file:///C:/images/1.jpg",
    "http://host:8080/data/upload/1.jpg",
    "./1.jpg",
    "1.JPG",
    "train2017/1.jpg",
  ],
)
def test_file_names_of_other_machines(tmp_path: Path, file_name: str) -> None:
  dataset = open_spec(named(tmp_path, file_name))
  assert dataset[0].image == tmp_path / "images" / "1.jpg"
  assert len(dataset[0].classes) == 1
  assert len(notes_of(dataset)) == (file_name != "./1.jpg")


@pytest.mark.parametrize(("name", "file_name"), [("a b.jpg", "a%20b.jpg"), ("é.jpg", "e\u0301.jpg"), ("a\\b.jpg", "a\\b.jpg")])  # fmt: skip
def test_file_names_in_other_letters(tmp_path: Path, name: str, file_name: str) -> None:
  write_image(tmp_path / "images" / name)
  assert open_spec(named(tmp_path, file_name))[0].image == tmp_path / "images" / name


def test_a_name_that_two_images_share_is_nobodys(tmp_path: Path) -> None:
  dataset = opened(named(tmp_path, "a/1.jpg", "b/1.jpg", "1.jpg"))
  assert [record.image_id for record in dataset.records] == [2]
  assert [problem.kind for problem in dataset.problems] == ["missing image"] * 2


def test_boxes_around_segmentations(tmp_path: Path) -> None:
  polygons = [[10, 5, 30, 5, 20, 35], [28.5, 6, 40, 8, 30, 10]]
  runs = {"size": [50, 100], "counts": [52, 3, 47, 3, 4895]}  # rows 2 to 4 of the columns 1 and 2
  dataset = open_spec(
    coco(
      tmp_path,
      annotation(1, bbox=..., segmentation=polygons),
      annotation(2, bbox=[0, 0, 0, 0], segmentation=polygons[:1]),
      annotation(3, bbox=[], segmentation=runs, iscrowd=1),
      annotation(4, bbox=None, segmentation=polygons[0]),
      annotation(5, segmentation=runs),  # has a box of its own
    )
  )
  expected = [[10, 5, 40, 35], [10, 5, 30, 35], [1, 2, 3, 5], [10, 5, 30, 35], [10, 5, 30, 35]]
  np.testing.assert_array_equal(dataset[0].boxes_xyxy_px, np.float32(expected))
  assert notes_of(dataset) == (
    "4 annotations have no bbox, or one without size; the boxes around their segmentations are used",
  )


@pytest.mark.parametrize(
  ("segmentation", "message"),
  [
    ([[1, 2, 3, 4, 5]], "holds a polygon that is not x1, y1"),
    ([["1", 2, 3, 4, 5, 6]], "holds a polygon that is not x1, y1"),
    ([[1, 2, 3, 4, 5, float("inf")]], "holds a polygon with points that are not finite"),
    ("text", "is neither a list of polygons nor a run-length code"),
    ({"counts": [1, 2]}, "has a run-length code without size"),
    ({"size": [50, 100]}, "has a run-length code without counts"),
    ({"size": [50, 100], "counts": [1, 2]}, "has runs of 3 pixels in all, but its size is 100x50"),
    ({"size": [50, 100], "counts": "~~~"}, "has a run-length code that is not COCO's text"),
    ({"size": [50, 100], "counts": "oooo"}, "has a run-length code that ends in the middle of a number"),
    ({"size": [10**12, 10**12], "counts": []}, "is 1000000000000; expected a whole number"),
  ],
)
def test_segmentations_that_are_none(tmp_path: Path, segmentation: Any, message: str) -> None:
  with pytest.raises(DataError, match=rf"annotation 1: it has no bbox, and its segmentation {message}"):
    open_spec(coco(tmp_path, annotation(1, bbox=..., segmentation=segmentation)))


def test_run_length_codes_as_pycocotools_reads_them() -> None:
  mask = pytest.importorskip("pycocotools.mask")
  rng = np.random.default_rng(0)
  for share in (0.0, 0.01, 0.1, 0.5, 0.95, 1.0) * 10:
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    code = mask.encode(np.asfortranarray(rng.random((height, width)) < share).astype(np.uint8))
    box = box_around({"size": [height, width], "counts": code["counts"].decode()})
    assert (box or (0, 0, 0, 0)) == tuple(mask.toBbox(code))


def test_ids_of_annotations_may_begin_anew_be_text_or_be_missing(tmp_path: Path) -> None:
  write_image(tmp_path / "images" / "2.jpg")
  images = [{"id": k, "file_name": f"{k}.jpg", "width": 100, "height": 50} for k in (1, 2)]
  entries = [annotation(k, image_id=image) for image in (1, 2) for k in (0, 1)]
  entries += [annotation("8f14e45f"), annotation(...), annotation(...)]
  dataset = open_spec(coco(tmp_path, *entries, images=images))
  assert [len(dataset[index].classes) for index in range(2)] == [5, 2]
  assert notes_of(dataset) == ("2 annotations have the id of one of another image; all are used",)
